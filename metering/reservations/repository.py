"""What a turn writes of the asks that it decided: reservations, decisions, lockouts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from metering.core.match import PLACE, wanted_values
from metering.ledger.holds import OPEN, dimensions_of
from metering.limits.decisions import DecisionRow
from metering.limits.halts import ActiveHalt, insert_halt
from metering.limits.lockouts import lockout_ends_at
from metering.models import BY_LEVEL, HaltKind
from metering.reservations.judge import Lockout, Verdict

_encode: Final = msgspec.json.Encoder().encode
_COLUMNS: Final = (
    "id, created_at, expires_at, dimensions, estimate, model, provider, requested_model,"
    " top_model, top_provider, reserved_nanos, reserved_tokens, reserved_requests,"
    " reserved_tool_calls, window_ids"
)
_INSERT: Final = f"""
    INSERT INTO reservation (tenant_id, state, {_COLUMNS})
    SELECT %s, {OPEN}, {_COLUMNS} FROM json_populate_recordset(NULL::reservation, %s::json)
"""  # noqa: S608 - a constant list


def insert_reservations(cursor: Any, tenant_id: int, rows: Sequence[dict[str, Any]]) -> None:
    """Store granted reservations, in one statement."""
    if rows:
        cursor.execute(_INSERT, [tenant_id, _encode(rows).decode()])


def reservation_row(
    reservation_id: UUID,
    verdict: Verdict,
    window_ids: Sequence[int],
    *,
    now: datetime,
    expires_at: datetime,
) -> dict[str, Any]:
    """The row of a granted ask, by column."""
    offer, ask = verdict.offer, verdict.ask
    assert offer is not None, "only what is granted is held"
    return {
        "id": reservation_id,
        "created_at": now,
        "expires_at": expires_at,
        "dimensions": dimensions_of(offer.values),
        "estimate": ask.estimate,
        "model": offer.model,
        "provider": offer.provider,
        "requested_model": ask.body.model if verdict.is_downgrade else None,
        "top_model": ask.top[1] if ask.top else None,
        "top_provider": ask.top[0] if ask.top else None,
        "reserved_nanos": offer.amounts.cost_nanos,
        "reserved_tokens": offer.amounts.tokens,
        "reserved_requests": offer.amounts.requests,
        "reserved_tool_calls": offer.amounts.tool_calls,
        "window_ids": window_ids,
    }


def decision_row(reservation_id: UUID | None, verdict: Verdict, *, now: datetime) -> DecisionRow:
    """What is recorded of a decision other than a plain allow."""
    ask = verdict.ask
    offer = verdict.offer or ask.offer
    saved_nanos = None
    if verdict.is_downgrade and ask.top_nanos is not None:
        saved_nanos = max(0, ask.top_nanos - offer.amounts.cost_nanos)
    return DecisionRow(
        decided_at=now,
        decision=verdict.decision,
        code=verdict.error.code if verdict.error is not None else "",
        dimensions=dimensions_of(ask.offer.values),
        reasons=verdict.reasons,
        reservation_id=None if verdict.error is not None else reservation_id,
        asked_nanos=ask.offer.amounts.cost_nanos,
        asked_tokens=ask.offer.amounts.tokens,
        saved_nanos=saved_nanos,
    )


def insert_lockout(
    cursor: Any, tenant_id: int, lockout: Lockout, *, now: datetime
) -> ActiveHalt | None:
    """Halt what a level locks out; None where it did so before and a person has lifted it."""
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
        breaker_id=None,
        group_key="",
        probe_from=None,
        wanted=tuple((PLACE[name], wanted_values(value)) for name, value in lockout.match.items()),
        ends_at=ends_at,
    )
