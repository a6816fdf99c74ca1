"""Incidents as marks on the chart of spending."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from django.urls import reverse

from alerts.incident_lists import having_values, visible_to
from alerts.models import Incident
from dashboard.chart_notes import Mark
from dashboard.filter_bar import FilterBar
from dashboard.incidents.course import Stretch
from dashboard.incidents.filters import SEVERITIES
from dashboard.spend import local

# The newest of the period; more do not fit beside each other.
MARKED_MAX: Final = 200
_RANK: Final = {name: rank for rank, name in enumerate(SEVERITIES)}


def read_marks(tenant_id: int, bar: FilterBar, starts: Sequence[datetime]) -> list[Mark]:
    """One mark for each bucket in which incidents were opened, as severe as the worst of them."""
    span = bar.range
    rows = Incident.objects.filter(
        visible_to(bar.teams),
        having_values(bar.filters),
        tenant_id=tenant_id,
        opened_at__gte=span.starts_at,
        opened_at__lt=span.ends_at,
    ).order_by("-id")[:MARKED_MAX]
    ends = [*(start - timedelta(microseconds=1) for start in starts[1:]), span.until]
    places: dict[int, list[Incident]] = {}
    for row in rows:
        places.setdefault(_place(starts, row.opened_at), []).append(row)
    return [
        _mark(index, of_bucket, Stretch(starts[index], ends[index]), bar)
        for index, of_bucket in sorted(places.items())
    ]


def _place(starts: Sequence[datetime], at: datetime) -> int:
    return max(index for index, start in enumerate(starts) if start <= at)


def _mark(index: int, rows: Sequence[Incident], stretch: Stretch, bar: FilterBar) -> Mark:
    worst = min(rows, key=lambda row: _RANK[row.severity])
    if len(rows) == 1:
        link = reverse("dashboard:incident", args=[worst.id])
    else:
        days = (local(at, bar).date() for at in stretch)
        link = bar.with_days(*days).query(path=reverse("dashboard:incidents"))
    return Mark(
        bucket=index, severity=worst.severity, title=worst.title, number=len(rows), link=link
    )
