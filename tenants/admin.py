"""Admin pages of who may do what: members, teams, keys, settings, and the log of changes."""

from collections.abc import Sequence
from typing import Any, ClassVar
from zoneinfo import available_timezones

from django import forms
from django.contrib import messages
from django.contrib.admin import display, register
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from unfold.decorators import display as labelled
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminEmailInputWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from tenants.admin_site import (
    ReadOnlyAdmin,
    RowForm,
    RowFormSet,
    TenantInline,
    TenantModelAdmin,
    actor_of,
    role_of,
    site,
    tenant_of,
)
from tenants.keys import create_api_key, revoke_api_key
from tenants.members import (
    MembershipRefused,
    add_person,
    change_role,
    change_team_members,
    remove_member,
)
from tenants.models import ApiKey, AuditEntry, Membership, Team, TeamMember, Tenant, User
from tenants.people import create_team
from tenants.roles import ALL_SCOPES, ROLES_THAT_GRANT, Role
from tenants.settings import change_settings

SCOPE_WORDS = {
    "ingest": "ingest: report usage",
    "enforce": "enforce: ask before spending",
    "read": "read: usage, budgets, events",
    "manage": "manage: budgets, prices, keys, teams",
}
ROLE_WORDS = {
    Role.OWNER: "owner: everything, owners included",
    Role.ADMIN: "admin: everything but owners",
    Role.FINANCE: "finance: budgets and prices",
    Role.ENGINEER: "engineer: looks, reports, enforces",
    Role.VIEWER: "viewer: looks",
}


def role_choices(request: HttpRequest) -> list[tuple[str, str]]:
    """The roles that this person may give."""
    is_owner = role_of(request) is Role.OWNER
    return [(one.value, ROLE_WORDS[one]) for one in Role if one is not Role.OWNER or is_owner]


class MemberForm(RowForm):
    """A person by address, and a role."""

    email = forms.EmailField(
        label="E-mail address",
        widget=UnfoldAdminEmailInputWidget(),
        help_text="Somebody new gets an account, and you get the password to hand on, once.",
    )
    role = forms.ChoiceField(widget=UnfoldAdminSelectWidget())

    class Meta:
        model = Membership
        fields = ("role",)


@register(Membership, site=site)
class MemberAdmin(TenantModelAdmin):
    """People of the tenant."""

    form = MemberForm
    writers = ROLES_THAT_GRANT
    list_display = ("person", "role", "created_at")
    search_fields = ("user__email",)
    end_verb = "Remove member"
    end_consequence = (
        "The next request of this person is refused. The account and its other tenants stay, and "
        "so does what the person changed in the audit log. You can add the person again."
    )
    end_done = "is no member any more."

    @display(description="Person", ordering="user__email")
    def person(self, obj: Membership) -> str:
        return obj.user.email

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        rows: QuerySet[Membership] = super().get_queryset(request)
        return rows.select_related("user").order_by("user__email")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return ("email", "role") if obj is None else ("person", "role")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return () if obj is None else ("person",)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if "role" in form.base_fields:
            choices = role_choices(request)
            if obj is not None and obj.role not in dict(choices):
                choices = [(obj.role, ROLE_WORDS[Role(obj.role)])]
            form.base_fields["role"].choices = choices
        if obj is not None:
            form.base_fields.pop("email", None)
        return form

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request)

    def write(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> Membership:
        role = Role(form.cleaned_data["role"])
        actor_role = role_of(request)
        assert actor_role is not None, "the admin is for members"
        try:
            if change:
                return change_role(
                    membership=form.instance,
                    role=role,
                    actor=actor_of(request),
                    actor_role=actor_role,
                )
            new = add_person(
                tenant=tenant_of(request),
                email=form.cleaned_data["email"],
                role=role,
                actor=actor_of(request),
                actor_role=actor_role,
            )
        except MembershipRefused as error:
            raise ValidationError(str(error)) from error
        form.instance.user = new.membership.user
        request.shown_once = new.password  # type: ignore[attr-defined]
        return new.membership

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        password: str | None = getattr(request, "shown_once", None)
        if password is None:
            messages.success(request, f"{obj.user.email} is a member now.")
            return HttpResponseRedirect(reverse("admin:tenants_membership_changelist"))
        return shown_once(
            self,
            request,
            title=f"The password of {obj.user.email}",
            secret=password,
            words="Hand it on by a safe way. The person can change it after the first log-in.",
        )

    def end(self, request: HttpRequest, obj: Membership) -> None:
        actor_role = role_of(request)
        assert actor_role is not None, "the admin is for members"
        try:
            remove_member(membership=obj, actor=actor_of(request), actor_role=actor_role)
        except MembershipRefused as error:
            raise ValidationError(str(error)) from error


def shown_once(
    page: TenantModelAdmin, request: HttpRequest, *, title: str, secret: str, words: str
) -> HttpResponse:
    """The one page that shows a secret. It is stored nowhere, so a reload cannot show it again."""
    response = TemplateResponse(
        request,
        "admin/shown_once.html",
        {
            **page.admin_site.each_context(request),
            "opts": page.opts,
            "title": title,
            "secret": secret,
            "words": words,
        },
    )
    response["Cache-Control"] = "no-store"
    return response


class TeamMemberFormSet(RowFormSet):
    """The members of a team: each person once."""

    def clean(self) -> None:
        people = [
            form.cleaned_data["user"]
            for form in self.forms
            if form.cleaned_data.get("user") and not form.cleaned_data.get("DELETE")
        ]
        if len(people) != len(set(people)):
            raise ValidationError("A person is in the team twice.")


TEAM_MEMBER_WORDS = {"user": "Person", "is_lead": "Leads the team, hears of its budgets"}


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
        if field is not None and db_field.name in TEAM_MEMBER_WORDS:
            field.label = TEAM_MEMBER_WORDS[db_field.name]
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
            f"{one.user.email} (lead)" if one.is_lead else one.user.email
            for one in obj.members.all()
        ]
        return ", ".join(names) or "nobody yet"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Team]:
        rows: QuerySet[Team] = super().get_queryset(request)
        return rows.prefetch_related("members__user")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        # Events carry the name: another name would be another team.
        return () if obj is None else ("name",)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if "name" in form.base_fields:
            form.base_fields[
                "name"
            ].help_text = (
                "Events carry this name in their field “team”, so it cannot be changed later."
            )
            form.clean_name = _unused_team_name(tenant_of(request))
        return form

    def write(self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool) -> Team:
        team: Team = (
            form.instance
            if change
            else create_team(
                tenant=tenant_of(request), name=form.cleaned_data["name"], actor=actor_of(request)
            )
        )
        leads = _leads_by_user(formsets)
        if change or leads:
            change_team_members(team=team, leads_by_user=leads, actor=actor_of(request))
        return team


