"""Percentiles of latency, time to first token and cost per request, within 5%.

From histograms of UTC days where they lie inside a bucket, else from events; like `usage`, inside
one snapshot. Tool calls are no requests and do not count.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final, NamedTuple

from common.queries import fetch_rows
from metering.models import Operation
from metering.reporting.intervals import Bucket
from metering.reporting.question import Filters, InvalidQuestion, UsageQuestion
from metering.reporting.sources import stretches
from metering.reporting.usage import UsageRow, waiting_batches
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

PERCENTS: Final = (50, 95, 99)
# Binning events takes about a second for each day of a busy tenant.
EVENTS_READ_MAX: Final = timedelta(hours=49)
HISTOGRAMS: Final = Table(
    rollups="usage_histogram",
    columns="measure, bin, count",
    events="usage_event CROSS JOIN LATERAL (VALUES "
    + ", ".join(f"({measure}, {column})" for measure, column in MEASURE_COLUMNS.items())
    + ") AS m (measure, value)",
    event_columns=f"m.measure::smallint AS measure, {BIN_SQL.format(value='m.value')} AS bin,"
    " 1::bigint AS count",
    event_condition=f"NOT is_void AND m.value IS NOT NULL AND operation <> {Operation.TOOL.value}",
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
    dimension_set = find_set(question.dimensions, grain_seconds=DAY_SECONDS)
    if dimension_set is None or dimension_set.dimensions not in HISTOGRAM_DIMENSIONS:
        raise InvalidQuestion(
            "percentiles_unavailable",
            "percentiles are known for the whole and for agent, feature or model alone.",
        )
    if not rows:
        return []
    first, last = min(row.start for row in rows), max(row.start for row in rows)
    buckets = question.buckets(starts_at=max(question.starts_at, first))
    portion = list(takewhile(lambda bucket: bucket.start <= last, buckets))
    _require_days(portion, dimension_set)
    parts = rows_to_add(
        question,
        Source([dimension_set], waiting_batches(question)),
        portion,
        group_by=question.group_by,
        table=HISTOGRAMS,
        filters=_filters(question, rows),
    )
    value = "group_0" if question.group_by else "''"
    counts: dict[tuple[datetime, str, int], dict[int, int]] = defaultdict(dict)
    for bucket, group, measure, bin_number, count in fetch_rows(
        f"SELECT bucket, {value} AS value, measure, bin, sum(count)::bigint"
        f" FROM ({parts.sql}) parts GROUP BY bucket, value, measure, bin",
        parts.parameters,
    ):
        counts[portion[bucket - 1].start, group, measure][bin_number] = count

    def percentiles(row: UsageRow, measure: int) -> dict[int, int | None]:
        bins = counts.get((row.start, row.key[0] if row.key else "", measure), {})
        return {percent: percentile(bins, percent) for percent in PERCENTS}

    measures = LATENCY, TIME_TO_FIRST_TOKEN, COST
    return [Percentiles(*(percentiles(row, measure) for measure in measures)) for row in rows]


def _require_days(portion: Sequence[Bucket], dimension_set: DimensionSet) -> None:
    parts = stretches(portion, [dimension_set])
    of_events = [part.ends_at - part.starts_at for part in parts if part.source is None]
    if sum(of_events, timedelta()) > EVENTS_READ_MAX:
        raise InvalidQuestion(
            "percentiles_unavailable",
            "percentiles are kept by UTC day: ask for days in UTC, or without interval.",
        )


def _filters(question: UsageQuestion, rows: Sequence[UsageRow]) -> Filters:
    """Return the question's filters, which leave nothing but the values of the rows to read."""
    values = {name: tuple(sorted({row.key[0] for row in rows})) for name in question.group_by}
    return {**values, **question.filters}
