"""The explore page: usage by any two dimensions and any metric; its address is the view."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from dashboard.access import PageRequest, cached_page
from dashboard.annotations import read_chart_notes
from dashboard.chart_notes import with_annotations, words_alone
from dashboard.charts import Figure, bucket_words
from dashboard.counted_later import is_counted_later
from dashboard.curl_lines import service_url
from dashboard.explore import chart, parts
from dashboard.explore.exploration import (
    PAGE,
    SEARCH,
    Exploration,
    own_parameters,
    read_exploration,
)
from dashboard.explore.exports import curl_line
from dashboard.explore.finding import headline
from dashboard.explore.metrics import METRICS
from dashboard.explore.ranking import PER_PAGE, Ranking, found, page_of, read_ranking, rest_of
from dashboard.filter_bar import COST, GROUPS, INTERVALS, Choice
from dashboard.findings import coverage_words, value_words
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import numbered_page
from dashboard.reports.saved_views import (
    may_save,
    pinned_of,
    readable_views,
    reader_choices,
)
from dashboard.spend import has_usage, local
from metering.reporting.bounded import in_time
from metering.reporting.question import InvalidQuestion

# With this many values or more, the page has a field to search them.
SEARCHED_FROM: Final = 21
WHAT: Final = "These figures"
VIEWS_MAX: Final = 8


def exploration_of(request: PageRequest) -> Exploration:
    """The view that the page's address asks for, within what the reader may see."""
    return read_exploration(request.GET, filter_bar_of(request), tenant_id=request.tenant.id)


@require_safe
@cached_page
def page(request: PageRequest) -> HttpResponse:
    """What is usage made of?"""
    view = exploration_of(request)
    bar = view.bar
    context: dict[str, Any] = frame(request, bar, page="explore") | {
        "view": view,
        "metric": view.metric,
        **_builder(view),
        **_saved(request, view),
        "curl": curl_line(view, service_url(request)),
        "has_usage": has_usage(request.tenant.id),
    }
    if not view.is_quick and is_counted_later(view.tenant_id, bar):
        context["headline"] = f"{view.metric.words} by {view.group_by[0]}"
        context["later"] = view.link(path=reverse("dashboard:explore_ranking"))
    else:
        context |= _figures(view)
    return render(request, "dashboard/explore/page.html", context)


@require_safe
@cached_page
def ranking(request: PageRequest) -> HttpResponse:
    """The figures of a page that was shown without them: a fragment that is read after it."""
    view = exploration_of(request)
    context = {"view": view, "metric": view.metric, "bar": view.bar, **_figures(view)}
    return render(request, "dashboard/explore/later.html", context)


def _figures(view: Exploration) -> dict[str, object]:
    """The table and the finding; or why they cannot be shown."""
    try:
        with in_time(what=WHAT):
            return _table(view, read_ranking(view))
    except InvalidQuestion as refusal:
        return {
            "headline": "This cannot be shown together",
            "refusal": refusal.detail,
            "spend_address": replace(view.bar, metric=COST).query(),
        }


def _table(view: Exploration, ranking: Ranking) -> dict[str, object]:
    lines = page_of(view, ranking)
    matching = found(view, ranking)
    further = {SEARCH: view.search}
    return {
        "headline": headline(view, ranking, lines),
        "ranking": ranking,
        "lines": lines,
        "rest": rest_of(ranking, lines),
        "coverage_words": coverage_words(ranking.report.coverage) if ranking.report else "",
        "number": len(ranking.ranked),
        "matching": len(matching),
        "pages": numbered_page(
            view.page,
            len(matching),
            per_page=PER_PAGE,
            address=lambda page: view.link(**further, **{PAGE: str(page) if page > 1 else ""}),
        ),
        "is_searched": len(ranking.ranked) >= SEARCHED_FROM or bool(view.search),
    }


