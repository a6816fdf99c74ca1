"""The latest calls of many sessions, and how alike they are, for those who look for loops."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from common.queries import fetch_rows
from metering.models import Status
from metering.usage.batch_events import events_of_batches


class SessionCall(NamedTuple):
    """One event of a session. `operation` and `status` are the numbers that are stored."""

    session: str
    time: datetime
    team: str
    customer: str
    user: str
    feature: str
    agent: str
    operation: int
    model: str
    tool: str
    tool_arguments_hash: str | None
    output_hash: str | None
    prefix_hash: str | None
    status: int
    error_type: str | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cost_nanos: int
    step: int | None


COLUMNS: Final = ", ".join(
    "coalesce(e.cost_nanos, 0)" if name == "cost_nanos" else f'e."{name}"'
    for name in SessionCall._fields
)
LATEST: Final = """
    SELECT * FROM usage_event e
    WHERE e.tenant_id = %s AND e.session = s.session AND e.session <> '' AND NOT e.is_void
    AND e.time >= %s
    ORDER BY e.time DESC, e.id DESC LIMIT %s
"""
LATEST_CALLS: Final = f"""
    SELECT {COLUMNS}
    FROM unnest(%s::text[]) AS s (session)
    CROSS JOIN LATERAL ({LATEST}) e
    ORDER BY e.session, e.time, e.id
"""
# What two calls must have in common to be the same: their arguments, else their output (similar
# ones pass for the same), else its size. Numbers stand for texts, as they compare faster.
LIKENESSES: Final = f"""
    SELECT s.session, likeness.*
    FROM unnest(%s::text[]) AS s (session)
    CROSS JOIN LATERAL (
        SELECT count(*) AS calls,
            count(*) - count(DISTINCT hashtextextended(e.agent || ' ' || coalesce(
                e.tool || ' ' || nullif(e.tool_arguments_hash, ''),
                CASE WHEN e.output_hash LIKE 'simhash:%%' THEN 'similar' ELSE
                    nullif(e.output_hash, '') END,
                CASE WHEN e.output_tokens >= %s THEN e.output_tokens::text ELSE
                    'unlike ' || e.id END
            ), 0)) AS repeats,
            count(*) FILTER (WHERE e.status = {Status.ERROR.value}) AS failures,
            count(*) FILTER (WHERE e.tool <> '') AS tool_calls
        FROM ({LATEST}) e
    ) likeness
"""


class Likeness(NamedTuple):
    """How alike a session's newest calls are: how many there are, and how many of them repeat
    another one, failed, or called a tool.
    """

    calls: int
    repeats: int
    failures: int
    tool_calls: int


def sessions_of_batches(
    *, tenant_id: int, batch_ids: Sequence[int], since: datetime
) -> dict[str, datetime]:
    """Return sessions with events of these batches (ids in order), and each one's newest event
    since.
    """
    condition, parameters = events_of_batches(batch_ids)
    rows = fetch_rows(
        "SELECT session, max(time) FROM usage_event"
        f" WHERE tenant_id = %s AND {condition} AND session <> '' AND NOT is_void"
        " AND time >= %s GROUP BY session ORDER BY session",
        [tenant_id, *parameters, since],
    )
    return dict(rows)


def likenesses(
    *,
    tenant_id: int,
    sessions: Iterable[str],
    since: datetime,
    limit: int,
    output_tokens_min: int,
) -> dict[str, Likeness]:
    """Return how alike the calls are that `latest_calls` returns. Outputs that are known by their
    size alone are compared from `output_tokens_min` on.
    """
    rows = fetch_rows(LIKENESSES, [list(sessions), output_tokens_min, tenant_id, since, limit])
    return {session: Likeness(*counts) for session, *counts in rows}


def latest_calls(
    *, tenant_id: int, sessions: Iterable[str], since: datetime, limit: int
) -> dict[str, list[SessionCall]]:
    """Return each session's newest calls since a time, oldest first."""
    calls: dict[str, list[SessionCall]] = {}
    for row in fetch_rows(LATEST_CALLS, [list(sessions), tenant_id, since, limit]):
        call = SessionCall(*row)
        calls.setdefault(call.session, []).append(call)
    return calls


def session_costs(*, tenant_id: int, sessions: Iterable[str]) -> dict[str, int]:
    """Return what each of these sessions has cost in all, in nano-dollars."""
    rows = fetch_rows(
        "SELECT session, coalesce(sum(cost_nanos), 0) FROM usage_event"
        " WHERE tenant_id = %s AND session = ANY(%s) AND session <> '' AND NOT is_void"
        " GROUP BY session",
        [tenant_id, list(sessions)],
    )
    return dict(rows)
