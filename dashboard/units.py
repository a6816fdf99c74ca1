"""Unit economics: what one customer, user, session, feature, success or posted unit costs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from common.csv_downloads import csv_response
from common.money import usd_from_nanos
from dashboard.access import PageRequest, cached_page
from dashboard.amounts import change, count, money, percent_text
from dashboard.annotations import read_chart_notes
from dashboard.chart_notes import with_annotations
from dashboard.charts import COUNT, FIRST, LINE, Figure, bucket_words, line, over_time
from dashboard.composition import Part, Stream, flow
from dashboard.counted_later import is_counted_later
from dashboard.curl_lines import curl_context
from dashboard.filter_bar import Choice, FilterBar, TimeRange
from dashboard.findings import STEADY_PERCENT, shortened
from dashboard.frame import filter_bar_of, frame
from dashboard.spend import has_usage, local, question
from metering.reporting import InvalidQuestion, UsageQuestion
from metering.reporting.coordination import Coordination, coordination
from metering.reporting.units import (
    BUILT_IN,
    Unit,
    UnitFigures,
    UnitReport,
    posted_units,
    unit_report,
    unit_total,
)
from tenants.roles import Scope

DEFAULT: Final = Unit(BUILT_IN[0])
PLURALS: Final = {"success": "successes"}


@dataclass(frozen=True)
class Asked:
    """What the page was asked: the bar, and the unit that its links keep."""

    bar: FilterBar
    unit: Unit
    question: UsageQuestion | None
    previous: UsageQuestion | None

    @property
    def unit_words(self) -> str:
        """The unit as a reader names it."""
        return f"“{shortened(self.unit.name)}”" if self.unit.is_posted else self.unit.name


def _asked(request: PageRequest) -> Asked:
    return _asked_of(request, _unit_of(request))


def _asked_of(request: PageRequest, unit: Unit) -> Asked:
    bar = _with_unit(filter_bar_of(request), unit)
    interval = "day" if unit.is_posted and bar.interval == "hour" else bar.interval
    spans = [bar.range, *([bar.previous] if bar.has_comparison else [])]
    if unit.is_posted:
        spans = [_whole_days(span, bar) for span in spans]
    asked = [
        question(request.tenant.id, bar, span, group_by=None, interval=interval)
        if span.starts_at < span.until
        else None
        for span in spans
    ]
    return Asked(bar, unit, asked[0], asked[1] if len(asked) > 1 else None)


def _whole_days(span: TimeRange, bar: FilterBar) -> TimeRange:
    """The span without the day that is not over: its posted count is of a whole day."""
    if span.until >= span.ends_at:
        return span
    until = local(span.until, bar).replace(hour=0, minute=0, second=0, microsecond=0)
    return span._replace(until=until.astimezone(UTC))


def _unit_of(request: PageRequest) -> Unit:
    """The unit of the address; one that is not known is the first."""
    if name := request.GET.get("posted", "").replace("\0", ""):
        return Unit(name, is_posted=True)
    name = request.GET.get("unit", DEFAULT.name)
    return Unit(name) if name in BUILT_IN else DEFAULT


def _with_unit(bar: FilterBar, unit: Unit) -> FilterBar:
    if unit == DEFAULT:
        return bar.with_further({})
    return bar.with_further({"posted" if unit.is_posted else "unit": unit.name})


@require_safe
@cached_page
def page(request: PageRequest) -> HttpResponse:
    """What does one unit cost, and does it get cheaper?"""
    if not has_usage(request.tenant.id):
        context = frame(request, filter_bar_of(request), page="unit_economics")
        context |= {"headline": "No usage yet", "is_unused": True}
        return render(request, "dashboard/units.html", context)
    asked = _asked(request)
    posted = posted_units(request.tenant.id)
    context = frame(request, asked.bar, page="unit_economics") | {
        "asked": asked,
        "plural": _plural(asked.unit),
        "choices": [
            Choice(
                _with_unit(asked.bar, unit).query(),
                shortened(unit.name, 24).capitalize(),
                0,
                unit == asked.unit,
            )
            for unit in (*map(Unit, BUILT_IN), *posted)
        ],
        "has_posted": bool(posted),
        **curl_context(request, Scope.INGEST),
    }
    if not asked.unit.is_posted and is_counted_later(request.tenant.id, asked.bar):
        context["headline"] = f"Cost per {asked.unit_words}"
        context["later"] = asked.bar.query(path=reverse("dashboard:units_figures"))
    else:
        context |= _figures(asked)
    return render(request, "dashboard/units.html", context)


@require_safe
@cached_page
def figures(request: PageRequest) -> HttpResponse:
    """The figures of a page that was shown without them: a fragment that is read after it."""
    asked = _asked(request)
    context = {"asked": asked, "bar": asked.bar, "plural": _plural(asked.unit), **_figures(asked)}
    return render(request, "dashboard/units_later.html", context)


def _figures(asked: Asked) -> dict[str, object]:
    """The rows, their total and the finding; or why they could not be counted."""
    try:
        report = _report(asked)
    except InvalidQuestion as error:
        return {
            "headline": "These units could not be counted for this period",
            "why": error.detail,
        }
    return {
        "headline": _headline(asked, report),
        "report": report,
        "rows": [
            {
                "label": bucket_words(local(row.start, asked.bar), _interval(asked)),
                "figures": row.figures,
                "previous": row.previous,
            }
            for row in report.rows[::-1]
        ],
    }


def _report(asked: Asked) -> UnitReport:
    if asked.question is None:
        return UnitReport([], UnitFigures(0, 0), None)
    return unit_report(asked.question, asked.unit, previous=asked.previous)


def _interval(asked: Asked) -> str:
    return asked.question.interval if asked.question else asked.bar.interval


def _headline(asked: Asked, report: UnitReport) -> str:
    each = report.total.each_nanos
    if each is None:
        return f"No {_plural(asked.unit)} in this period"
    sentence = f"One {asked.unit_words} costs {money(each)}"
    if asked.unit.is_posted:
        sentence = f"{money(each)} per {asked.unit_words}"
    before = report.previous_total.each_nanos if report.previous_total else None
    grown = change(each, before) if before else None
    if grown is None:
        return sentence
    if abs(grown) < STEADY_PERCENT:
        return f"{sentence}, about the same as in {asked.bar.previous_words}"
    way = "up" if grown > 0 else "down"
    return f"{sentence}, {way} {percent_text(abs(grown))} from {asked.bar.previous_words}"


def _plural(unit: Unit) -> str:
    if unit.is_posted:
        return f"“{shortened(unit.name)}”"
    return PLURALS.get(unit.name, f"{unit.name}s")


@require_safe
@cached_page
def chart(request: PageRequest) -> HttpResponse:
    """Cost per unit over time, beside the time before."""
    asked = _asked(request)
    try:
        report = _report(asked)
    except InvalidQuestion:
        report = UnitReport([], UnitFigures(0, 0), None)
    starts = [row.start for row in report.rows]
    figure = _figure(asked, report)
    return JsonResponse(
        with_annotations(figure, read_chart_notes(request.tenant.id, asked.bar, starts))
    )


def _figure(asked: Asked, report: UnitReport) -> Figure:
    starts = [local(row.start, asked.bar) for row in report.rows]
    places = [start.replace(tzinfo=None).isoformat() for start in starts]
    each = [row.figures.each_nanos for row in report.rows]
    traces = [line(f"Per {asked.unit.name}", each, places)]
    if asked.previous is not None:
        before = [row.previous.each_nanos if row.previous else None for row in report.rows]
        traces.append(line("Previous period", before, places, color=LINE, dash="dot"))
    return over_time(traces, starts=starts, interval=_interval(asked))


@require_safe
@cached_page
def csv_file(request: PageRequest) -> HttpResponse:
    """The rows of the page, exact, for spreadsheets."""
    asked = _asked(request)
    return csv_response(_csv_rows(asked, _report(asked)), name="unit-economics.csv")


def _csv_rows(asked: Asked, report: UnitReport) -> Iterator[list[str]]:
    yield ["start", "unit", "cost_usd", "count", "cost_per_unit_usd"]
    for row in report.rows:
        cost_nanos, units = row.figures
        each = row.figures.each_nanos
        yield [
            local(row.start, asked.bar).isoformat(),
            asked.unit.name,
            usd_from_nanos(cost_nanos),
            str(units),
            "" if each is None else usd_from_nanos(each),
        ]


@require_safe
@cached_page
def every_unit(request: PageRequest) -> HttpResponse:
    """What each kind of unit costs in the period: a fragment that is read after the page."""
    asked = _asked(request)
    units = (*map(Unit, BUILT_IN), *posted_units(request.tenant.id)) if asked.question else ()
    lines = [_line_of(_asked_of(request, unit), unit) for unit in units]
    return render(request, "dashboard/units_all.html", {"lines": lines, "bar": asked.bar})


def _line_of(asked: Asked, unit: Unit) -> dict[str, Any]:
    line = {
        "unit": unit,
        "address": _with_unit(asked.bar, unit).query(path=reverse("dashboard:unit_economics")),
    }
    if asked.question is None:
        return line
    try:
        total, previous = unit_total(asked.question, unit, previous=asked.previous)
    except InvalidQuestion:
        return line
    return line | {"total": total, "previous": previous}


@require_safe
@cached_page
def agents(request: PageRequest) -> HttpResponse:
    """What agents pass on to each other: a fragment that is read after the page."""
    asked = _asked(request)
    context: dict[str, Any] = {"bar": asked.bar}
    if asked.question is not None:
        try:
            handoffs = coordination(asked.question)
        except InvalidQuestion as error:
            context["why"] = error.detail
        else:
            context["found"] = handoffs
            if handoffs.pairs:
                context["finding"] = _handoffs_words(handoffs)
                context["figure"] = _handoffs_figure(asked.bar, handoffs)
    return render(request, "dashboard/units_agents.html", context)


def _handoffs_words(handoffs: Coordination) -> str:
    """Between which two agents most is passed on."""
    most = handoffs.pairs[0]
    giver, receiver = shortened(most.giver), shortened(most.receiver)
    return f"Most tokens go from “{giver}” to “{receiver}”: {count(most.passed_on_tokens)}"


def _handoffs_figure(bar: FilterBar, handoffs: Coordination) -> Figure:
    """The tokens that agents passed on, from who wrote them to who read them."""
    here = reverse("dashboard:explore")
    written: Counter[str] = Counter()
    read: Counter[str] = Counter()
    for pair in handoffs.pairs:
        written[pair.giver] += pair.passed_on_tokens
        read[pair.receiver] += pair.passed_on_tokens
    left, right = (
        [
            Part(name, tokens, FIRST, bar.with_chip("agent", name).query(path=here))
            for name, tokens in agents.items()
        ]
        for agents in (written, read)
    )
    streams = [
        Stream([*written].index(pair.giver), [*read].index(pair.receiver), pair.passed_on_tokens)
        for pair in handoffs.pairs
    ]
    return flow(left, right, streams, unit=COUNT)