def _unused_team_name(tenant: Tenant) -> Any:
    def clean_name(form: Any) -> str:
        name: str = form.cleaned_data["name"]
        if Team.objects.filter(tenant=tenant, name=name).exists():
            raise ValidationError("There is a team of this name already.")
        return name

    return clean_name


def _leads_by_user(formsets: Sequence[Any]) -> dict[int, bool]:
    return {
        form.cleaned_data["user"].id: form.cleaned_data["is_lead"]
        for formset in formsets
        for form in formset.forms
        if form.cleaned_data.get("user") and not form.cleaned_data.get("DELETE")
    }


class KeyForm(RowForm):
    """What a new key is called and may do."""

    name = forms.CharField(
        max_length=200,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Who or what will use it, as in “research service, production”.",
    )
    scopes = forms.MultipleChoiceField(
        choices=[(scope, SCOPE_WORDS[scope]) for scope in ALL_SCOPES],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        initial=["ingest"],
    )

    class Meta:
        model = ApiKey
        fields = ("name", "scopes", "expires_at")
        help_texts: ClassVar[dict[str, str]] = {"expires_at": "UTC. Empty: it never expires."}

    def clean_expires_at(self) -> Any:
        expires_at = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise ValidationError("This moment is over. Choose a later one, or leave it empty.")
        return expires_at


