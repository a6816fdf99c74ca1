"""Successes of tasks and sessions, as `POST /v1/outcomes` reported them.

A success counts once: at the last call of its task or session, in the groups of that call. So
successes add up over time and groups, and do not move when an outcome is reported late.
"""

from collections.abc import Sequence
from typing import Final

from metering.reporting.bounded import fetch_in_time
from metering.reporting.conditions import event_value, on_events
from metering.reporting.intervals import Bucket
from metering.reporting.kept import require_events
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import Cell, Keys, filters_of

# The condition on the column is spelled out so that its partial index is used.
_LAST_CALLS: Final = " UNION ALL ".join(
    f"""
    SELECT last.* FROM outcome o CROSS JOIN LATERAL (
        SELECT * FROM usage_event e
        WHERE e.tenant_id = o.tenant_id AND e.{name} = o.{name} AND e.{name} <> ''
            AND e.time >= %s AND NOT e.is_void
        ORDER BY e.time DESC, e.id DESC LIMIT 1
    ) last WHERE o.tenant_id = %s AND o.is_success AND o.{name} <> ''
    """
    for name in ("task", "session")
)


def successes_in(
    question: UsageQuestion, portion: Sequence[Bucket], group_by: tuple[str, ...], keys: Keys
) -> dict[Cell, int]:
    """Return the number of successes of these groups in these buckets; what had none is left out.
    Raises TooMuchToRead.
    """
    since = portion[0].reads_from
    require_events(tenant_id=question.tenant_id, starts_at=since)
    wanted = on_events(filters_of(question, group_by, keys))
    values = "".join(
        f", {event_value(name)} AS group_{index}" for index, name in enumerate(group_by)
    )
    columns = ", ".join(["bucket", *(f"group_{index}" for index in range(len(group_by)))])
    begins = [bucket.reads_from for bucket in portion]
    ends = [bucket.reads_to for bucket in portion]
    rows = fetch_in_time(
        f"""
        SELECT {columns}, count(*) FROM (
            SELECT span.bucket{values} FROM ({_LAST_CALLS}) calls
            JOIN unnest(%s::timestamptz[], %s::timestamptz[])
                WITH ORDINALITY AS span (begins, ends, bucket)
                ON time >= span.begins AND time < span.ends
            WHERE {wanted.sql}
        ) counted GROUP BY {columns}
        """,
        [*[since, question.tenant_id] * 2, begins, ends, *wanted.parameters],
        what="Successes",
    )
    return {(bucket, tuple(key)): count for bucket, *key, count in rows}
