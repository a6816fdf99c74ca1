"""Admin pages of invitations: who was invited, sent again, taken back."""

from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.admin import display, register
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.decorators import action
from unfold.decorators import display as labelled
from unfold.enums import ActionVariant

from tenants.admin.granting import granting_role, role_choices
from tenants.admin.secrets import shown_once
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_questions import Question, ask
from tenants.admin_site import TenantModelAdmin, actor_of, shown_moment, site, tenant_of
from tenants.invitations import InvitationState, invite, invite_again, revoke_invitation, state_of
from tenants.links import can_mail, shown_link
from tenants.members import MembershipRefused
from tenants.middleware import TenantRequest
from tenants.models import Invitation
from tenants.roles import ROLES_THAT_GRANT, Role

LINK_ADVICE = (
    "Send it only to this person, over a secure channel: the first person to open it can "
    "accept. It works once, within seven days. No one is a member before accepting."
)
OPEN = frozenset({InvitationState.PENDING, InvitationState.EXPIRED})


class InvitationForm(RowForm):
    """A person by address, and a role."""

    email = forms.EmailField(label="Email address", max_length=254)
    role = forms.ChoiceField(initial=Role.VIEWER.value)

    class Meta:
        model = Invitation
        fields = ("email", "role")

    def prepare(self) -> None:
        if "email" in self.fields:
            self.fields["email"].help_text = (
                "The person gets an email with a link and chooses their own password."
                if can_mail()
                else "You get a link to pass on, shown once. The person chooses their own password."
            )


@register(Invitation, site=site)
class InvitationAdmin(TenantModelAdmin):
    """Who may join, and has not been removed from the list since."""

    form = InvitationForm
    writers = ROLES_THAT_GRANT
    list_display = ("email", "role", "state", "sent", "expires_at", "invited_by")
    search_fields = ("email",)
    ordering = ("-id",)
    actions_detail = ("send_again",)
    end_verb = "Revoke invitation"
    end_consequence = "Its link stops working immediately. You can invite the person again."
    end_done = "the invitation was revoked."

    @labelled(
        description="State",
        label={"pending": "info", "accepted": "success", "revoked": "danger", "expired": "warning"},
    )
    def state(self, obj: Invitation) -> str:
        return state_of(obj).value

    @display(description="Sent")
    def sent(self, obj: Invitation) -> str:
        if obj.mailed_at is not None:
            return shown_moment(obj.mailed_at)
        if obj.mail_error:
            return f"not delivered: {obj.mail_error}"
        return "waiting to be sent" if obj.mail_due_at is not None else "by link"

    def get_fields(self, request: HttpRequest, obj: Invitation | None = None) -> tuple[str, ...]:
        more = ("state", "sent", "expires_at", "invited_by", "created_at")
        return ("email", "role") if obj is None else ("email", "role", *more)

    def get_form(
        self,
        request: HttpRequest,
        obj: Invitation | None = None,
        change: bool = False,
        **kwargs: Any,
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if "role" in form.base_fields:
            form.base_fields["role"].choices = role_choices(request)
        return form

    def has_change_permission(self, request: HttpRequest, obj: Invitation | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Invitation | None = None) -> bool:
        return self.may_write(request) and (obj is None or state_of(obj) in OPEN)

    def has_send_permission(self, request: HttpRequest, object_id: str = "0") -> bool:
        invitation = self._find(request, object_id)
        return self.may_write(request) and invitation is not None and state_of(invitation) in OPEN

    def write(self, request: HttpRequest, filled: FilledForm) -> Invitation:
        new = invite(
            tenant=tenant_of(request),
            email=filled.data["email"],
            role=Role(filled.data["role"]),
            actor=actor_of(request),
            actor_role=granting_role(request),
        )
        cast(TenantRequest, request).shown_once = new.token
        return new.invitation

    def response_add(
        self, request: HttpRequest, obj: Invitation, post_url_continue: str | None = None
    ) -> HttpResponse:
        token = cast(TenantRequest, request).shown_once
        return self._answer(request, obj, token)

    @action(
        description="Send again",
        permissions=["send"],
        icon="forward_to_inbox",
        variant=ActionVariant.PRIMARY,
    )
    def send_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then send it again."""
        invitation = self._find(request, object_id)
        if invitation is None:
            raise Http404
        back = reverse("admin:tenants_invitation_change", args=[invitation.id])
        if request.method != "POST":
            question = Question(
                f"Send the invitation of {invitation.email} again?",
                "Send again" if can_mail() else "Create a new link",
                "The previous link stops working. The new one works for seven days.",
                back=back,
            )
            return ask(self, request, question=question)
        try:
            new = invite_again(
                invitation=invitation, actor=actor_of(request), actor_role=granting_role(request)
            )
        except MembershipRefused as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(back)
        return self._answer(request, new.invitation, new.token)

    def end(self, request: HttpRequest, obj: Invitation) -> None:
        revoke_invitation(
            invitation=obj, actor=actor_of(request), actor_role=granting_role(request)
        )

    def _answer(
        self, request: HttpRequest, invitation: Invitation, token: str | None
    ) -> HttpResponse:
        if token is None:
            messages.success(
                request,
                f"An email to {invitation.email} is on its way. They become a member once they "
                "accept.",
            )
            return HttpResponseRedirect(reverse("admin:tenants_invitation_changelist"))
        return shown_once(
            self,
            request,
            title=f"The invitation of {invitation.email}",
            secret=shown_link(request, reverse("dashboard:invitation", args=[token])),
            words=LINK_ADVICE,
        )

    def _find(self, request: HttpRequest, object_id: str) -> Invitation | None:
        rows: QuerySet[Invitation] = self.get_queryset(request)
        return rows.filter(id=object_id).first()
