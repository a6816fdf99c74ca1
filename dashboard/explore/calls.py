"""The calls of a selection: where every drill-down ends, before a trace."""

from collections.abc import Mapping
from typing import Any, Final

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from common.cursors import InvalidCursor
from dashboard.access import PageRequest, cached_page
from dashboard.amounts import exact_count, money
from dashboard.counted_later import are_read_later
from dashboard.filter_bar import Choice, FilterBar
from dashboard.frame import filter_bar_of, frame
from dashboard.sessions.addresses import call_address
from dashboard.spend import read_total
from metering.models import UsageEvent
from metering.reporting.bounded import TooMuchToRead, in_time
from metering.reporting.conditions import are_indexed
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
    kept = {name: text for name in (ORDER, CURSOR) if (text := request.GET.get(name))}
    if _are_looked_for(request.tenant.id, bar, kept):
        shown = bar.with_further({name: text for name, text in kept.items() if name == ORDER})
        context = frame(request, shown, page="calls") | {
            "headline": "Calls",
            "later": bar.with_further(kept).query(path=reverse("dashboard:calls_list")),
        }
    else:
        listed = _listed(request, bar)
        context = frame(request, listed["bar"], page="calls") | listed
    return render(request, "dashboard/explore/calls.html", context)


@require_safe
@cached_page
def listed(request: PageRequest) -> HttpResponse:
    """The list of a page that was shown without it: a fragment that is read after it."""
    context = _listed(request, filter_bar_of(request))
    return render(request, "dashboard/explore/calls_later.html", context)


def _are_looked_for(tenant_id: int, bar: FilterBar, kept: Mapping[str, str]) -> bool:
    """Whether it may take many calls to find these, so that they come after their page."""
    filters = {name: tuple(values) for name, values in bar.filters.items()}
    if not (filters or ORDER in kept) or are_indexed(filters):
        return False
    return are_read_later(tenant_id, bar.range.starts_at, bar.range.ends_at)


def _listed(request: PageRequest, bar: FilterBar) -> dict[str, Any]:
    """A page of the list, and its finding."""
    try:
        with in_time(what=WHAT):
            totals = read_total(request.tenant.id, bar, bar.range)
    except TooMuchToRead:
        return {"headline": "Calls", "bar": bar, "is_too_much": True}
    number = totals.requests + totals.tool_calls
    is_by_cost = request.GET.get(ORDER) == BY_COST and number <= RANKED_MAX
    plain = bar.with_further({})
    bar = bar.with_further({ORDER: BY_COST} if is_by_cost else {})
    context = {
        "bar": bar,
        "headline": _headline(totals),
        "totals": totals,
        "number": number,
        "orders": [
            Choice(plain.query(), "Newest", 0, not is_by_cost),
            Choice(plain.with_further({ORDER: BY_COST}).query(), "Costliest", 0, is_by_cost),
        ],
        "is_by_cost": is_by_cost,
        "may_rank": number <= RANKED_MAX,
        "ranked_most": RANKED_MAX,
        "explore": plain.query(path=reverse("dashboard:explore")),
        "is_narrow": bool(bar.chips),
        "cleared": bar.without_chips().query(),
    }
    try:
        with in_time(what=WHAT):
            return context | _rows(request, bar, is_by_cost=is_by_cost)
    except TooMuchToRead:
        return context | {"is_too_much": True}


def _rows(request: PageRequest, bar: FilterBar, *, is_by_cost: bool) -> dict[str, object]:
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
