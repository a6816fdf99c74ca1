"""Admin pages of teams."""

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib.admin import display, register
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from common.values import normal_value
from tenants.admin_forms import FilledForm, RowFormSet
from tenants.admin_site import TenantInline, TenantModelAdmin, actor_of, site, tenant_of
from tenants.members import change_team_members
from tenants.models import Team, TeamMember, Tenant, User
from tenants.people import create_team, rename_team
from tenants.roles import ROLES_THAT_GRANT


class TeamMemberFormSet(RowFormSet):
    """The members of a team: each person once."""

    def clean(self) -> None:
        people = [
            form.cleaned_data["user"]
            for form in self.forms
            if form.cleaned_data.get("user") and not form.cleaned_data.get("DELETE")
        ]
        if len(people) != len(set(people)):
            raise ValidationError("A person is listed twice.")


TEAM_MEMBER_LABELS = {
    "user": "Person",
    "is_lead": "Leads the team and is notified about its budgets",
}


class TeamMemberInline(TenantInline):
    """Who is in a team, and who leads it."""

    model = TeamMember
    formset = TeamMemberFormSet
    writers = ROLES_THAT_GRANT
    fields = ("user", "is_lead")
    verbose_name = "member"
    verbose_name_plural = "members"

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if db_field.name == "user":
            # Users belong to no tenant; those of this one do through their memberships.
            field.queryset = User.objects.filter(memberships__tenant=tenant_of(request)).order_by(
                "email"
            )
            field.label_from_instance = lambda user: user.email
            for option in ("can_add_related", "can_change_related", "can_view_related"):
                setattr(field.widget, option, False)
        return field

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and db_field.name in TEAM_MEMBER_LABELS:
            field.label = TEAM_MEMBER_LABELS[db_field.name]
        return field


@register(Team, site=site)
class TeamAdmin(TenantModelAdmin):
    """Teams, whose names events carry."""

    writers = ROLES_THAT_GRANT
    list_display = ("name", "people", "created_at")
    search_fields = ("name",)
    ordering = ("name",)
    fields = ("name",)
    inlines = (TeamMemberInline,)

    @display(description="Members")
    def people(self, obj: Team) -> str:
        names = [
            f"{member.user.email} (lead)" if member.is_lead else member.user.email
            for member in obj.members.all()
        ]
        return ", ".join(names) or "no one yet"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Team]:
        rows: QuerySet[Team] = super().get_queryset(request)
        return rows.prefetch_related("members__user")

    def get_form(
        self, request: HttpRequest, obj: Team | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if "name" in form.base_fields:
            form.base_fields["name"].help_text = (
                "Events carry this name in their field “team”."
                if obj is None
                else f"Calls until now, and budgets, rules and API keys that name “{obj.name}”, "
                "keep that name: update them and whatever sends events."
            )
            form.clean_name = _unused_team_name(tenant_of(request))
        return form

    def write(self, request: HttpRequest, filled: FilledForm) -> Team:
        actor, name = actor_of(request), filled.data["name"]
        team = (
            rename_team(team=filled.row, name=name, actor=actor)
            if filled.is_change
            else create_team(tenant=tenant_of(request), name=name, actor=actor)
        )
        leads = _leads_by_user(filled.formsets)
        if filled.is_change or leads:
            change_team_members(team=team, leads_by_user=leads, actor=actor)
        return team


def _unused_team_name(tenant: Tenant) -> Callable[..., str]:
    def clean_name(form: Any) -> str:
        name = normal_value(form.cleaned_data["name"])
        others = Team.objects.filter(tenant=tenant, name=name).exclude(id=form.instance.id)
        if others.exists():
            raise ValidationError("There is already a team with this name.")
        return name

    return clean_name


def _leads_by_user(formsets: Sequence[Any]) -> dict[int, bool]:
    return {
        form.cleaned_data["user"].id: form.cleaned_data["is_lead"]
        for formset in formsets
        for form in formset.forms
        if form.cleaned_data.get("user") and not form.cleaned_data.get("DELETE")
    }
