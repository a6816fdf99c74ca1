"""The latest calls of many sessions, for those who look for loops in them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from common.queries import fetch_rows
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
LATEST_CALLS: Final = f"""
    SELECT {COLUMNS}
    FROM unnest(%s::text[]) AS s (session)
    CROSS JOIN LATERAL (
        SELECT * FROM usage_event e
        WHERE e.tenant_id = %s AND e.session = s.session AND e.session <> '' AND NOT e.is_void
        AND e.time >= %s
        ORDER BY e.time DESC, e.id DESC LIMIT %s
    ) e
    ORDER BY e.session, e.time, e.id
"""


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
