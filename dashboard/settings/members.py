"""Members: who has access to what, who was invited, and what each role may do."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone

from dashboard.access import PageRequest, may_grant
from dashboard.buttons import button_of
from dashboard.forms import form_page, form_token, save_once, sent_data, show_form, shown_once
from dashboard.frame import filter_bar_of, frame
from tenants.admin_site import actor_of
from tenants.invitations import (
    InvitationState,
    NewInvitation,
    invite,
    invite_again,
    revoke_invitation,
    state_of,
)
from tenants.links import can_mail, shown_link
from tenants.members import change_role, change_teams_of, remove_member, working_keys_of
from tenants.models import ApiKey, Invitation, Membership, Team, TeamMember
from tenants.roles import ROLES_THAT_GRANT, SCOPES_BY_ROLE, Role, Scope

MEMBERS_MAX: Final = 500
INVITATIONS_MAX: Final = 500
# With this many members or more, the page has a field to search them.
SEARCHED_FROM: Final = 21
NEEDLE_CHARACTERS_MAX: Final = 200
TEAMS_MAX: Final = 500
LINK_ADVICE: Final = (
    "Send it only to this person, over a secure channel: the first person to open it can accept. "
    "It works once, within seven days. No one is a member before accepting."
)
# What each role can do, as the table of roles lists it; an owner can do everything.
SHOWN_ROLES: Final = (Role.VIEWER, Role.ENGINEER, Role.FINANCE, Role.ADMIN)
DUTIES: Final = (
    ("See spend", frozenset(role for role in Role if Scope.READ in SCOPES_BY_ROLE[role])),
    (
        "Halt agents",
        frozenset(role for role in Role if SCOPES_BY_ROLE[role] & {Scope.ENFORCE, Scope.MANAGE}),
    ),
    ("Lift halts", frozenset(role for role in Role if Scope.MANAGE in SCOPES_BY_ROLE[role])),
    ("Budgets, prices", frozenset(role for role in Role if Scope.MANAGE in SCOPES_BY_ROLE[role])),
    ("Members, keys", ROLES_THAT_GRANT),
)


@dataclass(frozen=True)
class MemberLine:
    """A member as the page shows it."""

    row: Membership
    teams: list[TeamMember]
    is_you: bool


@dataclass(frozen=True)
class InvitationLine:
    """An invitation that no one has accepted."""

    row: Invitation
    teams: list[str]
    now: datetime

    @property
    def key(self) -> str:
        """Tells its parts of the page from those of others."""
        return str(self.row.id)

    @property
    def has_expired(self) -> bool:
        return state_of(self.row, now=self.now) is InvitationState.EXPIRED

    @property
    def delivery(self) -> str:
        """What became of its email; empty where its link was shown."""
        if self.row.mailed_at is not None:
            return "emailed"
        if self.row.mail_error:
            return f"email not delivered: {self.row.mail_error}"
        return "email on its way" if self.row.mail_due_at is not None else "by link"


def role_field(request: PageRequest) -> forms.ChoiceField:
    """The roles that this person may give."""
    roles = [role for role in Role if role is not Role.OWNER or request.role is Role.OWNER]
    return forms.ChoiceField(
        label="Role", choices=[(role.value, role.value.capitalize()) for role in roles]
    )


def team_field(tenant_id: int, **options: Any) -> forms.MultipleChoiceField:
    teams = Team.objects.filter(tenant_id=tenant_id).order_by("name")[:TEAMS_MAX]
    return forms.MultipleChoiceField(
        required=False,
        choices=[(str(team.id), team.name) for team in teams],
        widget=forms.CheckboxSelectMultiple(),
        **options,
    )


class InvitationForm(forms.Form):
    """A person by address, a role, and teams."""

    email = forms.EmailField(
        label="Email",
        max_length=254,
        error_messages={"invalid": "Enter a complete address, like jun@example.com."},
    )

    def __init__(self, request: PageRequest) -> None:
        super().__init__(sent_data(request), initial={"role": Role.ENGINEER.value})
        self.fields["role"] = role_field(request)
        teams = team_field(request.tenant.id, label="Teams")
        if teams.choices:
            self.fields["teams"] = teams


class MemberForm(forms.Form):
    """A member's role, and the teams that they belong to or lead."""

    def __init__(self, request: PageRequest, member: Membership, leads: dict[int, bool]) -> None:
        initial = {
            "role": member.role,
            "teams": [str(team) for team in leads],
            "leads": [str(team) for team, is_lead in leads.items() if is_lead],
        }
        super().__init__(sent_data(request), initial=initial)
        self.fields["role"] = role_field(request)
        teams = team_field(request.tenant.id, label="Member of")
        if teams.choices:
            self.fields["teams"] = teams
            self.fields["leads"] = team_field(
                request.tenant.id,
                label="Leads",
                help_text="Leads are notified about their team's budgets.",
            )

    @property
    def leads_by_team(self) -> dict[int, bool]:
        """The teams that were chosen, and whether the person leads each."""
        led = set(self.cleaned_data.get("leads", []))
        chosen = led | set(self.cleaned_data.get("teams", []))
        return {int(team): team in led for team in chosen}


