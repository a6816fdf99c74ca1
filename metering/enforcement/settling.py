"""Events that settle reservations: found, locked, and what they give back."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import connection
from django.utils import timezone

from metering.budget_rules import BudgetBook
from metering.configuration import Configuration
from metering.enforcement.holds import (
    SETTLED,
    HoldMoves,
    Standing,
    lock_reservations,
    settle_with,
)
from metering.events import PreparedEvent
from metering.ledger import NOTHING, HoldMove


class Stored(NamedTuple):
    """What a transaction stored: the events that were new, and those that were known before."""

    batch_id: int
    fresh: list[PreparedEvent]
    event_ids: dict[int, int]
    duplicates: list[PreparedEvent]


def lock_named_reservations(
    tenant_id: int, events: Iterable[PreparedEvent]
) -> dict[UUID, Standing]:
    """Lock the reservations that these events settle."""
    held = {event.held.id: event.held for event in events if event.held is not None}
    return lock_reservations(tenant_id, held) if held else {}


def settle_with_events(
    configuration: Configuration, stored: Stored, standings: Mapping[UUID, Standing]
) -> HoldMoves:
    """Settle locked reservations with the events that name them; answers what they give back.

    A second event of a reservation is usage like any other, beyond what was held.
    """
    moves = HoldMoves()
    book = configuration.budgets
    now = timezone.now()
    for event in stored.fresh:
        if event.held is None or (standing := standings.get(event.held.id)) is None:
            continue
        moves.add(_beyond_holds(event, book))
        if standing.state == SETTLED:
            moves.add_overrun(event.held, book, event.amounts.cost_nanos)
            continue
        settle_with(
            standing,
            moves=moves,
            book=book,
            cost_nanos=event.amounts.cost_nanos,
            used_tokens=event.amounts.tokens,
            event_id=stored.event_ids[id(event)],
            fingerprint=event.fingerprint,
            is_posted=True,
            now=now,
        )
    for event in stored.duplicates:
        if event.held is None or (standing := standings.get(event.held.id)) is None:
            continue
        if standing.state != SETTLED:
            _settle_with_known(configuration.tenant_id, standing, event, moves, book, now)
    return moves


def _beyond_holds(event: PreparedEvent, book: BudgetBook) -> dict[int, HoldMove]:
    """What an event books in windows that its reservation does not hold: of a budget that it did
    not match then, or that has begun to count anew since. Nothing was held there.
    """
    assert event.held is not None, "only an event of a reservation goes beyond its hold"
    cost_nanos = event.amounts.cost_nanos
    if cost_nanos <= 0:
        return {}
    held = event.held.window_keys(book)
    return {
        book.window_ids[key]: HoldMove(NOTHING, cost_nanos)
        for key in event.windows
        if key.budget_id not in held and not book.rules[key.budget_id].is_per_request
    }


def _settle_with_known(
    tenant_id: int,
    standing: Standing,
    event: PreparedEvent,
    moves: HoldMoves,
    book: BudgetBook,
    now: datetime,
) -> None:
    """Settle with a call that was reported before by another way: its cost is in the balances."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT e.id, coalesce(e.cost_nanos, 0), e.input_tokens + e.output_tokens"
            " FROM event_key k JOIN usage_event e ON e.tenant_id = k.tenant_id"
            " AND e.id = k.event_id AND e.time = k.event_at WHERE k.tenant_id = %s AND k.key = %s",
            [tenant_id, event.key],
        )
        row = cursor.fetchone()
    if row is None:
        return
    settle_with(
        standing,
        moves=moves,
        book=book,
        cost_nanos=row[1],
        used_tokens=row[2],
        event_id=row[0],
        fingerprint=event.fingerprint,
        is_posted=False,
        now=now,
    )
