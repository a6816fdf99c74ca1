"""Distinct values counted from combinations of days, for any dimensions that these are made of.

A combination tells when on its day it was first and last used. So it tells whether it was used in
any bucket that holds the day's first or last moment; a bucket that lies inside of a day is read
from events, as is what no roll-up holds yet.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from common.queries import Parameter, fetch_row
from metering.core.periods import floor_seconds
from metering.reporting.bounded import fetch_in_time, require_few_events
from metering.reporting.conditions import NO_CONDITION, Condition, event_value, join, on_events
from metering.reporting.intervals import Bucket
from metering.reporting.kept import require_events
from metering.reporting.question import Filters, UsageQuestion
from metering.reporting.usage import Cell
from metering.reporting.usage_branches import WaitingBatch, batches_within
from metering.rollups.sets import COMBINED, DAY_SECONDS
from metering.usage.batch_events import events_of_batches

_DAY: Final = timedelta(seconds=DAY_SECONDS)
# Of one bucket. Written out, so that PostgreSQL sees how much there is of it.
_COMBINATIONS: Final = """
    SELECT %s AS bucket, {columns} FROM usage_combination
    WHERE tenant_id = %s AND starts_at > %s AND starts_at < %s
        AND first_at < %s AND last_at >= %s AND {wanted}
"""
_EVENTS: Final = """
    SELECT span.bucket, {columns}
    FROM unnest(%s::timestamptz[], %s::timestamptz[], %s::int[]) AS span (begins, ends, bucket)
    JOIN usage_event ON time >= span.begins AND time < span.ends
    WHERE tenant_id = %s AND time >= %s AND time < %s AND NOT is_void AND {wanted}
"""
_ARE_TIMES_KNOWN: Final = """
    SELECT NOT EXISTS (
        SELECT FROM usage_combination
        WHERE tenant_id = %s AND NOT (is_first_known AND is_last_known)
            AND starts_at > %s::timestamptz - interval '1 day' AND starts_at < %s
    )
"""


class _Span(NamedTuple):
    """A bucket's time, and its number from 1."""

    begins: datetime
    ends: datetime
    bucket: int

    @property
    def is_inside_day(self) -> bool:
        """Whether neither the first nor the last moment of a UTC day is in it."""
        day = floor_seconds(self.begins, DAY_SECONDS)
        return day < self.begins and self.ends < day + _DAY


def are_combined(names: Iterable[str]) -> bool:
    """Whether combinations tell of all these dimensions."""
    return set(names) <= set(COMBINED)


def are_times_known(question: UsageQuestion, starts_at: datetime, ends_at: datetime) -> bool:
    """Whether every combination of this time tells exactly when it was first and last used: not for
    a moment after a correction took such a call away.
    """
    (are_known,) = fetch_row(_ARE_TIMES_KNOWN, [question.tenant_id, starts_at, ends_at])
    return bool(are_known)


def count_combined(  # noqa: PLR0913 - what is asked, and of what
    question: UsageQuestion,
    portion: Sequence[Bucket],
    group_by: tuple[str, ...],
    filters: Filters,
    waiting: Sequence[WaitingBatch],
    *,
    dimension: str,
    what: str,
) -> dict[Cell, int]:
    """Return how many values of a dimension each group had in each bucket. Raises TooMuchToRead."""
    spans = [
        _Span(bucket.reads_from, bucket.reads_to, number)
        for number, bucket in enumerate(portion, 1)
        if bucket.reads_from < bucket.reads_to
    ]
    inside = [span for span in spans if span.is_inside_day]
    by_day = [span for span in spans if not span.is_inside_day]
    require_few_events(question, [(span.begins, span.ends) for span in inside], what=what)
    require_events(tenant_id=question.tenant_id, starts_at=spans[0].begins)
    names = [*group_by, dimension]
    has_value = Condition(f"\"{dimension}\" <> ''", [])
    wanted = join(" AND ", [on_events(filters), has_value])
    parts = list(_of_combinations(question, by_day, names, wanted))
    batch_ids = batches_within(waiting, portion[0].reads_from, portion[-1].reads_to)
    not_rolled_up = Condition(*events_of_batches(batch_ids))
    for read, within in ((by_day, not_rolled_up), (inside, NO_CONDITION)):
        if read and (within is NO_CONDITION or batch_ids):
            parts.append(_of_events(question, read, names, join(" AND ", [within, wanted])))
    every = join(" UNION ALL ", parts)
    each = ", ".join(["bucket", *(f"value_{index}" for index in range(len(names)))])
    groups = ", ".join(["bucket", *(f"value_{index}" for index in range(len(group_by)))])
    rows = fetch_in_time(
        f"SELECT {groups}, count(*) FROM (SELECT DISTINCT {each} FROM ({every.sql}) parts) used"
        f" GROUP BY {groups}",
        every.parameters,
        what=what,
    )
    return {(bucket, tuple(key)): count for bucket, *key, count in rows}


def _of_combinations(
    question: UsageQuestion, spans: Sequence[_Span], names: Sequence[str], wanted: Condition
) -> Iterator[Condition]:
    """Yield for each span what combinations say of it."""
    columns = ", ".join(f'"{name}" AS value_{index}' for index, name in enumerate(names))
    used = _COMBINATIONS.format(columns=columns, wanted=wanted.sql)
    for span in spans:
        days = [span.begins - _DAY, span.ends]
        bounds: list[Parameter] = [span.bucket, question.tenant_id, *days, span.ends, span.begins]
        yield Condition(used, [*bounds, *wanted.parameters])


def _of_events(
    question: UsageQuestion, spans: Sequence[_Span], names: Sequence[str], wanted: Condition
) -> Condition:
    """Return what events say of all spans."""
    columns = ", ".join(f"{event_value(name)} AS value_{index}" for index, name in enumerate(names))
    bounds = [min(span.begins for span in spans), max(span.ends for span in spans)]
    return Condition(
        _EVENTS.format(columns=columns, wanted=wanted.sql),
        [*_arrays(spans), question.tenant_id, *bounds, *wanted.parameters],
    )


def _arrays(spans: Sequence[_Span]) -> list[list[datetime] | list[int]]:
    return [
        [span.begins for span in spans],
        [span.ends for span in spans],
        [span.bucket for span in spans],
    ]