@register(ApiKey, site=site)
class KeyAdmin(TenantModelAdmin):
    """Keys by which programs act for the tenant."""

    form = KeyForm
    writers = ROLES_THAT_GRANT
    list_display = ("name", "begins_with", "may", "state", "last_used_at", "created_by")
    search_fields = ("name", "prefix")
    ordering = ("-id",)
    fields = ("name", "scopes", "expires_at")
    end_verb = "Revoke key"
    end_consequence = (
        "Everything that uses this key is refused within a second. This cannot be undone: make a "
        "new key first where one is needed."
    )
    end_done = "revoked."

    @display(description="Begins with")
    def begins_with(self, obj: ApiKey) -> str:
        return f"sg_{obj.prefix}_"

    @display(description="May")
    def may(self, obj: ApiKey) -> str:
        return ", ".join(obj.scopes)

    @labelled(  # type: ignore[untyped-decorator]
        description="State",
        label={"in use": "success", "revoked": "danger", "expired": "warning"},
    )
    def state(self, obj: ApiKey) -> str:
        if obj.revoked_at is not None:
            return "revoked"
        is_expired = obj.expires_at is not None and obj.expires_at <= timezone.now()
        return "expired" if is_expired else "in use"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        rows: QuerySet[ApiKey] = super().get_queryset(request)
        return rows.select_related("created_by")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        if obj is None:
            return ("name", "scopes", "expires_at")
        return (
            "name",
            "begins_with",
            "may",
            "state",
            "expires_at",
            "revoked_at",
            "last_used_at",
            "created_by",
            "created_at",
        )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request) and (obj is None or obj.revoked_at is None)

    def write(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> ApiKey:
        assert isinstance(request.user, User)
        key, text = create_api_key(
            tenant=tenant_of(request),
            name=form.cleaned_data["name"],
            scopes=form.cleaned_data["scopes"],
            expires_at=form.cleaned_data["expires_at"],
            created_by=request.user,
            actor=actor_of(request),
        )
        request.shown_once = text  # type: ignore[attr-defined]
        return key

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        return shown_once(
            self,
            request,
            title=f"The key “{obj.name}”",
            secret=request.shown_once,  # type: ignore[attr-defined]
            words="Only its hash is kept. Copy it now to where it is used; whoever has it may act "
            "for this tenant.",
        )

    def end(self, request: HttpRequest, obj: ApiKey) -> None:
        revoke_api_key(key=obj, actor=actor_of(request))


class SettingsForm(RowForm):
    """What a tenant's usage is judged by where budgets and prices do not say."""

    timezone = forms.ChoiceField(
        widget=UnfoldAdminSelectWidget(),
        help_text="Where the days and months of the pages begin.",
    )
    assumed_input_usd = forms.DecimalField(
        label="Assumed input rate, USD",
        required=False,
        min_value=0,
        max_value=1_000_000,
        decimal_places=9,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
        help_text="Per million tokens, for models without a price under the policy “assume”.",
    )
    assumed_output_usd = forms.DecimalField(
        label="Assumed output rate, USD",
        required=False,
        min_value=0,
        max_value=1_000_000,
        decimal_places=9,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}),
    )

    class Meta:
        model = Tenant
        fields = ("timezone", "unpriced_policy", "trusts_given_costs")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "timezone" not in self.fields:
            return
        names = sorted(available_timezones() | {self.instance.timezone})
        self.fields["timezone"].choices = [(name, name) for name in names]  # type: ignore[attr-defined]
        for side in ("input", "output"):
            nanos = getattr(self.instance, f"assumed_{side}_nanos_per_mtok")
            if nanos is not None:
                whole, rest = divmod(nanos, 10**9)
                self.initial[f"assumed_{side}_usd"] = f"{whole}.{rest:09d}".rstrip("0").rstrip(".")

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        sides = ("assumed_input_usd", "assumed_output_usd")
        is_complete = all(data.get(side) is not None for side in sides)
        if data.get("unpriced_policy") == "assume" and not is_complete:
            self.add_error("unpriced_policy", "“Assume” needs both assumed rates.")
        return data


@register(Tenant, site=site)
class SettingsAdmin(TenantModelAdmin):
    """The present tenant's settings."""

    form = SettingsForm
    writers = ROLES_THAT_GRANT
    is_global = True
    fieldsets = (
        (None, {"fields": ("name", "timezone")}),
        (
            "Models without a price",
            {"fields": ("unpriced_policy", "assumed_input_usd", "assumed_output_usd")},
        ),
        ("Costs that others report", {"fields": ("trusts_given_costs",)}),
    )
    readonly_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tenant]:
        rows: QuerySet[Tenant] = super().get_queryset(request)
        return rows.filter(id=tenant_of(request).id)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if self.may_write(request):
            return self.fieldsets
        return ((None, {"fields": ("name", "timezone", "unpriced_policy", "trusts_given_costs")}),)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, str] | None = None
    ) -> HttpResponse:
        """There is one row: its form."""
        return HttpResponseRedirect(
            reverse("admin:tenants_tenant_change", args=[tenant_of(request).id])
        )

    def write(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> Tenant:
        data = form.cleaned_data
        changes = {name: data[name] for name in SettingsForm.Meta.fields}
        for side in ("input", "output"):
            usd = data[f"assumed_{side}_usd"]
            changes[f"assumed_{side}_nanos_per_mtok"] = None if usd is None else int(usd * 10**9)
        return change_settings(tenant=tenant_of(request), actor=actor_of(request), changes=changes)

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        messages.success(request, "The settings are changed.")
        return HttpResponseRedirect(request.path)


@register(AuditEntry, site=site)
class AuditAdmin(ReadOnlyAdmin):
    """Every change of configuration, newest first."""

    list_display = ("when", "actor", "action", "object_type", "object_id", "changed")
    list_filter = ("action", "object_type")
    search_fields = ("actor", "object_type", "object_id")
    ordering = ("-id",)
    fields = ("when", "actor", "action", "object_type", "object_id", "all_changes")

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        return lookup in {"object_type", "object_id", "action"}

    @display(description="When", ordering="at")
    def when(self, obj: AuditEntry) -> str:
        return f"{obj.at:%Y-%m-%d %H:%M} UTC"

    @display(description="Changed")
    def changed(self, obj: AuditEntry) -> str:
        names = ", ".join(sorted(obj.changes)) if isinstance(obj.changes, dict) else ""
        return names if len(names) <= 80 else names[:79] + "…"

    @display(description="Changes")
    def all_changes(self, obj: AuditEntry) -> str:
        lines = [
            (name, str(before), str(after)) for name, (before, after) in sorted(obj.changes.items())
        ]
        return format_html(
            "<table>{}</table>",
            format_html_join(
                "", "<tr><td><b>{}</b></td><td>{}</td><td>→</td><td>{}</td></tr>", lines
            ),
        )
