"""Decisions other than a plain allow, each with its reasons: written with what was decided."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

# How long decisions can be read.
DECISIONS_KEPT: Final = timedelta(days=35)


class DecisionRow(NamedTuple):
    """A decision to be written. `reasons` are JSON objects, money in them as `*_usd` strings."""

    decided_at: datetime
    # allow (where a budget in shadow or warn objected), downgrade, refuse, open or close.
    decision: str
    # Of a refusal: the problem's code.
    code: str
    # The dimensions that have a value, by name.
    dimensions: Mapping[str, str]
    reasons: Sequence[Mapping[str, Any]]
    reservation_id: UUID | None = None
    asked_nanos: int | None = None
    asked_tokens: int | None = None
    saved_nanos: int | None = None


_INSERT: Final = """
    INSERT INTO decision (tenant_id, id, decided_at, decision, code, reservation_id, agent,
        dimensions, asked_nanos, asked_tokens, saved_nanos, reasons)
    SELECT %s, nextval('decision_id'), n.decided_at, n.decision, n.code, n.reservation_id, n.agent,
        n.dimensions::jsonb, n.asked_nanos, n.asked_tokens, n.saved_nanos, n.reasons::jsonb
    FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::uuid[], %s::text[], %s::text[],
        %s::bigint[], %s::bigint[], %s::bigint[], %s::text[])
        AS n (decided_at, decision, code, reservation_id, agent, dimensions, asked_nanos,
            asked_tokens, saved_nanos, reasons)
"""


def insert_decisions(cursor: Any, tenant_id: int, rows: Sequence[DecisionRow]) -> None:
    """Record decisions in the caller's transaction, in one statement."""
    if not rows:
        return
    cursor.execute(
        _INSERT,
        [
            tenant_id,
            [row.decided_at for row in rows],
            [row.decision for row in rows],
            [row.code for row in rows],
            [row.reservation_id for row in rows],
            [row.dimensions.get("agent", "") for row in rows],
            [json.dumps(row.dimensions) for row in rows],
            [row.asked_nanos for row in rows],
            [row.asked_tokens for row in rows],
            [row.saved_nanos for row in rows],
            [json.dumps(row.reasons) for row in rows],
        ],
    )
