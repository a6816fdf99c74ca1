"""The rows that an answer adds up, as SQL: roll-ups, and events that these lack."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from django.utils import timezone

from common.queries import fetch_row
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
from metering.reporting.question import Filters, UsageQuestion
from metering.reporting.sources import Stretch, stretches
from metering.rollups.sets import MEASURE_LIST, OTHER, DimensionSet
from metering.usage.batch_events import events_of_batches
from tenants.scope import once_a_snapshot

EVENT_MEASURES: Final = {
    "cost_nanos": "coalesce(cost_nanos, 0)",
    "requests": f"(operation <> {Operation.TOOL.value})::int::bigint",
    "errors": f"(status = {Status.ERROR.value})::int::bigint",
    "unpriced": f"(cost_source = {CostSource.UNPRICED.value})::int::bigint",
    "tool_calls": f"(operation = {Operation.TOOL.value})::int::bigint",
    "given_nanos": f"CASE WHEN cost_source = {CostSource.GIVEN.value} THEN coalesce(cost_nanos, 0)"
    " ELSE 0 END",
}
EVENT_MEASURE_LIST: Final = ", ".join(
    f"{EVENT_MEASURES.get(name, name)} AS {name}" for name in MEASURES
)


# Events are added up by themselves before they join sums: theirs are whole numbers of 64 bits,
# which take a fraction of the time that `numeric` does.
_COUNTS: Final = frozenset({"requests", "errors", "unpriced", "tool_calls"})
EVENT_SUM_LIST: Final = ", ".join(
    f"sum({name}){'::bigint' if name in _COUNTS else ''} AS {name}" for name in MEASURES
)


class WaitingBatch(NamedTuple):
    """A batch that no roll-up holds yet, with the times of its first and last event; None: not
    known.
    """

    id: int
    first_at: datetime | None
    last_at: datetime | None


class Source(NamedTuple):
    """What a question is answered from: roll-ups (none: events), and batches they lack yet, in
    order of id.
    """

    sets: Sequence[DimensionSet]
    waiting: Sequence[WaitingBatch]


class Table(NamedTuple):
    """What is added up: the columns of a table of roll-ups, and the same made of events. Events are
    taken off a roll-up by their `negative_columns`, if there are any. `event_sums` adds events up
    that are of one bucket and group.
    """

    rollups: str
    columns: str
    events: str
    event_columns: str
    event_condition: str = "NOT is_void"
    negative_columns: str | None = None
    event_sums: str | None = None
    rollup_condition: str = "true"


SUMS: Final = Table(
    rollups="usage_rollup",
    columns=MEASURE_LIST,
    events="usage_event",
    event_columns=EVENT_MEASURE_LIST,
    negative_columns=", ".join(f"-{EVENT_MEASURES.get(name, name)} AS {name}" for name in MEASURES),
    event_sums=EVENT_SUM_LIST,
)


def hides_values(question: UsageQuestion, sets: Iterable[DimensionSet]) -> bool:
    """Whether a value that is asked for by name may be part of the long tail, where it cannot be
    found.
    """
    range_ = question.starts_at, question.ends_at
    return bool(question.filters) and any(
        is_folded(question.tenant_id, dimension_set, *range_) for dimension_set in sets
    )


@once_a_snapshot
def is_folded(
    tenant_id: int, dimension_set: DimensionSet, starts_at: datetime, ends_at: datetime
) -> bool:
    """Whether a bucket of this time has a long tail."""
    (is_folded,) = fetch_row(
        """
        SELECT EXISTS (
            SELECT FROM usage_rollup
            WHERE tenant_id = %(tenant)s AND dimension_set = %(set)s AND value_1 = %(other)s
                AND starts_at >= to_timestamp(
                    floor(extract(epoch FROM %(from)s::timestamptz) / %(grain)s) * %(grain)s
                ) AND starts_at <= %(to)s::timestamptz
        )
        """,
        {
            "from": starts_at,
            "to": ends_at,
            "grain": dimension_set.grain_seconds,
            "tenant": tenant_id,
            "set": dimension_set.number,
            "other": OTHER,
        },
    )
    return bool(is_folded)


def rows_to_add(
    question: UsageQuestion,
    source: Source,
    portion: Sequence[Bucket],
    *,
    group_by: tuple[str, ...],
    table: Table = SUMS,
    filters: Filters | None = None,
) -> Condition:
    """Return the rows to add up, as `bucket` (from 1), `group_0` ... and the table's columns.
    `filters`, unless they are the question's own, name values as well.
    """
    filters = question.filters if filters is None else filters
    parts = stretches(portion, source.sets)
    if table.negative_columns is not None:
        parts = _with_overlaps(question, source, portion, has_groups=bool(group_by)) or parts

    def select_events(within: Condition, bucket: int | None, columns: str) -> Condition:
        number, wanted = _bucket_of("time", portion, bucket), on_events(filters)
        events = (
            f"SELECT {_columns(number, map(event_value, group_by), columns)} FROM {table.events}"
            f" WHERE tenant_id = %s AND {table.event_condition} AND {within.sql} AND {wanted.sql}"
        )
        parameters = [question.tenant_id, *within.parameters, *wanted.parameters]
        return Condition(_added_up(events, table, len(group_by)), [*number.parameters, *parameters])

    def select(part: Stretch) -> Condition:
        bounds = [part.starts_at, part.ends_at]
        if part.source is None:
            within = Condition("time >= %s AND time < %s", bounds)
            columns = table.negative_columns if part.overlaps else table.event_columns
            return select_events(within, part.bucket, columns or table.event_columns)
        number = _bucket_of("starts_at", portion, part.bucket)
        wanted = on_rollup(filters, part.source)
        names = [rollup_value(name, part.source) for name in group_by]
        parameters = [question.tenant_id, part.source.number, *bounds, *wanted.parameters]
        return Condition(
            f"SELECT {_columns(number, names, table.columns)} FROM {table.rollups} WHERE"
            " tenant_id = %s AND dimension_set = %s AND starts_at >= %s AND starts_at < %s"
            f" AND {table.rollup_condition} AND {wanted.sql}",
            [*number.parameters, *parameters],
        )

    selects = [select(part) for part in parts]
    for bucket in dict.fromkeys(part.bucket for part in parts):
        of_bucket = [part for part in parts if part.bucket == bucket]
        waiting = _not_rolled_up(of_bucket, source.waiting)
        if waiting is not None:
            selects.append(select_events(waiting, bucket, table.event_columns))
    return join(" UNION ALL ", selects)


def _added_up(events: str, table: Table, groups: int) -> str:
    """Return events as one row of each bucket and group, for a table that adds them up."""
    if table.event_sums is None:
        return events
    key = ", ".join(["bucket", *(f"group_{index}" for index in range(groups))])
    return f"SELECT {key}, {table.event_sums} FROM ({events}) events GROUP BY {key}"


def _with_overlaps(
    question: UsageQuestion, source: Source, portion: Sequence[Bucket], *, has_groups: bool
) -> list[Stretch] | None:
    """Return how the portion is covered with fewer events; None where a value that is part of a
    long tail has no row that its events could be taken off.
    """
    parts = stretches(portion, source.sets, now=timezone.now())
    hides_some = has_groups and any(
        part.overlaps
        and part.source is not None
        and is_folded(question.tenant_id, part.source, part.starts_at, part.starts_at)
        for part in parts
    )
    return None if hides_some else parts


def batches_within(
    waiting: Iterable[WaitingBatch], starts_at: datetime, ends_at: datetime
) -> list[int]:
    """Return the batches that may have events of this time: what comes in now says nothing of the
    weeks before.
    """
    return [
        batch.id
        for batch in waiting
        if (batch.first_at is None or batch.first_at < ends_at)
        and (batch.last_at is None or batch.last_at >= starts_at)
    ]


def _not_rolled_up(parts: Iterable[Stretch], waiting: Sequence[WaitingBatch]) -> Condition | None:
    """Return a condition for the events that the roll-ups of these stretches do not hold yet; None
    if there are none.
    """
    rolled_up = [part for part in parts if part.source is not None]
    if not rolled_up:
        return None
    batch_ids = batches_within(
        waiting,
        min(part.starts_at for part in rolled_up),
        max(part.ends_at for part in rolled_up),
    )
    if not batch_ids:
        return None
    ranges = " OR ".join(["time >= %s AND time < %s"] * len(rolled_up))
    bounds = [bound for part in rolled_up for bound in (part.starts_at, part.ends_at)]
    batches, parameters = events_of_batches(batch_ids)
    return Condition(f"({ranges}) AND {batches}", [*bounds, *parameters])


def _columns(bucket: Condition, names: Iterable[str], further: str) -> str:
    groups = (f"{name} AS group_{index}" for index, name in enumerate(names))
    return ", ".join([f"{bucket.sql} AS bucket", *groups, further])


def _bucket_of(column: str, portion: Sequence[Bucket], bucket: int | None) -> Condition:
    """Return the SQL of a bucket's number in the portion, from 1: this one's, or that of a time."""
    if bucket is not None or len(portion) == 1:
        return Condition(str(bucket or 1), [])
    return Condition(
        f"width_bucket({column}, %s::timestamptz[])", [[each.start for each in portion]]
    )
