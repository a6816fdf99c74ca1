"""What a turn writes of the asks that it decided: reservations, decisions, lockouts."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.utils import timezone

from metering.budget_rules import PLACE, wanted_values
from metering.enforcement.decisions import DecisionRow
from metering.enforcement.halts import StandingHalt, insert_halt
from metering.enforcement.holds import OPEN, dimensions_of
from metering.enforcement.verdicts import Lockout, Verdict
from metering.ledger import BY_LEVEL
from metering.models import HaltKind


class ReservationRow(NamedTuple):
    """A reservation that is granted, in the order of _INSERT."""

    id: UUID
    created_at: datetime
    expires_at: datetime
    dimensions: str
    estimate: str
    model: str
    provider: str
    requested_model: str | None
    top_model: str | None
    top_provider: str | None
    reserved_nanos: int
    reserved_tokens: int
    reserved_requests: int
    reserved_tool_calls: int
    window_ids: str


# Arrays of arrays cannot be unnested row by row, so windows come as PostgreSQL spells an array.
_INSERT: Final = f"""
    INSERT INTO reservation (tenant_id, state, {", ".join(ReservationRow._fields)})
    SELECT %s, {OPEN}, n.id, n.created_at, n.expires_at, n.dimensions::jsonb, n.estimate, n.model,
        n.provider, n.requested_model, n.top_model, n.top_provider, n.reserved_nanos,
        n.reserved_tokens, n.reserved_requests, n.reserved_tool_calls, n.window_ids::bigint[]
    FROM unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[], %s::text[], %s::text[],
        %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[],
        %s::smallint[], %s::smallint[], %s::text[]) AS n ({", ".join(ReservationRow._fields)})
"""  # noqa: S608 - a constant list


def insert_reservations(cursor: Any, tenant_id: int, rows: Sequence[ReservationRow]) -> None:
    """Store granted reservations, in one statement."""
    if rows:
        cursor.execute(_INSERT, [tenant_id, *map(list, zip(*rows, strict=True))])


def reservation_row(
    reservation_id: UUID,
    verdict: Verdict,
    window_ids: Sequence[int],
    *,
    now: datetime,
    expires_at: datetime,
) -> ReservationRow:
    """The row of a granted ask."""
    offer, ask = verdict.offer, verdict.ask
    assert offer is not None, "only what is granted is held"
    return ReservationRow(
        id=reservation_id,
        created_at=now,
        expires_at=expires_at,
        dimensions=json.dumps(dimensions_of(offer.values), ensure_ascii=False),
        estimate=ask.estimate,
        model=offer.model,
        provider=offer.provider,
        requested_model=ask.body.model if verdict.is_downgrade else None,
        top_model=ask.top[1] if ask.top else None,
        top_provider=ask.top[0] if ask.top else None,
        reserved_nanos=offer.amounts.cost_nanos,
        reserved_tokens=offer.amounts.tokens,
        reserved_requests=offer.amounts.requests,
        reserved_tool_calls=offer.amounts.tool_calls,
        window_ids="{" + ",".join(map(str, window_ids)) + "}",
    )


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


def insert_lockout(cursor: Any, tenant_id: int, lockout: Lockout) -> StandingHalt | None:
    """Halt what a level locks out; None where it did so before and somebody has lifted it."""
    window = lockout.window
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
    )
    if halt_id is None:
        return None
    return StandingHalt(
        id=halt_id,
        match=lockout.match,
        reason=lockout.reason,
        kind=HaltKind.LOCKOUT,
        since=timezone.now(),
        breaker_id=None,
        group_key="",
        trial_from=None,
        wanted=tuple((PLACE[name], wanted_values(value)) for name, value in lockout.match.items()),
    )