def _builder(view: Exploration) -> dict[str, object]:
    """The sentence that builds a view: metric, two dimensions, interval, and what is summed up."""
    bar = replace(view, search="", page=1).bar
    first, second = view.group_by[0], view.group_by[1] if len(view.group_by) > 1 else ""

    def grouped(*names: str) -> str:
        return replace(bar, group_by=tuple(dict.fromkeys(name for name in names if name))).query()

    thens = [Choice(grouped(first), "nothing", 0, not second)]
    thens += [
        Choice(grouped(first, name), name.capitalize(), 0, name == second)
        for name in GROUPS
        if name != first
    ]
    intervals = [
        Choice(replace(bar, chosen_interval=name).query(), name, 0, name == bar.interval)
        for name in INTERVALS
    ]

    def shown(**changes: bool) -> str:
        chosen = {"is_cumulative": view.is_cumulative, "is_flow": view.is_flow, **changes}
        return bar.with_further(own_parameters(**chosen)).query()

    return {
        "metrics": [
            Choice(replace(bar, metric=metric.name).query(), metric.words, 0, metric is view.metric)
            for metric in METRICS.values()
        ],
        "firsts": [
            Choice(
                grouped(name, second if second != name else first),
                name.capitalize(),
                0,
                name == first,
            )
            for name in GROUPS
        ]
        if second
        else [Choice(grouped(name), name.capitalize(), 0, name == first) for name in GROUPS],
        "thens": thens,
        "intervals": intervals,
        "sums": [
            Choice(shown(is_cumulative=False), f"Per {bar.interval}", 0, not view.is_cumulative),
            Choice(shown(is_cumulative=True), "Running", 0, view.is_cumulative),
        ],
        "shapes": [
            Choice(shown(is_flow=False), "Treemap", 0, not view.is_flow),
            Choice(shown(is_flow=True), "Flow", 0, view.is_flow),
        ],
    }


def _saved(request: PageRequest, view: Exploration) -> dict[str, object]:
    """The saved views that the reader may open, and which of them this is."""
    here = view.link(**{SEARCH: "", PAGE: ""}).removeprefix("?")
    views = list(readable_views(request)[:VIEWS_MAX])
    pinned = pinned_of(request)
    return {
        "query": here,
        "views": [
            (row, f"{reverse('dashboard:explore')}?{row.query}", row.query == here, row == pinned)
            for row in views
        ],
        "may_save": may_save(request),
        "readers": reader_choices(request),
    }


@require_safe
@cached_page
def time_chart(request: PageRequest) -> HttpResponse:
    """The metric over time, as a figure."""
    view = exploration_of(request)
    return _figure(lambda: _noted(view, chart.read_course(view)))


def _noted(view: Exploration, course: chart.Course) -> Figure:
    notes = read_chart_notes(view.tenant_id, view.bar, course.starts)
    return with_annotations(chart.time_figure(view, course), notes)


@require_safe
@cached_page
def composition_chart(request: PageRequest) -> HttpResponse:
    """What the total is composed of, as a figure."""
    view = exploration_of(request)
    draw = parts.flow_figure if view.is_flow and view.can_flow else parts.composition_figure
    return _figure(lambda: draw(view))


def _figure(draw: Callable[[], Figure]) -> JsonResponse:
    """A figure; where what was asked cannot be drawn, one that says why."""
    try:
        with in_time(what=WHAT):
            return JsonResponse(draw())
    except InvalidQuestion as refusal:
        return JsonResponse(words_alone(refusal.detail))


@require_safe
@cached_page
def time_table(request: PageRequest) -> HttpResponse:
    """The numbers behind the chart over time, the newest bucket first."""
    view = exploration_of(request)
    try:
        with in_time(what=WHAT):
            course = chart.read_course(view)
    except InvalidQuestion as refusal:
        return render(request, "dashboard/explore/course.html", {"refusal": refusal.detail})
    rows = [
        (
            bucket_words(local(start, view.bar), view.bar.interval),
            course.totals[at],
            [amounts[at] for amounts in course.values.values()],
            at == course.unfinished,
        )
        for at, start in enumerate(course.starts)
        if start <= view.bar.range.until
    ]
    context = {
        "view": view,
        "bar": view.bar,
        "names": [value_words(view.group_by[0], name) for name in course.values],
        "rows": rows[::-1],
    }
    return render(request, "dashboard/explore/course.html", context)