@form_page("members", may=may_grant, is_readable=True)
def page(request: PageRequest) -> HttpResponse:
    """Who has access to what?"""
    form = InvitationForm(request) if may_grant(request) else None
    if form is not None:
        new = save_once(request, form, lambda: _invite(request, form.cleaned_data))
        if new is not None:
            return _answer(request, new)
    now = timezone.now()
    number = Membership.objects.filter(tenant=request.tenant).count()
    needle = request.GET.get("q", "").replace("\0", "").strip()[:NEEDLE_CHARACTERS_MAX]
    members = _member_lines(request, needle)
    invitations = _invitation_lines(request.tenant.id, now)
    pending = sum(not line.has_expired for line in invitations)
    context = frame(request, filter_bar_of(request), page="members") | {
        "headline": headline_of(number, pending),
        "needle": needle,
        "is_searched": number >= SEARCHED_FROM or bool(needle),
        "needle_characters_max": NEEDLE_CHARACTERS_MAX,
        "members_max": MEMBERS_MAX,
        "sub": f"Workspace {request.tenant.name} · you are signed in as {request.role.value}",
        "members": members,
        "invitations": invitations,
        "form": form,
        "can_mail": can_mail(),
        "roles": SHOWN_ROLES,
        "duties": [(words, [role in those for role in SHOWN_ROLES]) for words, those in DUTIES],
        **form_token(request),
    }
    return render(request, "dashboard/settings/members.html", context)


@form_page("members", may=may_grant)
def member(request: PageRequest, member_id: int) -> HttpResponse:
    """Change a member's role and teams, or remove the person."""
    row = _find_member(request, member_id)
    memberships = TeamMember.objects.filter(tenant=request.tenant, user_id=row.user_id)
    leads = dict(memberships.values_list("team_id", "is_lead"))
    # An owner's role is for owners to change.
    is_theirs = row.role != Role.OWNER.value or request.role is Role.OWNER
    form = MemberForm(request, row, leads)
    if not is_theirs:
        del form.fields["role"]

    def save() -> Membership:
        change_teams_of(membership=row, leads_by_team=form.leads_by_team, actor=actor_of(request))
        return change_role(
            membership=row,
            role=Role(form.cleaned_data.get("role", row.role)),
            actor=actor_of(request),
            actor_role=request.role,
        )

    saved = save_once(request, form, save)
    if saved is not None:
        messages.success(request, f"{row.user.email} was changed.")
        return HttpResponseRedirect(reverse("dashboard:members"))
    return show_form(
        request,
        form,
        page="members",
        headline=row.user.email,
        template="dashboard/settings/member.html",
        sub=f"{row.role.capitalize()} of {request.tenant.name}",
        member=row,
        is_theirs=is_theirs,
        keys=working_keys_of(row),
    )


