"""What needs attention, what is being handled, and what was resolved recently."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from django.db.models import Case, CharField, Count, Q, QuerySet, Value, When
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from alerts.incident_lists import having_status
from alerts.models import Channel, Incident, IncidentKind, Severity
from dashboard.access import PageRequest, member_page
from dashboard.curl_lines import curl_context
from dashboard.filter_bar import Choice
from dashboard.findings import incidents_headline
from dashboard.frame import frame
from dashboard.incidents.filters import (
    KINDS,
    SEVERITIES,
    STATUSES,
    Filter,
    incidents_of,
    read_filter,
)
from dashboard.incidents.lines import SNOOZES, URGENT_FIRST, IncidentLine, lines_of
from dashboard.paging import newest_before, number_of
from tenants.roles import Scope

# More than this no one looks at in one sitting; the worst are shown.
SHOWN_MAX: Final = 100
INFO_SHOWN_MAX: Final = 5
RESOLVED_PER_PAGE: Final = 25
# What each kind of incident watches, for those who have seen none yet.
WATCHED: Final = (
    (
        KINDS[IncidentKind.CROSSING],
        "a budget reaches one of its levels; budgets and levels are yours to set",
    ),
    (
        KINDS[IncidentKind.ANOMALY],
        "cost, tokens, requests, cost per request, errors or cache reads of a team, agent, feature,"
        " customer or model differ from what their history predicts",
    ),
    (
        KINDS[IncidentKind.RULE],
        "a fixed threshold is exceeded: one expensive request, a steep quarter of an hour,"
        " a month that would end above its budget",
    ),
    (
        KINDS[IncidentKind.LOOP],
        "a session repeats the same calls, or continues without progress",
    ),
    (KINDS[IncidentKind.BREAKER], "a breaker opens and halts an agent"),
    (
        KINDS[IncidentKind.RECONCILIATION],
        "a provider's bill, a final statement or an invoice differs from usage",
    ),
)


class Section(NamedTuple):
    """Unresolved incidents that want the same of people, the worst first."""

    name: str
    words: str
    lines: list[IncidentLine]
    # Shows the rest, where there are more; empty where these are all.
    more: str


# Status, kind and severity, and how many incidents there are of them.
Counts = Mapping[tuple[str, str, str], int]


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """Show the incidents: open ones first, then those being handled, then resolved ones."""
    chosen = read_filter(request)
    rows = incidents_of(request.tenant.id, chosen.bar)
    counts = _counts(rows, chosen.bar.now)
    unresolved = _sections(chosen, rows)
    context = frame(request, chosen.bar.with_further(chosen.further), page="incidents") | {
        "headline": _headline(counts, chosen, unresolved),
        "sections": unresolved,
        "shown_max": SHOWN_MAX,
        "snoozes": SNOOZES,
        "statuses": _choices(chosen, counts, 0, "status", {"": "All", **STATUSES}),
        "kinds": _choices(chosen, counts, 1, "kind", {"": "Any kind", **KINDS}),
        "severities": _choices(chosen, counts, 2, "severity", {"": "Any severity", **SEVERITIES}),
        "is_narrow": chosen.is_narrow,
        "cleared": chosen.bar.without_chips().with_further({}).query(),
        "month": chosen.query(bar=chosen.bar.with_period("30d")),
    }
    context |= _resolved(request, chosen, rows)
    if not chosen.is_narrow and not counts:
        has_channels = Channel.objects.filter(tenant=request.tenant, removed_at=None).exists()
        context |= {"watched": WATCHED, "has_channels": has_channels}
        context |= curl_context(request, Scope.MANAGE)
    return render(request, "dashboard/incidents/incidents.html", context)


def _counts(rows: QuerySet[Incident], now: datetime) -> Counts:
    status = Case(
        *(When(having_status(name, now), then=Value(name)) for name in STATUSES),
        output_field=CharField(),
    )
    grouped = (
        rows.annotate(status_now=status)
        .values("status_now", "kind", "severity")
        .annotate(number=Count("id"))
    )
    return {(row["status_now"], row["kind"], row["severity"]): row["number"] for row in grouped}


def _totals(counts: Counts, index: int, chosen: Filter) -> Counter[str]:
    """Sums by status, kind or severity (`place`), of those that the other two filters let pass."""
    wanted = (chosen.status, chosen.kind, chosen.severity)
    totals: Counter[str] = Counter()
    for key, count in counts.items():
        others = (at for at in range(len(key)) if at != index)
        if all(wanted[at] in {"", key[at]} for at in others):
            totals[key[index]] += count
    return totals


def _choices(
    chosen: Filter, counts: Counts, index: int, name: str, words: Mapping[str, str]
) -> list[Choice]:
    totals = _totals(counts, index, chosen)
    return [
        Choice(
            chosen.query(**{name: value}),
            text,
            totals[value] if value else totals.total(),
            value == getattr(chosen, name),
        )
        for value, text in words.items()
    ]


def _narrowed(chosen: Filter, rows: QuerySet[Incident]) -> QuerySet[Incident]:
    return rows.filter(
        **{name: value for name, value in chosen.further.items() if name != "status"}
    )


def _sections(chosen: Filter, rows: QuerySet[Incident]) -> list[Section]:
    """Return the unresolved incidents by section: need attention, informational, being handled."""
    now = chosen.bar.now
    is_info = Q(severity=Severity.INFO)
    wanted = [
        ("open", "Needs attention", ~is_info, SHOWN_MAX),
        ("open", "For your information", is_info, SHOWN_MAX if chosen.severity else INFO_SHOWN_MAX),
        ("acknowledged", STATUSES["acknowledged"], Q(), SHOWN_MAX),
        ("snoozed", STATUSES["snoozed"], Q(), SHOWN_MAX),
    ]
    sections = []
    for status, words, condition, limit in wanted:
        if chosen.status not in {"", status}:
            continue
        incidents = _narrowed(chosen, rows).filter(having_status(status, now), condition)
        shown = list(incidents.order_by(*URGENT_FIRST)[: limit + 1])
        is_cut = limit == INFO_SHOWN_MAX and len(shown) > limit
        more = chosen.query(status="open", severity=Severity.INFO.value) if is_cut else ""
        name = words.partition(" ")[0].lower()
        sections.append(Section(name, words, lines_of(shown[:limit]), more))
    return [section for section in sections if section.lines]


def _resolved(request: PageRequest, chosen: Filter, rows: QuerySet[Incident]) -> dict[str, object]:
    """Incidents of the period that are over, the newest first, by pages."""
    if chosen.status not in {"", "resolved"}:
        return {"resolved": [], "older": None, "newest": None}
    is_over = having_status("resolved", chosen.bar.now)
    before = number_of(request.GET.get("before", ""))
    incidents = newest_before(
        _narrowed(chosen, rows).filter(is_over), before, limit=RESOLVED_PER_PAGE
    )
    older = {**chosen.further, "before": str(incidents.older)}
    return {
        "resolved": lines_of(incidents.rows),
        "older": chosen.bar.with_further(older).query() if incidents.older else None,
        "newest": chosen.query() if before else None,
    }


def _headline(counts: Counts, chosen: Filter, sections: list[Section]) -> str:
    totals = _totals(counts, 0, chosen)
    info = sum(
        number
        for (status, kind, severity), number in counts.items()
        if (status, severity) == ("open", Severity.INFO) and chosen.kind in {"", kind}
    )
    worst = next(
        (section.lines[0].row.title for section in sections if section.name == "needs"), ""
    )
    return incidents_headline(
        open_count=totals["open"] - (info if chosen.severity in {"", Severity.INFO} else 0),
        worst=worst,
        looked_at=totals["acknowledged"] + totals["snoozed"],
    )
