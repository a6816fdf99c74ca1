"""Members of a tenant and of its teams: given another role, removed. They join by invitation."""

from collections.abc import Mapping, Sequence

from django.db import transaction
from django.db.models import QuerySet

from common.errors import Conflict
from tenants.audit import audited_change, delete_audited, record_change
from tenants.keys import revoke_api_key
from tenants.models import ApiKey, Membership, Team, TeamMember, Tenant
from tenants.roles import SCOPES_BY_ROLE, Role, Scope
from tenants.scope import once_a_snapshot


class MembershipRefused(Conflict):
    """A change of members that would break a rule; the text says which."""


@transaction.atomic
def change_role(*, membership: Membership, role: Role, actor: str, actor_role: Role) -> Membership:
    """Give a member another role.

    Invariant: a tenant always has an owner, and only owners make or unmake owners.
    """
    lock_members(membership.tenant_id)
    with audited_change(membership, actor=actor) as change:
        stored = change.row
        if Role(stored.role) is not role:
            require_may_give(actor_role, role)
            require_may_give(actor_role, Role(stored.role))
            _require_another_owner(stored)
        stored.role = role.value
    return stored


@once_a_snapshot
def visible_teams(*, tenant_id: int, user_id: int, role: Role) -> tuple[str, ...] | None:
    """Return the names of the teams whose usage a member may see; None: that of the whole tenant.

    Engineers and viewers who belong to a team see their teams alone. Those who manage budgets see
    everything, and so does a member of no team.
    """
    if Scope.MANAGE in SCOPES_BY_ROLE[role]:
        return None
    teams = Team.objects.filter(tenant_id=tenant_id, members__user_id=user_id).order_by("name")
    return tuple(name for team in teams for name in team.names) or None


def working_keys_of(membership: Membership) -> QuerySet[ApiKey]:
    """The tenant's API keys that this member made and that are not revoked, newest first."""
    return ApiKey.objects.filter(
        tenant_id=membership.tenant_id, created_by_id=membership.user_id, revoked_at=None
    ).order_by("-id")


@transaction.atomic
def remove_member(
    *, membership: Membership, actor: str, actor_role: Role, revoked_keys: Sequence[int] = ()
) -> None:
    """Take a person out of a tenant and its teams; the account itself and other tenants' stay.

    Of the keys that the person made, those with an id in `revoked_keys` are revoked with it.
    Invariant: a tenant always has an owner. The person's next request is refused.
    """
    lock_members(membership.tenant_id)
    stored = Membership.objects.filter(tenant_id=membership.tenant_id, id=membership.id).first()
    if stored is None:
        return
    require_may_give(actor_role, Role(stored.role))
    _require_another_owner(stored)
    TeamMember.objects.filter(tenant_id=stored.tenant_id, user_id=stored.user_id).delete()
    for key in working_keys_of(stored).filter(id__in=revoked_keys):
        revoke_api_key(key=key, actor=actor)
    delete_audited(stored, actor=actor)


@transaction.atomic
def change_team_members(*, team: Team, leads_by_user: Mapping[int, bool], actor: str) -> None:
    """Make exactly these people the team's members, each a lead or not.

    Raises MembershipRefused for people who do not belong to the tenant.
    """
    lock_members(team.tenant_id)
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


@transaction.atomic
def change_teams_of(
    *, membership: Membership, leads_by_team: Mapping[int, bool], actor: str
) -> None:
    """Make the person a member of exactly these teams, a lead of each or not. Teams that the tenant
    does not have are left out.
    """
    lock_members(membership.tenant_id)
    leads_by_user: dict[int, dict[int, bool]] = {}
    for member in TeamMember.objects.filter(tenant_id=membership.tenant_id):
        leads_by_user.setdefault(member.team_id, {})[member.user_id] = member.is_lead
    for team in Team.objects.filter(tenant_id=membership.tenant_id).order_by("id"):
        before = leads_by_user.get(team.id, {})
        after = {user: is_lead for user, is_lead in before.items() if user != membership.user_id}
        if team.id in leads_by_team:
            after[membership.user_id] = leads_by_team[team.id]
        if after != before:
            change_team_members(team=team, leads_by_user=after, actor=actor)


def _leads(team: Team) -> dict[str, str]:
    return {
        member.user.email: "lead" if member.is_lead else "member"
        for member in TeamMember.objects.filter(tenant_id=team.tenant_id, team=team)
        .select_related("user")
        .order_by("user__email")
    }


def lock_members(tenant_id: int) -> None:
    """Allow one change of members at a time: two owners who remove each other must not both
    succeed.
    """
    # Not against foreign keys: who adds a row of the tenant's holds other locks, and would wait.
    Tenant.objects.select_for_update(no_key=True).get(id=tenant_id)


def require_may_give(actor_role: Role, role: Role) -> None:
    """Raise MembershipRefused if someone of this role may not give or take the other."""
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