@button_of("members", may=may_grant)
def remove(request: PageRequest, member_id: int) -> str:
    """Remove a person, and revoke those of their keys that are chosen."""
    row = _find_member(request, member_id)
    chosen = request.POST.getlist("revoked_keys")
    keys: QuerySet[ApiKey] = working_keys_of(row)
    remove_member(
        membership=row,
        actor=actor_of(request),
        actor_role=request.role,
        revoked_keys=[key.id for key in keys if str(key.id) in chosen],
    )
    return f"{row.user.email} was removed. Their next request is refused."


@form_page("members", may=may_grant)
def send_again(request: PageRequest, invitation_id: int) -> HttpResponse:
    """Send an invitation again, or show its new link."""
    invitation = _find_invitation(request, invitation_id)
    form = forms.Form(request.POST if request.method == "POST" else None)
    new = save_once(
        request,
        form,
        lambda: invite_again(
            invitation=invitation, actor=actor_of(request), actor_role=request.role
        ),
    )
    if new is not None:
        return _answer(request, new)
    for error in form.non_field_errors():
        messages.error(request, str(error))
    return HttpResponseRedirect(reverse("dashboard:members"))


@button_of("members", may=may_grant)
def revoke(request: PageRequest, invitation_id: int) -> str:
    """Take an invitation back."""
    invitation = _find_invitation(request, invitation_id)
    revoke_invitation(invitation=invitation, actor=actor_of(request), actor_role=request.role)
    return f"The invitation of {invitation.email} was revoked: its link no longer works."


def headline_of(members: int, pending: int) -> str:
    """The finding: how many people have access, and how many may join."""
    words = "1 person has access" if members == 1 else f"{members:,} people have access"
    if not pending:
        return words
    return f"{words}; {pending:,} invitation{'' if pending == 1 else 's'} pending"


def _invite(request: PageRequest, data: dict[str, Any]) -> NewInvitation:
    return invite(
        tenant=request.tenant,
        email=data["email"],
        role=Role(data["role"]),
        team_ids=[int(team) for team in data.get("teams", [])],
        actor=actor_of(request),
        actor_role=request.role,
    )


def _answer(request: PageRequest, new: NewInvitation) -> HttpResponse:
    """Say that an email is on its way, or show the link once."""
    email = new.invitation.email
    if new.token is None:
        words = f"An email to {email} is on its way. They become a member once they accept."
        messages.success(request, words)
        return HttpResponseRedirect(reverse("dashboard:members"))
    context = frame(request, filter_bar_of(request), page="members")
    context["headline"] = f"The invitation of {email}"
    link = shown_link(request, reverse("dashboard:invitation", args=[new.token]))
    return shown_once(request, context, secret=link, words=LINK_ADVICE, back="members")


def _member_lines(request: PageRequest, needle: str) -> list[MemberLine]:
    """The members whose address holds the text, by address."""
    rows = Membership.objects.filter(tenant=request.tenant, user__email__icontains=needle)
    teams: dict[int, list[TeamMember]] = {}
    for team_member in TeamMember.objects.filter(tenant=request.tenant).select_related("team"):
        teams.setdefault(team_member.user_id, []).append(team_member)
    return [
        MemberLine(
            row,
            sorted(teams.get(row.user_id, []), key=lambda team_member: team_member.team.name),
            row.user_id == request.user.pk,
        )
        for row in rows.select_related("user").order_by("user__email")[:MEMBERS_MAX]
    ]


def _invitation_lines(tenant_id: int, now: datetime) -> list[InvitationLine]:
    rows = Invitation.objects.filter(tenant_id=tenant_id, accepted_at=None, revoked_at=None)
    names = dict(Team.objects.filter(tenant_id=tenant_id).values_list("id", "name"))
    return [
        InvitationLine(row, [names[team] for team in row.team_ids if team in names], now)
        for row in rows.order_by("-id")[:INVITATIONS_MAX]
    ]


def _find_member(request: PageRequest, member_id: int) -> Membership:
    rows = Membership.objects.filter(tenant=request.tenant, id=member_id)
    return get_object_or_404(rows.select_related("user"))


def _find_invitation(request: PageRequest, invitation_id: int) -> Invitation:
    return get_object_or_404(Invitation, tenant=request.tenant, id=invitation_id)
