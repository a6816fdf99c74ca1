"""The figure of the explore page over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import accumulate
from typing import Final

from dashboard.charts import OTHERS, Amount, Buckets, Column, Figure, line, over_time, stacked_bars
from dashboard.colors import OTHER, PALETTE, SERIES_MAX, places_of
from dashboard.explore.exploration import Exploration
from dashboard.explore.metrics import Value
from dashboard.explore.ranking import read_ranking
from dashboard.filter_bar import TimeRange, parameter_of
from dashboard.findings import value_words
from dashboard.spend import bucket_starts, local, read_greatest, unfinished_bucket
from metering.reporting.report import usage_report

# Buckets times series: a month of hours of eight values.
POINTS_MAX: Final = 10_000
# Shares and percentiles are lines, which are hard to tell apart when there are many.
LINES_MAX: Final = 5
TOTAL: Final = "All"


@dataclass(frozen=True)
class Course:
    """A metric over time: of the greatest values, of everything, and of everything before."""

    starts: Sequence[datetime]
    unfinished: int | None
    values: Mapping[str, Sequence[Value]]
    totals: Sequence[Value]
    before: Sequence[Value] | None


def read_course(view: Exploration) -> Course:
    """Raises InvalidQuestion if the metric is not known by the first dimension."""
    span, name = view.bar.range, view.group_by[0]
    starts = bucket_starts(view.bar, span)
    most = SERIES_MAX if view.metric.is_additive else LINES_MAX
    alone = replace(view, bar=view.bar.with_comparison(False))
    ranked = [spender.value for spender in read_ranking(alone).ranked if not spender.is_tail][:most]
    values = _values(view, span, starts, name, ranked)
    before = None
    if view.bar.has_comparison:
        earlier = bucket_starts(view.bar, view.bar.previous)
        told = _values(view, view.bar.previous, earlier, None, [TOTAL])[TOTAL]
        # Months differ in length: what has no counterpart is left out.
        filler: list[Value] = [0 if view.metric.is_additive else None] * len(starts)
        before = [*told, *filler][: len(starts)] if any(told) else None
    return Course(
        starts,
        unfinished_bucket(starts, span),
        values,
        _values(view, span, starts, None, [TOTAL])[TOTAL],
        before,
    )


def _values(
    view: Exploration,
    span: TimeRange,
    starts: Sequence[datetime],
    dimension: str | None,
    names: Sequence[str],
) -> dict[str, list[Value]]:
    """The metric of each name in each bucket; without a dimension of everything."""
    nothing: Value = 0 if view.metric.is_additive else None
    values = {name: [nothing] * len(starts) for name in names}
    if not names:
        return values
    asked = view.question(
        span,
        group_by=(dimension,) if dimension else (),
        interval=view.bar.interval,
        only={dimension: tuple(names)} if dimension else None,
    )
    if asked is None:
        return values
    place_of = {start: index for index, start in enumerate(starts)}
    report = usage_report(asked, metrics=view.metric.asked, limit=POINTS_MAX)
    for row in report.rows:
        name = row.row.key[0] if dimension else names[0]
        values[name][place_of[row.row.start]] = view.metric.value(row.figures)
    return values


def time_figure(view: Exploration, course: Course) -> Figure:
    """Stacked bars of what adds up, lines of what does not or is added up over time."""
    starts = [local(start, view.bar) for start in course.starts]
    greatest = read_greatest(view.tenant_id, view.bar)
    places = places_of(greatest, list(course.values))
    colors = {name: PALETTE[number] for name, number in places.items()}
    if not view.metric.is_additive or view.is_cumulative:
        return _lines(view, course, starts, colors)
    columns = [
        Column(value_words(view.group_by[0], name), _whole(amounts), colors[name], name)
        for name, amounts in course.values.items()
    ]
    others = [
        total - sum(column.amounts[at] for column in columns)
        for at, total in enumerate(_whole(course.totals))
    ]
    if any(others):
        columns.append(Column(OTHERS, others, OTHER))
    return stacked_bars(
        columns,
        Buckets(starts, view.bar.interval, course.unfinished),
        unit=view.metric.unit,
        before=_whole(course.before) if course.before else None,
        parameter=parameter_of(view.group_by[0]),
    )


def _whole(values: Sequence[Value]) -> list[int]:
    """Amounts of what is counted, which are whole."""
    return [int(value or 0) for value in values]


def _lines(
    view: Exploration, course: Course, starts: Sequence[datetime], colors: Mapping[str, str]
) -> Figure:
    places = [start.replace(tzinfo=None).isoformat() for start in starts]
    is_summed = view.is_cumulative and view.metric.is_additive
    end = course.unfinished + 1 if course.unfinished is not None else len(starts)

    def points(values: Sequence[Value], until: int) -> list[Amount | None]:
        shown = list(accumulate(_whole(values))) if is_summed else values
        return [
            None if value is None or at >= until else _amount(value)
            for at, value in enumerate(shown)
        ]

    unit = view.metric.unit
    traces = []
    if course.before:
        before = points(course.before, len(starts))
        traces.append(
            line("Previous period", before, places, unit=unit, color=OTHER, dash="dot")
            | {"meta": {}}
        )
    traces += [
        line(
            value_words(view.group_by[0], name),
            points(values, end),
            places,
            unit=unit,
            color=colors[name],
        )
        for name, values in course.values.items()
    ]
    if len(course.values) != 1:
        whole = points(course.totals, end)
        traces.append(line(TOTAL, whole, places, unit=unit, color="var(--text)"))
    return over_time(traces, starts=starts, interval=view.bar.interval, unit=unit)


def _amount(value: Value) -> Amount:
    return float(value) if isinstance(value, Decimal) else int(value or 0)
