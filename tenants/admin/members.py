"""Admin pages of members."""

from typing import Any

from django.contrib.admin import display, register
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from tenants.admin.granting import ROLE_LABELS, granting_role, role_choices
from tenants.admin_forms import FilledForm
from tenants.admin_site import Context, TenantModelAdmin, actor_of, site
from tenants.members import change_role, remove_member, working_keys_of
from tenants.models import Membership
from tenants.roles import ROLES_THAT_GRANT, Role


@register(Membership, site=site)
class MemberAdmin(TenantModelAdmin):
    """People of the tenant."""

    writers = ROLES_THAT_GRANT
    list_display = ("person", "role", "created_at")
    search_fields = ("user__email",)
    fields = ("person", "role")
    readonly_fields = ("person",)
    delete_confirmation_template = "admin/tenants/remove_member.html"
    end_verb = "Remove member"
    end_consequence = (
        "This person's next request is refused. The account and its other tenants are not "
        "affected, and the person's changes stay in the audit log. You can invite the person again."
    )
    end_done = "is no longer a member."

    @display(description="Person", ordering="user__email")
    def person(self, obj: Membership) -> str:
        return obj.user.email

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        rows: QuerySet[Membership] = super().get_queryset(request)
        return rows.select_related("user").order_by("user__email")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Context = None
    ) -> HttpResponse:
        """People join by invitation."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        return HttpResponseRedirect(reverse("admin:tenants_invitation_add"))

    def get_form(
        self,
        request: HttpRequest,
        obj: Membership | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if "role" in form.base_fields:
            choices = role_choices(request)
            if obj is not None and obj.role not in dict(choices):
                choices = [(obj.role, ROLE_LABELS[Role(obj.role)])]
            form.base_fields["role"].choices = choices
        return form

    def has_delete_permission(self, request: HttpRequest, obj: Membership | None = None) -> bool:
        return self.may_write(request)

    def write(self, request: HttpRequest, filled: FilledForm) -> Membership:
        return change_role(
            membership=filled.row,
            role=Role(filled.data["role"]),
            actor=actor_of(request),
            actor_role=granting_role(request),
        )

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: Context = None
    ) -> Any:
        member = self.get_object(request, object_id)
        keys = working_keys_of(member) if member is not None else ()
        return super().delete_view(request, object_id, {**(extra_context or {}), "keys": keys})

    def end(self, request: HttpRequest, obj: Membership) -> None:
        chosen = request.POST.getlist("revoked_keys")
        remove_member(
            membership=obj,
            actor=actor_of(request),
            actor_role=granting_role(request),
            revoked_keys=[key.id for key in working_keys_of(obj) if str(key.id) in chosen],
        )
