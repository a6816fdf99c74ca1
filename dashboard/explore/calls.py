"""The calls of a selection: where every drill-down ends, before a trace."""

from typing import Any, Final

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from common.cursors import InvalidCursor
from dashboard.access import PageRequest, cached_page
from dashboard.amounts import exact_count, money
from dashboard.filter_bar import Choice, FilterBar
from dashboard.frame import filter_bar_of, frame
from dashboard.sessions.addresses import call_address
from dashboard.spend import read_total
from metering.models import UsageEvent
from metering.reporting.bounded import TooMuchToRead, in_time
from metering.reporting.events import EventQuestion, costliest_events, list_events
from metering.reporting.usage import Measures

PER_PAGE: Final = 50
ORDER: Final = "order"
BY_COST: Final = "cost"
CURSOR: Final = "cursor"
# To rank calls by cost, every one of the selection is read.
RANKED_MAX: Final = 50_000
WHAT: Final = "These calls"


@require_safe
@cached_page
def page(request: PageRequest) -> HttpResponse:
    """Which calls are these?"""
    bar = filter_bar_of(request)
    totals = read_total(request.tenant.id, bar, bar.range)
    number = totals.requests + totals.tool_calls
    is_by_cost = request.GET.get(ORDER) == BY_COST and number <= RANKED_MAX
    bar = bar.with_further({ORDER: BY_COST} if is_by_cost else {})
    context = frame(request, bar, page="calls") | {
        "headline": _headline(totals),
        "totals": totals,
        "number": number,
        "orders": [
            Choice(bar.with_further({}).query(), "Newest", 0, not is_by_cost),
            Choice(bar.with_further({ORDER: BY_COST}).query(), "Costliest", 0, is_by_cost),
        ],
        "is_by_cost": is_by_cost,
        "may_rank": number <= RANKED_MAX,
        "ranked_most": RANKED_MAX,
        "explore": bar.with_further({}).query(path=reverse("dashboard:explore")),
    }
    try:
        with in_time(what=WHAT):
            context |= _rows(request, bar, is_by_cost=is_by_cost)
    except TooMuchToRead:
        context["is_too_much"] = True
    return render(request, "dashboard/explore/calls.html", context)


def _rows(request: PageRequest, bar: FilterBar, *, is_by_cost: bool) -> dict[str, Any]:
    span = bar.range
    asked = EventQuestion(
        tenant_id=request.tenant.id,
        starts_at=span.starts_at,
        ends_at=span.ends_at,
        filters={name: tuple(values) for name, values in bar.filters.items()},
    )
    cursor = request.GET.get(CURSOR)
    if is_by_cost:
        return {"calls": list(map(_Call, costliest_events(asked, limit=PER_PAGE)))}
    try:
        page = list_events(asked, limit=PER_PAGE, cursor=cursor or None)
    except InvalidCursor:
        cursor, page = None, list_events(asked, limit=PER_PAGE)
    older = bar.with_further({CURSOR: page.next_cursor}).query() if page.next_cursor else None
    return {
        "calls": list(map(_Call, page.rows)),
        "older": older,
        "newest": bar.query() if cursor else None,
    }


class _Call:
    """One call as a row shows it."""

    def __init__(self, event: UsageEvent) -> None:
        self.event = event
        self.name = event.tool or event.model or event.get_operation_display()
        self.address = call_address(event.source, event.sent_id)
        self.tokens = event.input_tokens + event.output_tokens
        self.status = event.get_status_display()


def _headline(totals: Measures) -> str:
    number = totals.requests + totals.tool_calls
    if not number:
        return "No calls in this selection"
    calls = "1 call" if number == 1 else f"{exact_count(number)} calls"
    return f"{calls}, {money(totals.cost_nanos)} in total"
