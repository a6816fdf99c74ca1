"""How many different users, sessions or customers there were: exact, and never to be added up.

From sums where these name every value, from combinations of days where these know the dimensions,
else from events.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from metering.reporting.bounded import fetch_in_time, require_few_events
from metering.reporting.combined import are_combined, are_times_known, count_combined
from metering.reporting.intervals import Bucket
from metering.reporting.question import UsageQuestion
from metering.reporting.sources import sets_for, stretches
from metering.reporting.usage import Cell, Keys, filters_of, waiting_batches
from metering.reporting.usage_branches import Source, Table, is_folded, rows_to_add

# The edges of a range of days are read from events beside sums; more than that is not.
EVENTS_BESIDE_SUMS_MAX: Final = timedelta(hours=49)
CALLS: Final = Table(
    rollups="usage_rollup",
    columns="requests + tool_calls AS calls",
    events="usage_event",
    event_columns="1::bigint AS calls",
    negative_columns="-1::bigint AS calls",
)


def distinct_in(
    question: UsageQuestion,
    portion: Sequence[Bucket],
    group_by: tuple[str, ...],
    keys: Keys,
    *,
    dimension: str,
) -> dict[Cell, int]:
    """Return how many values of a dimension the calls of these groups had in these buckets; what
    had none is left out. Raises TooMuchToRead.
    """
    names = tuple(dict.fromkeys((*group_by, dimension)))
    sets = sets_for(frozenset(names) | frozenset(question.filters))
    begins, ends = portion[0].reads_from, portion[-1].reads_to
    if any(is_folded(question.tenant_id, each, begins, ends) for each in sets):
        sets = []
    what = f"Distinct values of {dimension}"
    of_events = [part for part in stretches(portion, sets) if part.source is None]
    filters, waiting = filters_of(question, group_by, keys), waiting_batches(question.tenant_id)
    beside_sums = sum((part.ends_at - part.starts_at for part in of_events), timedelta())
    if (
        (not sets or beside_sums > EVENTS_BESIDE_SUMS_MAX)
        and are_combined({*names, *filters})
        and are_times_known(question, begins, ends)
    ):
        return count_combined(
            question, portion, group_by, filters, waiting, dimension=dimension, what=what
        )
    require_few_events(question, [(part.starts_at, part.ends_at) for part in of_events], what=what)
    parts = rows_to_add(
        question, Source(sets, waiting), portion, group_by=names, table=CALLS, filters=filters
    )
    each = ", ".join(["bucket", *(f"group_{index}" for index in range(len(names)))])
    columns = ", ".join(["bucket", *(f"group_{index}" for index in range(len(group_by)))])
    rows = fetch_in_time(
        f"""
        SELECT {columns}, count(*) FROM (
            SELECT {each} FROM ({parts.sql}) parts WHERE group_{names.index(dimension)} <> ''
            GROUP BY {each} HAVING sum(calls) > 0
        ) used GROUP BY {columns}
        """,
        parts.parameters,
        what=what,
    )
    return {(bucket, tuple(key)): count for bucket, *key, count in rows}
