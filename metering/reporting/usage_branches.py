"""The rows that an answer adds up, as SQL: roll-ups, and events that these lack."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.db import connection
from django.utils import timezone

from metering.models import MEASURES, CostSource, Operation, Status
from metering.reporting.conditions import (
    Condition,
    event_value,
    join,
    on_events,
    on_rollup,
    rollup_value,
)
from metering.reporting.intervals import Bucket
from metering.reporting.question import UsageQuestion
from metering.reporting.sources import Stretch, stretches
from metering.rollups.sets import MEASURE_LIST, OTHER, DimensionSet
from metering.usage.batch_events import events_of_batches

EVENT_MEASURES: Final = {
    "cost_nanos": "coalesce(cost_nanos, 0)",
    "requests": f"(operation <> {Operation.TOOL.value})::int::bigint",
    "errors": f"(status = {Status.ERROR.value})::int::bigint",
    "unpriced": f"(cost_source = {CostSource.UNPRICED.value})::int::bigint",
    "tool_calls": f"(operation = {Operation.TOOL.value})::int::bigint",
}
EVENT_MEASURE_LIST: Final = ", ".join(
    f"{EVENT_MEASURES.get(name, name)} AS {name}" for name in MEASURES
)
_NEGATIVE_MEASURE_LIST: Final = ", ".join(
    f"-{EVENT_MEASURES.get(name, name)} AS {name}" for name in MEASURES
)


class Source(NamedTuple):
    """What a question is answered from: roll-ups (none: events), and batches they lack yet."""

    sets: list[DimensionSet]
    waiting: list[int]


def is_folded(
    database: Any,
    *,
    tenant_id: int,
    dimension_set: DimensionSet,
    starts_at: datetime,
    ends_at: datetime,
) -> bool:
    """Return whether a bucket of this time has a long tail, in which values cannot be found."""
    database.execute(
        """
        SELECT EXISTS (
            SELECT FROM generate_series(
                to_timestamp(floor(extract(epoch FROM %s::timestamptz) / %s) * %s),
                %s::timestamptz, make_interval(secs => %s)
            ) AS bucket JOIN usage_rollup r ON r.tenant_id = %s AND r.dimension_set = %s
                AND r.starts_at = bucket AND r.value_1 = %s
        )
        """,
        [
            starts_at,
            dimension_set.grain_seconds,
            dimension_set.grain_seconds,
            ends_at,
            dimension_set.grain_seconds,
            tenant_id,
            dimension_set.number,
            OTHER,
        ],
    )
    return bool(database.fetchone()[0])


def branches_of(
    question: UsageQuestion,
    source: Source,
    portion: Sequence[Bucket],
    *,
    group_by: tuple[str, ...],
) -> Condition:
    """Return the rows to add up, as `bucket` (from 1), `group_0` ... and the measures."""
    parts = stretches(portion, source.sets, now=timezone.now())
    if group_by and _has_long_tail(question, parts):
        # A value that is part of a long tail has no row that its events could be taken off.
        parts = stretches(portion, source.sets)
    selects = [_select(question, portion, part, group_by) for part in parts]
    for place in dict.fromkeys(part.place for part in parts):
        waiting = not_rolled_up([part for part in parts if part.place == place], source.waiting)
        if waiting is not None:
            bucket = _bucket_at(place, "time", portion)
            selects.append(_select_events(question, bucket, waiting, group_by))
    return join(" UNION ALL ", selects)


def _has_long_tail(question: UsageQuestion, parts: Sequence[Stretch]) -> bool:
    """Return whether events would be taken off a bucket that has a long tail."""
    less = [part for part in parts if part.source is not None and part.overlaps]
    with connection.cursor() as database:
        return any(
            is_folded(
                database,
                tenant_id=question.tenant_id,
                dimension_set=part.source,
                starts_at=part.starts_at,
                ends_at=part.starts_at,
            )
            for part in less
            if part.source is not None
        )


def _select(
    question: UsageQuestion,
    portion: Sequence[Bucket],
    stretch: Stretch,
    group_by: tuple[str, ...],
) -> Condition:
    if stretch.source is None:
        within = Condition("time >= %s AND time < %s", [stretch.starts_at, stretch.ends_at])
        bucket = _bucket_at(stretch.place, "time", portion)
        measures = _NEGATIVE_MEASURE_LIST if stretch.overlaps else EVENT_MEASURE_LIST
        return _select_events(question, bucket, within, group_by, measures)
    bucket = _bucket_at(stretch.place, "starts_at", portion)
    filters = on_rollup(question.filters, stretch.source)
    columns = [
        f"{bucket.sql} AS bucket",
        *(
            f"{rollup_value(name, stretch.source)} AS group_{place}"
            for place, name in enumerate(group_by)
        ),
        MEASURE_LIST,
    ]
    return Condition(
        f"SELECT {', '.join(columns)} FROM usage_rollup"
        f" WHERE tenant_id = %s AND dimension_set = %s AND starts_at >= %s AND starts_at < %s"
        f" AND {filters.sql}",
        [
            *bucket.parameters,
            question.tenant_id,
            stretch.source.number,
            stretch.starts_at,
            stretch.ends_at,
            *filters.parameters,
        ],
    )


def not_rolled_up(parts: Iterable[Stretch], waiting: Sequence[int]) -> Condition | None:
    """Return a condition for the events that the roll-ups of these stretches do not hold yet; None
    if there are none.
    """
    rolled_up = [part for part in parts if part.source is not None]
    if not rolled_up or not waiting:
        return None
    ranges = " OR ".join(["time >= %s AND time < %s"] * len(rolled_up))
    bounds = [bound for part in rolled_up for bound in (part.starts_at, part.ends_at)]
    batches, parameters = events_of_batches(waiting)
    return Condition(f"({ranges}) AND {batches}", [*bounds, *parameters])


def _select_events(
    question: UsageQuestion,
    bucket: Condition,
    within: Condition,
    group_by: tuple[str, ...],
    measures: str = EVENT_MEASURE_LIST,
) -> Condition:
    filters = on_events(question.filters)
    selected = [
        f"{bucket.sql} AS bucket",
        *(f"{event_value(name)} AS group_{place}" for place, name in enumerate(group_by)),
        measures,
    ]
    return Condition(
        f"SELECT {', '.join(selected)} FROM usage_event"
        f" WHERE tenant_id = %s AND NOT is_void AND {within.sql} AND {filters.sql}",
        [*bucket.parameters, question.tenant_id, *within.parameters, *filters.parameters],
    )


def _bucket_at(place: int | None, column: str, portion: Sequence[Bucket]) -> Condition:
    return bucket_of(column, portion) if place is None else Condition(f"{place}", [])


def bucket_of(column: str, portion: Sequence[Bucket]) -> Condition:
    """Return the SQL of the place of a time's bucket in the portion, from 1."""
    if len(portion) == 1:
        return Condition("1", [])
    return Condition(
        f"width_bucket({column}, %s::timestamptz[])", [[bucket.start for bucket in portion]]
    )
