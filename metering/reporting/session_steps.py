"""The calls of a session or a trace in order of time, as pages show them: what each used and cost,
what it belongs to, and nothing that only its own page tells.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple

from django.db import connection

from common.errors import NotFound
from common.values import normal_value


class Step(NamedTuple):
    """One event. `operation`, `status` and `cost_source` are the numbers that are stored."""

    id: int
    time: datetime
    source: str
    sent_id: str
    team: str
    customer: str
    user: str
    feature: str
    agent: str
    session: str
    trace: str
    span: str | None
    parent_span: str | None
    operation: int
    model: str
    tool: str
    tool_arguments_hash: str | None
    output_hash: str | None
    status: int
    error_type: str | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    latency_ms: int | None
    cost_nanos: int | None
    cost_source: int
    is_void: bool


_COLUMNS: Final = ", ".join(f'"{name}"' for name in Step._fields)


def read_steps(
    *,
    tenant_id: int,
    dimension: Literal["session", "trace"],
    value: str,
    teams: Sequence[str] | None,
    limit: int,
) -> list[Step]:
    """Return the first events of a session or trace, and one more than the limit if there are more.

    `teams` leaves out those of all other teams. Raises NotFound if nothing is left.
    """
    # The value is compared with the empty one so that the partial index is used.
    of_teams = "" if teams is None else " AND team = ANY(%(teams)s)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM usage_event WHERE tenant_id = %(tenant)s"
            f" AND {dimension} = %(value)s AND {dimension} <> ''{of_teams}"
            " ORDER BY time, id LIMIT %(limit)s",
            {
                "tenant": tenant_id,
                "value": normal_value(value),
                "teams": list(teams or ()),
                "limit": limit + 1,
            },
        )
        steps = [Step(*row) for row in cursor.fetchall()]
    if not steps:
        raise NotFound(f"There are no events of this {dimension}.")
    return steps
