"""People join a tenant by invitation: a link that they accept with a password of their own.

A tenant never sets or sees a password, and learns of an address only what the person does with the
invitation: the inviter gets the same answer whether or not the address has an account. Without
a mail server the inviter holds the link, and could use it as that person would; see
`accept_with_new_account`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from django.db import IntegrityError, transaction
from django.utils import timezone

from tenants.attempts import Limit, TooSoon, Tried, claim, format_wait
from tenants.audit import audited_change, create_audited
from tenants.limits import require_room
from tenants.links import hand_over, token_hash
from tenants.members import MembershipRefused, change_teams_of, lock_members, require_may_give
from tenants.models import Invitation, Membership, Tenant, User, normalize_email
from tenants.people import add_member
from tenants.roles import Role
from tenants.scope import platform_scope, tenant_scope

LIFETIME: Final = timedelta(days=7)
# So that no one's mailbox, and no operator's mail server, is flooded by a tenant.
INVITED_BY_TENANT: Final = Limit("invitations of tenant", free=50, longest_seconds=3600)
INVITED_ADDRESS: Final = Limit("invitations of tenant to address", free=5, longest_seconds=3600)


class InvitationState(StrEnum):
    """What has become of an invitation."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REVOKED = "revoked"
    EXPIRED = "expired"


class InvitationEnded(Exception):
    """The invitation can no longer be accepted, or never existed (`state` is None)."""

    def __init__(self, state: InvitationState | None) -> None:
        super().__init__(state or "unknown")
        self.state = state


class WrongPerson(Exception):
    """The invitation is for another address."""


class HasAccount(Exception):
    """The address has an account, so its password is needed, not a new one."""


class NewInvitation(NamedTuple):
    """An invitation, and the token of its link where no mail brings it: shown this once."""

    invitation: Invitation
    token: str | None


def state_of(invitation: Invitation, *, now: datetime | None = None) -> InvitationState:
    if invitation.accepted_at is not None:
        return InvitationState.ACCEPTED
    if invitation.revoked_at is not None:
        return InvitationState.REVOKED
    is_over = invitation.expires_at <= (now or timezone.now())
    return InvitationState.EXPIRED if is_over else InvitationState.PENDING


@transaction.atomic
def invite(
    *,
    tenant: Tenant,
    email: str,
    role: Role,
    actor: str,
    actor_role: Role,
    team_ids: Sequence[int] = (),
) -> NewInvitation:
    """Invite an address, into these teams too. No one becomes a member before the invitation is
    accepted.

    Raises MembershipRefused for a member, for an address that is invited already, and where the
    actor may not give this role; LimitReached where the tenant has no room for another member.
    Members and open invitations change under the same lock.
    """
    lock_members(tenant.id)
    require_may_give(actor_role, role)
    email = normalize_email(email)
    if Membership.objects.filter(tenant=tenant, user__email=email).exists():
        raise MembershipRefused(f"{email} is a member already.")
    earlier = Invitation.objects.filter(
        tenant=tenant, email=email, accepted_at=None, revoked_at=None
    ).first()
    if earlier is not None and state_of(earlier) is InvitationState.PENDING:
        raise MembershipRefused(f"{email} is invited already. Send that invitation again instead.")
    if earlier is not None:
        with audited_change(earlier, actor=actor) as change:
            _revoke(change.row)
    require_room(
        tenant.id,
        "members",
        Membership.objects.filter(tenant_id=tenant.id),
        Invitation.objects.filter(
            tenant_id=tenant.id,
            accepted_at=None,
            revoked_at=None,
            expires_at__gt=timezone.now(),
        ),
    )
    invitation = Invitation(
        tenant=tenant,
        email=email,
        role=role.value,
        team_ids=sorted(set(team_ids)),
        invited_by=actor[:300],
        expires_at=timezone.now() + LIFETIME,
    )
    token = _hand_over(invitation)
    return NewInvitation(create_audited(invitation, actor=actor), token)


@transaction.atomic
def invite_again(*, invitation: Invitation, actor: str, actor_role: Role) -> NewInvitation:
    """Send an invitation again, valid from now; its earlier link stops working.

    Raises MembershipRefused for one that was accepted or revoked.
    """
    lock_members(invitation.tenant_id)
    with audited_change(invitation, actor=actor) as change:
        _require_open(change.row, actor_role)
        change.row.expires_at = timezone.now() + LIFETIME
        token = _hand_over(change.row)
    return NewInvitation(change.row, token)


