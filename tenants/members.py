"""Members of a tenant and of its teams: added, given another role, removed."""

import secrets
from collections.abc import Mapping
from typing import NamedTuple

from django.db import transaction

from tenants.audit import facts_of, record_change
from tenants.models import Membership, Team, TeamMember, Tenant, User
from tenants.people import add_member
from tenants.roles import Role


class MembershipRefused(ValueError):
    """A change of members that would break a rule; the text says which."""


class NewMember(NamedTuple):
    """A member, and for a person who is new to the service the password, shown this once."""

    membership: Membership
    password: str | None


@transaction.atomic
def add_person(
    *, tenant: Tenant, email: str, role: Role, actor: str, actor_role: Role
) -> NewMember:
    """Let a person into a tenant; who is new to the service gets an account and a random password.

    Raises MembershipRefused for a member, and where the actor may not give this role.
    """
    _lock(tenant.id)
    _require_may_give(actor_role, role)
    user = User.objects.filter(email=email.lower()).first()
    password = None
    if user is None:
        password = secrets.token_urlsafe(12)
        user = User.objects.create_user(email, password)
    elif Membership.objects.filter(tenant=tenant, user=user).exists():
        raise MembershipRefused(f"{user.email} is a member already.")
    return NewMember(add_member(tenant=tenant, user=user, role=role, actor=actor), password)


@transaction.atomic
def change_role(*, membership: Membership, role: Role, actor: str, actor_role: Role) -> Membership:
    """Give a member another role.

    Invariant: a tenant always has an owner, and only owners make or unmake owners.
    """
    _lock(membership.tenant_id)
    stored = Membership.objects.get(tenant_id=membership.tenant_id, id=membership.id)
    before = facts_of(stored)
    if Role(stored.role) is not role:
        _require_may_give(actor_role, role)
        _require_may_give(actor_role, Role(stored.role))
        _require_another_owner(stored)
    stored.role = role.value
    stored.save(update_fields=["role"])
    record_change(
        tenant_id=stored.tenant_id,
        actor=actor,
        action="update",
        subject=stored,
        before=before,
        after=facts_of(stored),
    )
    return stored


@transaction.atomic
def remove_member(*, membership: Membership, actor: str, actor_role: Role) -> None:
    """Take a person out of a tenant and its teams; the account itself and other tenants' stay.

    Invariant: a tenant always has an owner. The person's next request is refused.
    """
    _lock(membership.tenant_id)
    stored = Membership.objects.filter(tenant_id=membership.tenant_id, id=membership.id).first()
    if stored is None:
        return
    _require_may_give(actor_role, Role(stored.role))
    _require_another_owner(stored)
    TeamMember.objects.filter(tenant_id=stored.tenant_id, user_id=stored.user_id).delete()
    record_change(
        tenant_id=stored.tenant_id,
        actor=actor,
        action="delete",
        subject=stored,
        before=facts_of(stored),
    )
    stored.delete()


@transaction.atomic
def change_team_members(*, team: Team, leads_by_user: Mapping[int, bool], actor: str) -> None:
    """Make exactly these people the team's members, each a lead or not.

    Raises MembershipRefused for people who do not belong to the tenant.
    """
    _lock(team.tenant_id)
    members = set(
        Membership.objects.filter(tenant_id=team.tenant_id).values_list("user_id", flat=True)
    )
    if not leads_by_user.keys() <= members:
        raise MembershipRefused("A team's members must be members of the tenant first.")
    before = _leads(team)
    TeamMember.objects.filter(tenant_id=team.tenant_id, team=team).delete()
    TeamMember.objects.bulk_create(
        TeamMember(tenant_id=team.tenant_id, team=team, user_id=user_id, is_lead=is_lead)
        for user_id, is_lead in sorted(leads_by_user.items())
    )
    record_change(
        tenant_id=team.tenant_id,
        actor=actor,
        action="update",
        subject=team,
        before={"members": before},
        after={"members": _leads(team)},
    )


def _leads(team: Team) -> dict[str, str]:
    return {
        member.user.email: "lead" if member.is_lead else "member"
        for member in TeamMember.objects.filter(tenant_id=team.tenant_id, team=team)
        .select_related("user")
        .order_by("user__email")
    }


def _lock(tenant_id: int) -> None:
    # One change of members at a time: two owners who remove each other must not both succeed.
    Tenant.objects.select_for_update().get(id=tenant_id)


def _require_may_give(actor_role: Role, role: Role) -> None:
    if role is Role.OWNER and actor_role is not Role.OWNER:
        raise MembershipRefused("Only an owner makes, changes or removes an owner.")


def _require_another_owner(membership: Membership) -> None:
    if membership.role != Role.OWNER.value:
        return
    others = Membership.objects.filter(
        tenant_id=membership.tenant_id, role=Role.OWNER.value
    ).exclude(id=membership.id)
    if not others.exists():
        raise MembershipRefused(
            "This is the only owner. Make another member an owner first, then try again."
        )
