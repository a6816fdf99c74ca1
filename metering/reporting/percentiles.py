"""Percentiles of latency, time to first token and cost per request, within 5%.

From histograms of UTC days where they lie inside a bucket, else from events; like `usage`, inside
one snapshot. Tool calls are no requests and do not count.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from django.utils import timezone

from metering.models import Operation
from metering.reporting.bounded import fetch_in_time, require_few_events
from metering.reporting.intervals import Bucket
from metering.reporting.question import InvalidQuestion, UsageQuestion
from metering.reporting.sources import stretches
from metering.reporting.usage import (
    Cell,
    Keys,
    UsageRow,
    filters_of,
    portion_of,
    waiting_batches,
)
from metering.reporting.usage_branches import Source, Table, rows_to_add
from metering.rollups.bins import (
    BIN_SQL,
    COST,
    LATENCY,
    MEASURE_COLUMNS,
    TIME_TO_FIRST_TOKEN,
    percentile,
)
from metering.rollups.sets import DAY_SECONDS, HISTOGRAM_DIMENSIONS, DimensionSet, find_set

_NAMES: Final = [name for dimensions in HISTOGRAM_DIMENSIONS for name in dimensions]
PERCENTS: Final = (50, 95, 99)
# Binning events takes about a second for each day of a busy tenant.
EVENTS_READ_MAX: Final = timedelta(hours=49)
EVERY_MEASURE: Final = frozenset(MEASURE_COLUMNS)


def _table(measures: Collection[int]) -> Table:
    """Return what is added up for some measures. Of a value on a bin's edge the events that are
    taken off may be in another bin than in the histogram: it moves by no more than a bin.
    """
    wanted = ", ".join(f"({measure}, {MEASURE_COLUMNS[measure]})" for measure in sorted(measures))
    columns = f"m.measure::smallint AS measure, {BIN_SQL.format(value='m.value')} AS bin,"
    return Table(
        rollups="usage_histogram",
        columns="measure, bin, count",
        rollup_condition=f"measure IN ({', '.join(map(str, sorted(measures)))})",
        events=f"usage_event CROSS JOIN LATERAL (VALUES {wanted}) AS m (measure, value)",
        event_columns=f"{columns} 1::bigint AS count",
        event_condition="NOT is_void AND m.value IS NOT NULL"
        f" AND operation <> {Operation.TOOL.value}",
        negative_columns=f"{columns} -1::bigint AS count",
    )


class Percentiles(NamedTuple):
    """By percent: 50, 95 and 99. None where nothing was measured."""

    latency_ms: dict[int, int | None]
    time_to_first_token_ms: dict[int, int | None]
    cost_nanos: dict[int, int | None]


def percentiles_of(question: UsageQuestion, rows: Sequence[UsageRow]) -> list[Percentiles]:
    """Return the percentiles of each row of an answer to the question.

    Raises InvalidQuestion for groupings without histograms: these exist by UTC day, for the whole
    and for single dimensions, with no filter on another one.
    """
    dimension_set = _histograms_of(question.dimensions)
    if dimension_set is None:
        raise InvalidQuestion(
            "percentiles_unavailable",
            f"percentiles are known for the whole and for one of {', '.join(_NAMES)} alone.",
        )
    if not rows:
        return []
    portion = portion_of(question, rows)
    _require_days(portion, dimension_set)
    percentiles = percentiles_in(question, portion, question.group_by, {row.key for row in rows})
    number_of = {bucket.start: number for number, bucket in enumerate(portion, 1)}
    nothing = dict.fromkeys(PERCENTS)
    return [
        percentiles.get((number_of[row.start], row.key), Percentiles(nothing, nothing, nothing))
        for row in rows
    ]


def percentiles_in(
    question: UsageQuestion,
    portion: Sequence[Bucket],
    group_by: tuple[str, ...],
    keys: Keys,
    *,
    measures: Collection[int] = EVERY_MEASURE,
) -> dict[Cell, Percentiles]:
    """Return the percentiles of these groups in these buckets, of some measures: from histograms
    where there are any, else from events. Raises TooMuchToRead.
    """
    dimension_set = _histograms_of(frozenset(group_by) | frozenset(question.filters))
    sets = [dimension_set] if dimension_set is not None else []
    parts_read = stretches(portion, sets, now=timezone.now())
    of_events = [part for part in parts_read if part.source is None]
    what = "Percentiles"
    require_few_events(question, [(part.starts_at, part.ends_at) for part in of_events], what=what)
    parts = rows_to_add(
        question,
        Source(sets, waiting_batches(question.tenant_id)),
        portion,
        group_by=group_by,
        table=_table(measures),
        filters=filters_of(question, group_by, keys),
    )
    groups = [f"group_{index}" for index in range(len(group_by))]
    columns = ", ".join(["bucket", *groups, "measure", "bin"])
    counts: dict[Cell, dict[int, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    for bucket, *key, measure, bin_number, count in fetch_in_time(
        f"SELECT {columns}, sum(count)::bigint FROM ({parts.sql}) parts GROUP BY {columns}",
        parts.parameters,
        what=what,
    ):
        counts[bucket, tuple(key)][measure][bin_number] = count
    return {
        cell: Percentiles(
            *(
                {percent: percentile(bins.get(measure, {}), percent) for percent in PERCENTS}
                for measure in (LATENCY, TIME_TO_FIRST_TOKEN, COST)
            )
        )
        for cell, bins in counts.items()
    }


def _histograms_of(dimensions: frozenset[str]) -> DimensionSet | None:
    days = find_set(dimensions, grain_seconds=DAY_SECONDS)
    return days if days is not None and days.dimensions in HISTOGRAM_DIMENSIONS else None


def _require_days(portion: Sequence[Bucket], dimension_set: DimensionSet) -> None:
    parts = stretches(portion, [dimension_set])
    of_events = [part.ends_at - part.starts_at for part in parts if part.source is None]
    if sum(of_events, timedelta()) > EVENTS_READ_MAX:
        raise InvalidQuestion(
            "percentiles_unavailable",
            "percentiles are kept by UTC day: ask for days in UTC, or without interval.",
        )