@transaction.atomic
def revoke_invitation(*, invitation: Invitation, actor: str, actor_role: Role) -> None:
    """Take an invitation back: its link stops working. Raises MembershipRefused once accepted."""
    lock_members(invitation.tenant_id)
    with audited_change(invitation, actor=actor) as change:
        _require_open(change.row, actor_role)
        _revoke(change.row)


def find_invitation(token: str) -> Invitation:
    """The invitation behind a link, with its tenant. Raises InvitationEnded."""
    with platform_scope("look-up of an invitation"):
        rows = Invitation.objects.filter(token_hash=token_hash(token))
        invitation = rows.select_related("tenant").first()
    if invitation is None:
        raise InvitationEnded(None)
    if (state := state_of(invitation)) is not InvitationState.PENDING:
        raise InvitationEnded(state)
    return invitation


def accept_invitation(*, token: str, user: User) -> Membership:
    """Make the person who is signed in a member.

    Invariant: an invitation makes one membership at most, however often and by whomever its link
    is used. Raises InvitationEnded or WrongPerson.
    """
    with platform_scope("acceptance of an invitation"):
        return _accept(_lock_pending(token), user)


def accept_with_new_account(*, token: str, stored_password: str) -> Membership:
    """Make an account with this hashed password for the invited address, and it a member.

    Raises InvitationEnded, and HasAccount for an address that has an account.

    Where no mail brings the link, its inviter can use it and learn by this whether the address has
    an account. The two cannot end alike: one makes an account and uses the invitation up, and
    no one may join another's account with a password of their own. It is not asked for in secret:
    the link is one of few (INVITED_BY_TENANT), and the audit log has it. With MAIL_URL the link
    reaches the address alone.
    """
    with platform_scope("acceptance of an invitation"):
        invitation = _lock_pending(token)
        try:
            with transaction.atomic():
                user = User.objects.create(
                    email=invitation.email,
                    password=stored_password,
                    is_address_proven=invitation.mailed_at is not None,
                )
        except IntegrityError as error:
            raise HasAccount from error
        return _accept(invitation, user)


def _lock_pending(token: str) -> Invitation:
    # The second of two clicks waits here, and then sees that the first was through.
    rows = Invitation.objects.filter(token_hash=token_hash(token))
    invitation = rows.first()
    if invitation is None:
        raise InvitationEnded(None)
    lock_members(invitation.tenant_id)
    invitation.refresh_from_db(from_queryset=Invitation.objects.select_for_update())
    is_current = invitation.token_hash is not None and token_hash(token) == bytes(
        invitation.token_hash
    )
    state = state_of(invitation) if is_current else None
    if state is not InvitationState.PENDING:
        raise InvitationEnded(state)
    return invitation


def _accept(invitation: Invitation, user: User) -> Membership:
    if user.email != invitation.email:
        raise WrongPerson
    with tenant_scope(invitation.tenant_id):
        with audited_change(invitation, actor=user.email) as change:
            change.row.accepted_at = timezone.now()
        existing = Membership.objects.filter(tenant_id=invitation.tenant_id, user=user).first()
        if existing is not None:
            return existing
        membership = add_member(
            tenant=Tenant.objects.get(id=invitation.tenant_id),
            user=user,
            role=Role(invitation.role),
            actor=user.email,
        )
        change_teams_of(
            membership=membership,
            leads_by_team=dict.fromkeys(invitation.team_ids, False),
            actor=user.email,
        )
        return membership


def _hand_over(invitation: Invitation) -> str | None:
    try:
        claim(
            Tried(INVITED_BY_TENANT, str(invitation.tenant_id)),
            Tried(INVITED_ADDRESS, f"{invitation.tenant_id} {invitation.email}"),
        )
    except TooSoon as error:
        raise MembershipRefused(
            f"Too many invitations were sent. Wait {format_wait(error.seconds)}, then try again."
        ) from error
    return hand_over(invitation)


def _require_open(invitation: Invitation, actor_role: Role) -> None:
    require_may_give(actor_role, Role(invitation.role))
    state = state_of(invitation)
    if state in {InvitationState.ACCEPTED, InvitationState.REVOKED}:
        raise MembershipRefused(f"The invitation of {invitation.email} was {state.value} already.")


def _revoke(invitation: Invitation) -> None:
    invitation.revoked_at = timezone.now()
    invitation.mail_due_at = None
