"""Sessions of the period: the costliest, the newest, or those furthest above their usual."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, get_args

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from alerts.incident_lists import visible_to
from alerts.models import Incident
from common.cursors import InvalidCursor, read_sort_key, write_cursor
from dashboard.access import PageRequest, cached_page
from dashboard.amounts import money
from dashboard.counted_later import are_read_later
from dashboard.curl_lines import curl_context
from dashboard.filter_bar import Choice, FilterBar
from dashboard.findings import shortened
from dashboard.frame import filter_bar_of, frame
from dashboard.sessions.columns import histogram_of
from dashboard.sessions.findings import USUAL_BAND, Usual, spread_words, times_usual
from metering.core.dimensions import VALUE_CHARACTERS_MAX
from metering.limits.decisions import refusals_by_session
from metering.models import UsageEvent
from metering.reporting.session_list import (
    CALLS_READ_MAX,
    Order,
    SessionPage,
    SessionQuestion,
    SessionRow,
    list_sessions,
    session_costs,
)
from tenants.roles import Scope

PER_PAGE: Final = 50
CURSOR: Final = "cursor"
MODELS_SHOWN: Final = 2
ORDER_WORDS: Final[dict[Order, str]] = {
    "cost": "Costliest",
    "newest": "Newest",
    "unusual": "Most unusual",
}


@dataclass(frozen=True)
class Line:
    """A session in the list."""

    row: SessionRow
    incident: Incident | None
    refusals: int

    @property
    def usual_words(self) -> str:
        """How many times the usual it cost; empty where nothing is usual."""
        usual = self.row.usual_nanos
        return times_usual(self.row.cost_nanos, usual) if usual else ""

    @property
    def is_unusual(self) -> bool:
        usual = self.row.usual_nanos
        return usual is not None and self.row.cost_nanos * 100 >= usual * USUAL_BAND[1]

    @property
    def duration(self) -> timedelta:
        """From its first call to its last, to the second."""
        return timedelta(seconds=int((self.row.ended_at - self.row.began_at).total_seconds()))

    @property
    def models(self) -> list[str]:
        return self.row.models[:MODELS_SHOWN]

    @property
    def more_models(self) -> int:
        return len(self.row.models) - len(self.models)


@require_safe
@cached_page
def page(request: PageRequest) -> HttpResponse:
    """Which sessions cost most, and which are unlike the others of their agent?"""
    bar, question = _question(request)
    after, bar = _after(request, bar)
    shown = bar.with_further(_further(question))
    context = frame(request, shown, page="sessions") | {
        "prefix": question.prefix,
        "exact": _exact(request.tenant.id, question, bar),
        "orders": _orders(bar, question),
    }
    if are_read_later(question.tenant_id, question.starts_at, question.ends_at):
        further = _further(question) | ({CURSOR: request.GET[CURSOR]} if after else {})
        context["headline"] = f"{ORDER_WORDS[question.order]} sessions"
        context["later"] = bar.with_further(further).query(path=reverse("dashboard:sessions_list"))
    else:
        context |= _listed(request)
    return render(request, "dashboard/sessions/sessions.html", context)


@require_safe
@cached_page
def listed(request: PageRequest) -> HttpResponse:
    """The list of a page that was shown without it: a fragment that is read after it."""
    return render(request, "dashboard/sessions/later.html", _listed(request))


def _listed(request: PageRequest) -> dict[str, Any]:
    """A page of the list, and its finding."""
    bar, question = _question(request)
    after, bar = _after(request, bar)
    sessions = list_sessions(question, limit=PER_PAGE, after=after)
    further = _further(question)
    bar = bar.with_further(further)
    context: dict[str, Any] = {
        "bar": bar,
        "headline": _headline(sessions, question),
        "costs": bar.query(path=reverse("dashboard:session_costs")),
        "lines": _lines(request.tenant.id, sessions.rows, bar.teams),
        "read_since": sessions.read_since,
        "calls_max": f"{CALLS_READ_MAX:,}",
        "older": _older(bar, further, sessions),
        "newest": bar.query() if after else None,
        "cleared": bar.without_chips().with_further({}).query(),
        "is_narrow": bool(bar.chips or question.prefix),
    }
    if not sessions.rows and not bar.chips:
        context |= curl_context(request, Scope.INGEST)
    return context


@require_safe
@cached_page
def costs(request: PageRequest) -> HttpResponse:
    """How many sessions cost how much: a fragment that is read after the page."""
    _, question = _question(request)
    usual = Usual(session_costs(question))
    context: dict[str, Any] = {"usual": usual}
    if usual.is_known:
        percentiles = [("p50", 50), ("p95", 95), ("p99", 99)]
        marks = [(words, usual.percentile(percent)) for words, percent in percentiles]
        context |= {
            "finding": spread_words(usual),
            "histogram": histogram_of(usual.costs, marks),
        }
    return render(request, "dashboard/sessions/costs.html", context)


def _question(request: PageRequest) -> tuple[FilterBar, SessionQuestion]:
    bar = filter_bar_of(request)
    order = request.GET.get("order", "cost")
    if order not in get_args(Order):
        bar = replace(
            bar, notices=(*bar.notices, "This order is not known, so the costliest come first.")
        )
        order = "cost"
    prefix = request.GET.get("session", "").replace("\0", "").strip()[:VALUE_CHARACTERS_MAX]
    question = SessionQuestion(
        tenant_id=request.tenant.id,
        starts_at=bar.range.starts_at,
        ends_at=bar.range.ends_at,
        filters={name: tuple(values) for name, values in bar.filters.items()},
        order=order,  # type: ignore[arg-type]  # checked above
        prefix=prefix,
    )
    return bar, question


def _after(request: PageRequest, bar: FilterBar) -> tuple[tuple[int, str] | None, FilterBar]:
    """Where the page before ended. An address that was edited starts over."""
    text = request.GET.get(CURSOR)
    if text is None:
        return None, bar
    try:
        key, session = read_sort_key(text, [int, str])
    except InvalidCursor:
        notices = (*bar.notices, "This page is not known, so the first is shown.")
        return None, replace(bar, notices=notices)
    return (key, session), bar


def _further(question: SessionQuestion) -> dict[str, str]:
    pairs = {"order": "" if question.order == "cost" else question.order}
    return {name: value for name, value in (pairs | {"session": question.prefix}).items() if value}


def _orders(bar: FilterBar, question: SessionQuestion) -> list[Choice]:
    return [
        Choice(
            bar.with_further(_further(question._replace(order=name))).query(),
            words,
            0,
            name == question.order,
        )
        for name, words in ORDER_WORDS.items()
    ]


def _older(bar: FilterBar, further: dict[str, str], shown: SessionPage) -> str | None:
    if not shown.has_more:
        return None
    last = shown.rows[-1]
    cursor = write_cursor([last.key, last.session])
    return bar.with_further(further | {CURSOR: cursor}).query()


def _headline(shown: SessionPage, question: SessionQuestion) -> str:
    if not shown.rows:
        return "No sessions in this period"
    first = shown.rows[0]
    name = shortened(first.session)
    if question.order == "newest":
        return f"The newest session, {name}, cost {money(first.cost_nanos)}"
    usual = (
        f", {times_usual(first.cost_nanos, first.usual_nanos)} the usual of {_whose(first)}"
        if first.usual_nanos
        else ""
    )
    if question.order == "unusual":
        return f"Session {name} cost {money(first.cost_nanos)}{usual}"
    return f"The costliest session, {name}, cost {money(first.cost_nanos)}{usual}"


def _whose(row: SessionRow) -> str:
    return "/".join(shortened(part) for part in (row.agent, row.feature) if part) or "its kind"


def _lines(tenant_id: int, rows: Sequence[SessionRow], teams: tuple[str, ...] | None) -> list[Line]:
    sessions = [row.session for row in rows]
    incidents = Incident.objects.filter(
        visible_to(teams),
        tenant_id=tenant_id,
        cause__in=[f"loop:{session}" for session in sessions],
    )
    by_cause = {incident.cause: incident for incident in incidents.order_by("id")}
    refusals = refusals_by_session(tenant_id, sessions, teams=teams)
    return [Line(row, by_cause.get(f"loop:{row.session}"), refusals[row.session]) for row in rows]


def _exact(tenant_id: int, question: SessionQuestion, bar: FilterBar) -> bool:
    """Whether a session has exactly the id that was looked for, in whatever period."""
    if not question.prefix:
        return False
    # The value is compared with the empty one so that the partial index is used.
    events = UsageEvent.objects.filter(tenant_id=tenant_id, session=question.prefix)
    if bar.teams is not None:
        events = events.filter(team__in=bar.teams)
    return events.exclude(session="").exists()
