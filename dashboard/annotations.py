"""What happened, as flags on time charts."""

from collections.abc import Sequence
from datetime import datetime

from django.urls import reverse

from dashboard.chart_notes import ChartNote
from dashboard.filter_bar import FilterBar
from dashboard.spend import local
from metering.reporting.annotations import TimeNote, annotations


def read_annotations(tenant_id: int, bar: FilterBar) -> list[TimeNote]:
    """What concerns the usage that the bar shows, oldest first."""
    span = bar.range
    return annotations(
        tenant_id=tenant_id,
        starts_at=span.starts_at,
        ends_at=span.ends_at,
        filters={name: tuple(values) for name, values in bar.filters.items()},
        teams=bar.teams,
    )


def read_chart_notes(tenant_id: int, bar: FilterBar, starts: Sequence[datetime]) -> list[ChartNote]:
    """One flag for each bucket (by its start) of a chart in which something happened."""
    texts: dict[int, list[str]] = {}
    for note in read_annotations(tenant_id, bar):
        passed = [index for index, start in enumerate(starts) if start <= note.at]
        if passed:
            texts.setdefault(passed[-1], []).append(note.text)
    return [
        ChartNote(index, of_bucket, _link(bar, starts, index))
        for index, of_bucket in sorted(texts.items())
    ]


def _link(bar: FilterBar, starts: Sequence[datetime], index: int) -> str:
    """The list of the days of one bucket."""
    first = local(starts[index], bar).date()
    end = starts[index + 1] if index + 1 < len(starts) else bar.range.ends_at
    last = max(first, local(end - datetime.resolution, bar).date())
    return bar.with_further({}).with_days(first, last).query(path=reverse("dashboard:annotations"))
