"""What needs people now: open incidents, and budgets by what happens when they run out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from alerts.incident_lists import needing_attention, visible_to
from alerts.models import Incident
from dashboard.budgets.bars import Bar, bar_of
from dashboard.budgets.words import refuses
from dashboard.filter_bar import FilterBar
from dashboard.incidents.lines import URGENT_FIRST, IncidentLine, lines_of
from metering.budgets.index import BudgetIndex
from metering.models import Mode
from metering.reporting.budget_windows import (
    Watch,
    WatchedWindow,
    watched_windows,
    windows_about,
)

INCIDENTS_SHOWN: Final = 3
WINDOWS_PER_BUDGET: Final = 2
WINDOWS_SHOWN: Final = 5
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Attention:
    """The worst incidents out of `incidents` open ones, and the windows that matter most, each with
    whether calls are refused once it is exhausted.
    """

    lines: Sequence[IncidentLine]
    incidents: int
    windows: Sequence[tuple[WatchedWindow, Bar, bool]]
    watch: Watch


def read_attention(tenant_id: int, bar: FilterBar, book: BudgetIndex) -> Attention:
    """What needs attention of what the bar's filters name."""
    rows = Incident.objects.filter(
        visible_to(bar.teams), needing_attention(bar.filters, bar.now), tenant_id=tenant_id
    )
    worst = rows.select_related("assigned_to").order_by(*URGENT_FIRST)
    watch = watched_windows(
        tenant_id=tenant_id,
        book=book,
        now=bar.now,
        per_budget=WINDOWS_PER_BUDGET,
        only=windows_about(book, bar.filters),
    )
    ranked = sorted(watch.windows, key=consequence)[:WINDOWS_SHOWN]
    return Attention(
        lines=lines_of(worst[:INCIDENTS_SHOWN]),
        incidents=rows.count(),
        windows=[(window, bar_of(window), refuses(window.rule)) for window in ranked],
        watch=watch,
    )


def consequence(window: WatchedWindow) -> tuple[bool, bool, bool, datetime, int, str, int]:
    """The key by which windows are in order of what happens: those that will refuse calls before
    those that notify people, whichever is exhausted first; then the fullest. Pure.
    """
    runs_out_at = datetime.min.replace(tzinfo=UTC)
    if not window.outlook.is_over:
        runs_out_at = window.outlook.runs_out_at or _NEVER
    return (
        window.rule.mode == Mode.SHADOW,
        runs_out_at == _NEVER,
        not refuses(window.rule),
        runs_out_at,
        -int(window.percent * 1000),
        window.rule.name,
        window.state.id,
    )
