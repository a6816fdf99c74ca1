"""Whom a contact stands for if no channel reaches it: members, by team or role.

Mail is sent through the operator's own server, so only to members of the tenant.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from django.db.models import Q

from alerts.channels.email import can_mail_people
from alerts.quiet import values_of
from tenants.models import Membership, TeamMember
from tenants.roles import Role

TEAM_LEAD: Final = "team_lead"
# Names that levels use for people in a role.
ROLE_BY_CONTACT: Final[Mapping[str, Role]] = {
    **{role.value: role for role in Role},
    "engineering": Role.ENGINEER,
}
RECIPIENTS_MAX: Final = 50


def mail_of_contacts(
    *, tenant_id: int, names: Sequence[str], match: Mapping[str, object]
) -> tuple[str, ...]:
    """Return the addresses of the people that these contacts stand for, in order; none if the
    service cannot send mail.

    `team_lead` stands for the leads of the teams that `match` names, a role for its members, an
    address for the member who has it, and any other name for the owners.
    """
    if not names or not can_mail_people():
        return ()
    addresses: set[str] = set()
    for name in names:
        addresses |= _addresses(tenant_id, name, match) or _in_role(tenant_id, Role.OWNER)
    return tuple(sorted(addresses)[:RECIPIENTS_MAX])


def _addresses(tenant_id: int, name: str, match: Mapping[str, object]) -> set[str]:
    if name == TEAM_LEAD:
        return _leads(tenant_id, match)
    if name in ROLE_BY_CONTACT:
        return _in_role(tenant_id, ROLE_BY_CONTACT[name])
    members = Membership.objects.filter(tenant_id=tenant_id, user__email=name.lower())
    return set(members.values_list("user__email", flat=True))


def _leads(tenant_id: int, match: Mapping[str, object]) -> set[str]:
    if "team" not in match:
        return set()
    names = list(values_of(match["team"]))
    is_named = Q(team__name__in=names) | Q(team__former_names__overlap=names)
    leads = TeamMember.objects.filter(is_named, tenant_id=tenant_id, is_lead=True)
    return set(leads.values_list("user__email", flat=True))


def _in_role(tenant_id: int, role: Role) -> set[str]:
    members = Membership.objects.filter(tenant_id=tenant_id, role=role, user__is_active=True)
    return set(members.values_list("user__email", flat=True))
