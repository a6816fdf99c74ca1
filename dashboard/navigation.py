"""Which pages there are, where they stand in the sidebar, and what waits on them.

A new page is one line here: an entry of the sidebar, or a tab of one. Names are those of the URLs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from django.urls import reverse
from django.utils import timezone

from alerts.incident_lists import deliveries_visible_to, needing_attention, visible_to
from alerts.models import Delivery, DeliveryState, Incident
from dashboard.budgets.visible import budgets_of_teams
from dashboard.enforcement.concerned import count_halts
from dashboard.filter_bar import FilterBar
from metering.reporting.budget_windows import open_requests


class Reader(NamedTuple):
    """Whom pages are for: a tenant's person who may see these teams alone (None: all of it), and
    what the audit log calls them.
    """

    tenant_id: int
    teams: tuple[str, ...] | None
    actor: str


Count = Callable[[Reader], int]


class Tab(NamedTuple):
    """A page among those of one entry. `counts` is what waits on it, said in `unit`."""

    name: str
    words: str
    counts: Count | None = None
    unit: str = ""


class Entry(NamedTuple):
    """An entry of the sidebar: its first tab is where it leads; `badges` are the tabs whose counts
    it shows.
    """

    words: str
    icon: str
    tabs: tuple[Tab, ...]
    badges: tuple[str, ...] = ()
    tone: str = ""
    # Of the whole tenant's money: who may see some teams alone does not find it.
    is_of_tenant: bool = False


@dataclass(frozen=True)
class Link:
    """An entry or a tab as a page shows it."""

    words: str
    address: str
    is_here: bool
    count: int = 0
    unit: str = ""
    icon: str = ""
    tone: str = ""


def incidents_needing_attention(reader: Reader) -> int:
    """Open incidents that are more than informational: the headline, the section and the badge."""
    wanted = visible_to(reader.teams) & needing_attention({}, timezone.now())
    return Incident.objects.filter(wanted, tenant_id=reader.tenant_id).count()


def pending_requests(reader: Reader) -> int:
    """Requests to raise a limit that no one has decided."""
    waiting = open_requests(reader.tenant_id, timezone.now())
    if reader.teams is None:
        return waiting.total()
    own = set(budgets_of_teams(reader.tenant_id, reader.teams))
    return sum(number for group, number in waiting.items() if group.budget_id in own)


def halts_in_force(reader: Reader) -> int:
    return count_halts(reader.tenant_id, reader.teams, actor=reader.actor)


def failed_deliveries(reader: Reader) -> int:
    rows = Delivery.objects.filter(tenant_id=reader.tenant_id, state=DeliveryState.DEAD)
    return rows.filter(deliveries_visible_to(reader.teams)).count()


NAVIGATION: Final = (
    Entry("Overview", "chart", (Tab("overview", "Overview"),)),
    Entry(
        "Explore",
        "panes",
        (
            Tab("explore", "Explore"),
            Tab("calls", "Calls"),
            Tab("unit_economics", "Unit economics"),
            Tab("reports", "Saved views and reports"),
            Tab("annotations", "Annotations"),
        ),
    ),
    Entry("Sessions", "lines", (Tab("sessions", "Sessions"),)),
    Entry(
        "Budgets",
        "gauge",
        (
            Tab("budgets", "Budgets"),
            Tab("requests", "Increase requests", pending_requests, "pending"),
            Tab("halts", "Halts", halts_in_force, "in force"),
            Tab("breakers", "Breakers"),
            Tab("decisions", "Decisions"),
            Tab("estimates", "Estimates"),
            Tab("unknown", "Outcome unknown"),
        ),
        badges=("requests", "halts"),
        tone="wait",
    ),
    Entry(
        "Incidents",
        "alert",
        (
            Tab("incidents", "Incidents", incidents_needing_attention, "need attention"),
            Tab("channels", "Channels"),
            Tab("deliveries", "Deliveries", failed_deliveries, "failed"),
        ),
        badges=("incidents",),
        tone="hot",
    ),
    Entry("Savings", "percent", (Tab("savings", "Savings"),)),
    Entry(
        "Customers",
        "people",
        (
            Tab("customers", "Customers"),
            Tab("plans", "Plans"),
            Tab("statements", "Statements"),
            Tab("credits", "Credits"),
            Tab("reconciliation", "Reconciliation"),
        ),
        is_of_tenant=True,
    ),
    Entry(
        "Settings",
        "sliders",
        (
            Tab("members", "Members"),
            Tab("teams", "Teams"),
            Tab("keys", "API keys"),
            Tab("prices", "Prices"),
            Tab("alerts", "Alerts"),
            Tab("sources", "Sources"),
            Tab("attribute_mappings", "Attribute mappings"),
            Tab("billing", "Billing"),
            Tab("workspace", "Workspace"),
            Tab("audit_log", "Audit log"),
        ),
    ),
)

# What a page is called, by its name.
TITLES: Final = {tab.name: tab.words for entry in NAVIGATION for tab in entry.tabs}


def links_of(reader: Reader, bar: FilterBar, page: str) -> tuple[list[Link], list[Link]]:
    """The sidebar, and the tabs of the entry that `page` belongs to; none where it has but one, and
    none on a page that belongs to no entry: the person's account.
    """
    plain = bar.with_further({})
    entries = [entry for entry in NAVIGATION if bar.teams is None or not entry.is_of_tenant]
    here = next((entry for entry in entries if page in [tab.name for tab in entry.tabs]), None)
    shown = here.tabs if here is not None and len(here.tabs) > 1 else ()
    wanted = {*shown, *(tab for entry in entries for tab in _badges(entry))}
    counts = {tab.name: tab.counts(reader) for tab in wanted if tab.counts}
    sidebar = [
        Link(
            entry.words,
            _address(entry.tabs[0], plain),
            entry is here,
            sum(counts[tab.name] for tab in _badges(entry)),
            ", ".join(f"{counts[tab.name]} {tab.unit}" for tab in _badges(entry)),
            entry.icon,
            entry.tone,
        )
        for entry in entries
    ]
    tabs = [
        Link(tab.words, _address(tab, plain), tab.name == page, counts.get(tab.name, 0), tab.unit)
        for tab in shown
    ]
    return sidebar, tabs


def _badges(entry: Entry) -> list[Tab]:
    return [tab for tab in entry.tabs if tab.name in entry.badges]


def _address(tab: Tab, bar: FilterBar) -> str:
    return bar.query(path=reverse(f"dashboard:{tab.name}"))
