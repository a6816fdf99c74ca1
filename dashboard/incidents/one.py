"""One incident: what was seen, whose it was, what happened since, and what can be done."""

from dataclasses import replace
from datetime import timedelta
from typing import Final, NamedTuple
from urllib.parse import urlencode

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from alerts.models import Anomaly, Incident, IncidentKind
from dashboard.access import PageRequest, cached_page, member_page
from dashboard.filter_bar import CHIPS_MAX, CUSTOM_DAYS_MAX, FilterBar
from dashboard.findings import shortened
from dashboard.frame import filter_bar_of, frame
from dashboard.incidents.actions import TEXT_CHARACTERS_MAX, find, members_of
from dashboard.incidents.chart import incident_figure
from dashboard.incidents.course import MEASURES, Course, Stretch, cause_of, filters_of, read_course
from dashboard.incidents.figures import figures_of, findings_of
from dashboard.incidents.lines import SNOOZES, IncidentLine
from dashboard.incidents.spenders import read_spenders
from dashboard.incidents.timeline import timeline_of
from dashboard.spend import local
from metering.core.match import wanted_values

# An incident of more series than this is described by those that were seen first.
ANOMALIES_MAX: Final = 50


class AnomalyLine(NamedTuple):
    """What was not as expected, in words."""

    row: Anomaly
    measure: str
    actual: str
    expected: str


@require_safe
@member_page
def page(request: PageRequest, incident_id: int) -> HttpResponse:
    """What happened, who looks at it, and what can I do?"""
    incident = find(request, incident_id)
    bar = filter_bar_of(request)
    anomalies = _anomalies(incident, bar)
    context = frame(request, bar, page="incidents") | {
        "headline": incident.title,
        "line": IncidentLine(incident, incident.status),
        "figures": figures_of(incident.facts),
        "findings": findings_of(incident.facts),
        "anomalies": [_anomaly_line(anomaly) for anomaly in anomalies],
        "timeline": timeline_of(incident),
        "snoozes": SNOOZES,
        "members": members_of(request),
        "links": _links(incident, cause_of(incident, anomalies, bar.now), bar),
        "text_characters_max": TEXT_CHARACTERS_MAX,
    }
    return render(request, "dashboard/incidents/incident.html", context)


@require_safe
@cached_page
def chart(request: PageRequest, incident_id: int) -> HttpResponse:
    """The figure of an incident."""
    bar = filter_bar_of(request)
    course = _course(request, incident_id, bar)
    starts = [local(start, bar) for start in course.starts]
    cause = Stretch(*(local(at, bar) for at in course.cause))
    return JsonResponse(incident_figure(course, starts=starts, cause=cause))


@require_safe
@cached_page
def table(request: PageRequest, incident_id: int) -> HttpResponse:
    """The numbers behind the chart."""
    bar = filter_bar_of(request)
    course = _course(request, incident_id, bar)
    before = course.before or [None] * len(course.starts)
    rows = [
        (local(start, bar), _texts(course, actual), _texts(course, earlier))
        for start, actual, earlier in zip(course.starts, course.actual, before, strict=True)
    ]
    context = {"bar": bar, "course": course, "rows": rows}
    return render(request, "dashboard/incidents/course_table.html", context)


@require_safe
@cached_page
def spenders(request: PageRequest, incident_id: int) -> HttpResponse:
    """Top spenders."""
    incident = find(request, incident_id)
    bar = filter_bar_of(request)
    cause = cause_of(incident, _anomalies(incident, bar), bar.now)
    context = {
        "spenders": read_spenders(incident, cause),
        "around": _around(incident, cause, bar),
        "cause": cause,
    }
    return render(request, "dashboard/incidents/spenders.html", context)


def _anomalies(incident: Incident, bar: FilterBar) -> list[Anomaly]:
    """What was unusual. A series that other teams spend on as well is left out for a person who may
    not see their money: that an incident is about one team does not make all of its series so.
    """
    rows = incident.anomalies.order_by("id")
    if bar.teams is not None:
        rows = rows.filter(dimension="team", value__in=bar.teams)
    return list(rows[:ANOMALIES_MAX])


def _course(request: PageRequest, incident_id: int, bar: FilterBar) -> Course:
    incident = find(request, incident_id)
    return read_course(incident, _anomalies(incident, bar), zone=bar.zone, now=bar.now)


def _texts(course: Course, amount: int | float | None) -> tuple[str, str]:
    return course.measure.text(amount), course.measure.exact(amount)


def _anomaly_line(row: Anomaly) -> AnomalyLine:
    measure = MEASURES[row.measure]
    return AnomalyLine(row, measure.words, measure.text(row.actual), measure.text(row.expected))


def _around(incident: Incident, cause: Stretch, bar: FilterBar) -> FilterBar:
    """The filter bar that shows the usage an incident is about, on the days on which it was."""
    last = local(cause.ends_at, bar).date()
    first = max(local(cause.starts_at, bar).date(), last - timedelta(days=CUSTOM_DAYS_MAX - 1))
    chips = tuple(
        (name, value) for name, values in filters_of(incident.match).items() for value in values
    )
    return replace(bar.with_days(first, last), chips=chips[:CHIPS_MAX])


def _links(incident: Incident, cause: Stretch, bar: FilterBar) -> list[tuple[str, str]]:
    """Where the next question is answered, as (words, address)."""
    around = _around(incident, cause, bar)
    links = [("Open in overview", around.query(path=reverse("dashboard:overview")))]
    sessions = wanted_values(incident.match["session"]) if "session" in incident.match else ()
    for session in sorted(filter(None, sessions))[:1]:
        links.insert(0, ("Open session", reverse("dashboard:session", args=[session])))
    agents = around.filters.get("agent", [])
    if len(agents) == 1 and agents[0]:
        decisions = around.with_only("agent", agents[0]).query(path=reverse("dashboard:decisions"))
        links.append((f"Decisions about agent “{shortened(agents[0])}”", decisions))
    if incident.kind == IncidentKind.CROSSING:
        links.append(("Budgets", reverse("dashboard:budgets")))
    if incident.kind in (IncidentKind.BREAKER, IncidentKind.LOOP):
        links.append(("Halts and open breakers", reverse("dashboard:halts")))
    run = incident.facts.get("reconciliation_id")
    if incident.kind == IncidentKind.RECONCILIATION and run and bar.teams is None:
        asked = urlencode({"run": run, "kind": incident.facts.get("compared", "")})
        links.insert(0, ("What differs", f"{reverse('dashboard:reconciliation')}?{asked}"))
    return links
