"""Whom the contacts that budgets' levels name reach."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from alerts.channels.email import can_mail_people
from alerts.models import Channel
from alerts.people import ROLE_BY_CONTACT, TEAM_LEAD
from metering.models import BudgetLevel
from tenants.models import Membership, TeamMember

# What budgets name most, shown although no budget may name them yet.
USUAL: Final = (TEAM_LEAD, "finance", "engineering")
LEVELS_MAX: Final = 10_000
CONTACTS_MAX: Final = 100


class Contact(NamedTuple):
    """A name that levels notify, and whom it reaches: channels, else people by email."""

    name: str
    budgets: int
    channels: list[Channel]
    people: str


def read_contacts(tenant_id: int) -> list[Contact]:
    """Contacts of the tenant's budgets, those of most budgets first, and the usual ones."""
    budgets: dict[str, set[int]] = {name: set() for name in USUAL}
    levels = BudgetLevel.objects.filter(tenant_id=tenant_id, budget__archived_at=None)
    for budget_id, names in levels.values_list("budget_id", "notify")[:LEVELS_MAX]:
        for name in names:
            budgets.setdefault(name, set()).add(budget_id)
    channels = list(Channel.objects.filter(tenant_id=tenant_id, removed_at=None).order_by("name"))
    members = _people_by_role(tenant_id)
    leads = TeamMember.objects.filter(tenant_id=tenant_id, is_lead=True).count()
    ordered = sorted(budgets, key=lambda name: (-len(budgets[name]), name))
    return [
        Contact(
            name,
            len(budgets[name]),
            [channel for channel in channels if name in channel.contacts],
            _people(name, members, leads),
        )
        for name in ordered[:CONTACTS_MAX]
    ]


def _people_by_role(tenant_id: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for role in Membership.objects.filter(tenant_id=tenant_id).values_list("role", flat=True):
        counts[role] = counts.get(role, 0) + 1
    return counts


def _people(name: str, members: Mapping[str, int], leads: int) -> str:
    """Who is emailed where no channel reaches the contact; `alerts.people` decides the same."""
    if not can_mail_people():
        return "no one: this service sends no email to people"
    if name == TEAM_LEAD:
        return f"the leads of the budget's teams ({leads} in all), else the owners"
    role = ROLE_BY_CONTACT.get(name)
    if role is not None and members.get(role.value):
        return _numbered(members[role.value], role.value)
    return "the member with this address, else the owners" if "@" in name else "the owners"


def _numbered(count: int, role: str) -> str:
    return f"the {role}" if count == 1 else f"{count:,} members with the role {role}"
