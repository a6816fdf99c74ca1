"""Holds that expired although their call may have run: what may have been spent unseen."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import render
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_safe

from dashboard.access import PageRequest, member_page
from dashboard.budgets.visible import teams_of
from dashboard.curl_lines import curl_context
from dashboard.filter_bar import FilterBar
from dashboard.findings import unknown_headline
from dashboard.frame import filter_bar_of, frame
from metering.reporting.unknown_holds import UnknownHold, UnknownQuestion, list_unknown, sum_unknown
from tenants.roles import Scope

SHOWN_MAX: Final = 100
BEFORE: Final = "before"
# They have columns of their own.
OWN_COLUMNS: Final = frozenset({"agent", "model", "provider", "operation", "status"})

Place = tuple[datetime, UUID]


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """Calls that may have run, by when their hold was over, the latest first."""
    bar = filter_bar_of(request)
    question = UnknownQuestion(
        tenant_id=request.tenant.id,
        starts_at=bar.range.starts_at,
        ends_at=bar.range.ends_at,
        now=bar.now,
        teams=teams_of(request),
    )
    before = _place_of(request.GET.get(BEFORE, ""))
    rows = list_unknown(question, limit=SHOWN_MAX + 1, before=before)
    total = sum_unknown(question)
    context = frame(request, bar, page="unknown") | {
        "headline": unknown_headline(
            holds=total.holds, nanos=total.nanos, is_capped=total.is_capped
        ),
        "lines": [(row, _further(row)) for row in rows[:SHOWN_MAX]],
        "newest": bar.with_further({}).query() if before else None,
        "older": _older(bar, rows),
        **curl_context(request, Scope.ENFORCE),
    }
    return render(request, "dashboard/enforcement/unknown.html", context)


def _further(row: UnknownHold) -> list[tuple[str, str]]:
    """The dimensions besides the agent and the model."""
    return [(name, value) for name, value in row.dimensions.items() if name not in OWN_COLUMNS]


def _older(bar: FilterBar, rows: Sequence[UnknownHold]) -> str | None:
    if len(rows) <= SHOWN_MAX:
        return None
    last = rows[SHOWN_MAX - 1]
    at = last.expires_at.astimezone(UTC).isoformat()
    return bar.with_further({BEFORE: f"{at}~{last.id}"}).query()


def _place_of(text: str) -> Place | None:
    """Where the page before ended; None for what no page has named."""
    at, _, hold_id = text.partition("~")
    try:
        expires_at = parse_datetime(at)
        reservation_id = UUID(hold_id)
    except ValueError:
        return None
    return None if expires_at is None or expires_at.tzinfo is None else (expires_at, reservation_id)
