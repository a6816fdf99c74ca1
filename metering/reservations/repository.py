"""What a batch writes of its admissions: reservations, decisions, lockouts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from django.db.backends.utils import CursorWrapper

from common.queries import TakesStatements
from metering.core.match import wanted_of
from metering.ledger.holds import OPEN, Held, dimensions_of
from metering.limits.decisions import DecisionRow
from metering.limits.halts import ActiveHalt, insert_halt
from metering.limits.lockouts import lockout_ends_at
from metering.models import BY_LEVEL, HaltKind
from metering.reservations.verdicts import LockoutRequest, Verdict

_encode: Final = msgspec.json.Encoder().encode
_COLUMNS: Final = (
    "id, created_at, expires_at, dimensions, estimate, model, provider, requested_model,"
    " top_model, top_provider, reserved_nanos, reserved_tokens, reserved_requests,"
    " reserved_tool_calls, window_ids"
)
_INSERT: Final = f"""
    INSERT INTO reservation (tenant_id, state, {_COLUMNS})
    SELECT %s, {OPEN}, {_COLUMNS} FROM json_populate_recordset(NULL::reservation, %s::json)
"""


def insert_reservations(
    cursor: TakesStatements, tenant_id: int, rows: Sequence[dict[str, object]]
) -> None:
    """Store granted reservations, in one statement."""
    if rows:
        cursor.execute(_INSERT, [tenant_id, _encode(rows).decode()])


def reservation_row(held: Held, verdict: Verdict, expires_at: datetime) -> dict[str, object]:
    """Return the row of a granted request, by column."""
    request, candidate = verdict.request, verdict.granted
    top_provider, top_model = held.top or (None, None)
    return {
        "id": held.id,
        "created_at": held.created_at,
        "expires_at": expires_at,
        "dimensions": dimensions_of(held.values),
        "estimate": request.estimate,
        "model": candidate.model,
        "provider": candidate.provider,
        "requested_model": request.body.model if verdict.is_downgrade else None,
        "top_model": top_model,
        "top_provider": top_provider,
        "reserved_nanos": held.amounts.cost_nanos,
        "reserved_tokens": held.amounts.tokens,
        "reserved_requests": held.amounts.requests,
        "reserved_tool_calls": held.amounts.tool_calls,
        "window_ids": held.windows.ids,
    }


def decision_row(reservation_id: UUID | None, verdict: Verdict, *, now: datetime) -> DecisionRow:
    """Return what is recorded of a decision other than a plain allow."""
    request, asked = verdict.request, verdict.request.candidate
    saved_nanos = None
    if verdict.is_downgrade and request.top_nanos is not None:
        saved_nanos = max(0, request.top_nanos - verdict.granted.amounts.cost_nanos)
    return DecisionRow(
        decided_at=now,
        decision=verdict.decision,
        code=verdict.error.code if verdict.error is not None else "",
        dimensions=dimensions_of(asked.values),
        reasons=verdict.reasons,
        reservation_id=reservation_id,
        asked_nanos=asked.amounts.cost_nanos,
        asked_tokens=asked.amounts.tokens,
        saved_nanos=saved_nanos,
    )


def insert_lockout(
    cursor: CursorWrapper, tenant_id: int, lockout: LockoutRequest, *, now: datetime
) -> ActiveHalt | None:
    """Halt what a level locks out; None if it did so before and a person has lifted it."""
    window = lockout.window
    ends_at = lockout_ends_at(lockout.rule, window.ends_at, now) if window is not None else None
    halt_id = insert_halt(
        cursor,
        tenant_id=tenant_id,
        match=lockout.match,
        reason=lockout.reason,
        kind=HaltKind.LOCKOUT,
        actor=BY_LEVEL,
        window_id=window.id if window is not None else None,
        level_percent=lockout.percent,
        episode=window.episode if window is not None else None,
        ends_at=ends_at,
    )
    if halt_id is None:
        return None
    return ActiveHalt(
        id=halt_id,
        match=lockout.match,
        reason=lockout.reason,
        kind=HaltKind.LOCKOUT,
        since=now,
        wanted=wanted_of(lockout.match),
        ends_at=ends_at,
    )
