"""Percentiles of latency, time to first token and cost per request, within 5%.

From histograms of UTC days where they lie inside a bucket, else from events; like `usage`, inside
one snapshot. Tool calls are no requests and do not count.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db import connection

from metering.models import Operation
from metering.reporting.conditions import NO_CONDITION, Condition, event_value, join, on_events
from metering.reporting.intervals import Bucket, buckets
from metering.reporting.question import InvalidQuestion, UsageQuestion
from metering.reporting.sources import Stretch, stretches
from metering.reporting.usage import UsageRow, waiting_batches
from metering.reporting.usage_branches import bucket_of, not_rolled_up
from metering.rollups.bins import (
    BIN_SQL,
    COST,
    LATENCY,
    MEASURE_COLUMNS,
    TIME_TO_FIRST_TOKEN,
    percentile,
)
from metering.rollups.sets import DAY_SECONDS, HISTOGRAM_DIMENSIONS, DimensionSet, find_set

PERCENTS: Final = (50, 95, 99)
# Binning events takes about a second for each day of a busy tenant.
EVENTS_READ_MAX: Final = timedelta(hours=49)
HISTOGRAM_LIST: Final = "measure, bin, count"
EVENT_BINS: Final = (
    "SELECT {head}, m.measure::smallint AS measure, "
    + BIN_SQL.format(value="m.value")
    + " AS bin, 1::bigint AS count FROM usage_event CROSS JOIN LATERAL (VALUES "
    + ", ".join(f"({measure}, {column})" for measure, column in MEASURE_COLUMNS.items())
    + ") AS m (measure, value) WHERE tenant_id = %s AND NOT is_void AND m.value IS NOT NULL"
    + f" AND operation <> {Operation.TOOL.value} AND {{condition}}"
)


class Percentiles(NamedTuple):
    """By percent: 50, 95 and 99. None where nothing was measured."""

    latency_ms: dict[int, int | None]
    time_to_first_token_ms: dict[int, int | None]
    cost_nanos: dict[int, int | None]


def percentiles_of(question: UsageQuestion, rows: Sequence[UsageRow]) -> list[Percentiles]:
    """Return the percentiles of each row of an answer to the question.

    Raises InvalidQuestion for groupings without histograms: these exist by UTC day, for the whole
    and for agent, feature and model by themselves, with no filter on another dimension.
    """
    dimension_set = histogram_set(question)
    if not rows:
        return []
    portion = _buckets_of(question, rows)
    with connection.cursor() as database:
        waiting = waiting_batches(database, question)
        branches = _branches(question, portion, dimension_set, rows, waiting)
        database.execute(
            "SELECT bucket, value, measure, bin, sum(count)::bigint"
            f" FROM ({branches.sql}) parts GROUP BY bucket, value, measure, bin",
            branches.parameters,
        )
        counts: dict[tuple[datetime, str, int], dict[int, int]] = defaultdict(dict)
        for bucket, value, measure, bin_number, count in database.fetchall():
            counts[portion[bucket - 1].start, value, measure][bin_number] = count
    return [_of_row(counts, row, question) for row in rows]


def histogram_set(question: UsageQuestion) -> DimensionSet:
    """Return the set with histograms that answers the question. Raises InvalidQuestion."""
    dimension_set = find_set(question.dimensions, grain_seconds=DAY_SECONDS)
    if dimension_set is None or dimension_set.dimensions not in HISTOGRAM_DIMENSIONS:
        raise InvalidQuestion(
            "percentiles_unavailable",
            "percentiles are known for the whole and for agent, feature or model alone.",
        )
    return dimension_set


def _buckets_of(question: UsageQuestion, rows: Sequence[UsageRow]) -> list[Bucket]:
    """Return the buckets from the first row's to the last one's."""
    first = max(question.starts_at, min(row.start for row in rows))
    last = max(row.start for row in rows)
    return [
        bucket
        for bucket in buckets(
            interval=question.interval,
            timezone=question.timezone,
            starts_at=first,
            ends_at=min(question.ends_at, last + timedelta(days=32))
            if question.interval != "none"
            else question.ends_at,
        )
        if bucket.start <= last
    ]


def _branches(
    question: UsageQuestion,
    portion: Sequence[Bucket],
    dimension_set: DimensionSet,
    rows: Sequence[UsageRow],
    waiting: list[int],
) -> Condition:
    values = _values(question, dimension_set, rows)
    parts = stretches(portion, [dimension_set])
    of_events = [part.ends_at - part.starts_at for part in parts if part.source is None]
    if sum(of_events, timedelta()) > EVENTS_READ_MAX:
        raise InvalidQuestion(
            "percentiles_unavailable",
            "percentiles are kept by UTC day: ask for days in UTC, or without interval.",
        )
    selects = [
        _select_histogram(question, portion, part, values)
        if part.source is not None
        else _select_events(
            question,
            portion,
            dimension_set,
            Condition("time >= %s AND time < %s", [part.starts_at, part.ends_at]),
        )
        for part in parts
    ]
    within = not_rolled_up(parts, waiting)
    if within is not None:
        selects.append(_select_events(question, portion, dimension_set, within))
    return join(" UNION ALL ", selects)


def _values(
    question: UsageQuestion, dimension_set: DimensionSet, rows: Sequence[UsageRow]
) -> list[str] | None:
    """Return the values to read; None for all. A filter by the same dimension names them."""
    if not dimension_set.dimensions:
        return None
    name = dimension_set.dimensions[0]
    if name in question.filters:
        return list(question.filters[name])
    return sorted({row.key[0] for row in rows})


def _select_histogram(
    question: UsageQuestion,
    portion: Sequence[Bucket],
    stretch: Stretch,
    values: list[str] | None,
) -> Condition:
    assert stretch.source is not None
    bucket = bucket_of("starts_at", portion)
    value = "value_1" if question.group_by else "''"
    named = NO_CONDITION if values is None else Condition("value_1 = ANY(%s)", [values])
    return Condition(
        f"SELECT {bucket.sql} AS bucket, {value} AS value, {HISTOGRAM_LIST}"
        " FROM usage_histogram WHERE tenant_id = %s AND dimension_set = %s"
        f" AND starts_at >= %s AND starts_at < %s AND {named.sql}",
        [
            *bucket.parameters,
            question.tenant_id,
            stretch.source.number,
            stretch.starts_at,
            stretch.ends_at,
            *named.parameters,
        ],
    )


def _select_events(
    question: UsageQuestion,
    portion: Sequence[Bucket],
    dimension_set: DimensionSet,
    within: Condition,
) -> Condition:
    bucket = bucket_of("time", portion)
    value = event_value(dimension_set.dimensions[0]) if question.group_by else "''"
    filters = on_events(question.filters)
    return Condition(
        EVENT_BINS.format(
            head=f"{bucket.sql} AS bucket, {value} AS value",
            condition=f"{within.sql} AND {filters.sql}",
        ),
        [*bucket.parameters, question.tenant_id, *within.parameters, *filters.parameters],
    )


def _of_row(
    counts: dict[tuple[datetime, str, int], dict[int, int]], row: UsageRow, question: UsageQuestion
) -> Percentiles:
    value = row.key[0] if question.group_by else ""

    def of(measure: int) -> dict[int, Any]:
        bins = counts.get((row.start, value, measure), {})
        return {percent: percentile(bins, percent) for percent in PERCENTS}

    return Percentiles(of(LATENCY), of(TIME_TO_FIRST_TOKEN), of(COST))
