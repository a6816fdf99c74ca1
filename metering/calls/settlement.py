"""Events that settle reservations: found, locked, and what they give back."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

from django.utils import timezone

from metering.budgets.index import BudgetIndex
from metering.calls.movements import Change, added_up, sums_by_posting
from metering.calls.prepared_event import PreparedEvent
from metering.core.amounts import NOTHING, Amounts
from metering.ledger.holds import (
    SETTLED,
    HoldMoves,
    LockedReservation,
    find_held,
    lock_reservations,
    settle_with,
)
from metering.ledger.posting import HoldMove, Posting
from metering.models import Route
from metering.snapshot import Configuration
from metering.usage.columns import StoredEvent


class Stored(NamedTuple):
    """What a transaction stored.

    `fresh` are calls with no other report. Those that are known, or contradict one that
    is, are `changes`: `moves` has what each moves by window, `calls` the call of each report (by
    `id(event)`) as it is now, and `inserted` those that are new. `event_ids` has the call of each
    event by `id(event)`.
    """

    batch_id: int
    fresh: list[PreparedEvent]
    event_ids: dict[int, int]
    calls: dict[int, StoredEvent]
    inserted: list[PreparedEvent]
    changes: list[Change]
    moves: list[dict[Posting, Amounts]]

    def sums(self, book: BudgetIndex) -> dict[Posting, Amounts]:
        """Return what the new calls and the merged ones add to each window."""
        sums = sums_by_posting(book, self.fresh)
        return added_up([sums, *self.moves]) if self.moves else sums


def lock_named_reservations(
    tenant_id: int, events: Iterable[PreparedEvent]
) -> dict[UUID, LockedReservation]:
    """Lock the reservations that these events settle."""
    held = {event.held.id: event.held for event in events if event.held is not None}
    return lock_reservations(tenant_id, held) if held else {}


def settle_with_events(
    configuration: Configuration,
    stored: Stored,
    reservations: Mapping[UUID, LockedReservation],
    reports: Iterable[PreparedEvent],
) -> HoldMoves:
    """Settle locked reservations with the calls of the reports that name them; return what that
    gives back, and what was booked beyond what was held.
    """
    moves = HoldMoves()
    book = configuration.budgets
    now = timezone.now()
    fresh = {id(event) for event in stored.fresh}
    # What each reservation held until now, which its call was booked against.
    held_nanos: dict[UUID, int] = {}
    for event in reports:
        if event.held is None or (reservation := reservations.get(event.held.id)) is None:
            continue
        is_fresh = id(event) in fresh
        amounts = event.amounts if is_fresh else _booked(event, stored, reservation)
        if amounts is None:
            continue
        if is_fresh:
            _add_beyond_holds(moves, event, book)
        if reservation.state == SETTLED:
            if is_fresh:
                moves.add_overrun(event.held, book, amounts.cost_nanos)
            else:
                _confirm(reservation, event, amounts, stored.event_ids[id(event)])
            continue
        held_nanos[reservation.held.id] = settle_with(
            reservation,
            moves=moves,
            book=book,
            cost_nanos=amounts.cost_nanos,
            used_tokens=amounts.tokens,
            event_id=stored.event_ids[id(event)],
            fingerprint=_settled_by(event),
            is_posted=is_fresh,
            now=now,
        )
    for change, move in zip(stored.changes, stored.moves, strict=True):
        _add_beyond_holds_of_change(moves, change, move, book, held_nanos)
    return moves


def _booked(event: PreparedEvent, stored: Stored, reservation: LockedReservation) -> Amounts | None:
    """Return what the call of a report that is not new is booked as, if it is the reservation's
    call.
    """
    call = stored.calls.get(id(event))
    if call is not None:
        is_its_call = call.reservation_id == reservation.held.id
        return call.amounts_signed(1) if is_its_call else None
    if reservation.event_id is not None and stored.event_ids.get(id(event)) == reservation.event_id:
        # Sent before as an event, and now as the settle.
        return Amounts(reservation.cost_nanos or 0, reservation.used_tokens or 0, 0, 0)
    return None


def _settled_by(event: PreparedEvent) -> str | None:
    return event.fingerprint if event.route is Route.SETTLE else None


def _confirm(
    reservation: LockedReservation, event: PreparedEvent, amounts: Amounts, event_id: int
) -> None:
    """Note the settle of a reservation that an event has settled before."""
    if (fingerprint := _settled_by(event)) is not None and reservation.fingerprint is None:
        reservation.confirm(
            cost_nanos=amounts.cost_nanos,
            used_tokens=amounts.tokens,
            event_id=event_id,
            fingerprint=fingerprint,
        )


def _add_beyond_holds_of_change(
    moves: HoldMoves,
    change: Change,
    move: Mapping[Posting, Amounts],
    book: BudgetIndex,
    held_nanos: Mapping[UUID, int],
) -> None:
    """Add what a call of a reservation adds to windows beyond what was held there."""
    after = change.after
    if after is None or after.reservation_id is None:
        return
    id_ = after.reservation_id
    held = find_held(book.tenant_id, [id_]).get(id_)
    if held is None:
        return
    holding = set(held.windows.ids)
    added: dict[int, int] = {}
    for posting, amounts in move.items():
        added[posting.window_id] = added.get(posting.window_id, 0) + amounts.cost_nanos
    for window_id, nanos in added.items():
        beyond = nanos - (held_nanos.get(id_, 0) if window_id in holding else 0)
        if beyond > 0:
            moves.add((window_id,), HoldMove(NOTHING, beyond))


def _add_beyond_holds(moves: HoldMoves, event: PreparedEvent, book: BudgetIndex) -> None:
    """Add what an event books in windows that its reservation does not hold: of a budget that it
    did not match then, or that has begun to count again since. Nothing was held there.
    """
    assert event.held is not None, "only an event of a reservation goes beyond its hold"
    cost_nanos = event.amounts.cost_nanos
    counting = event.held.windows.counting(book)
    if cost_nanos <= 0 or event.windows is counting.keys:
        return
    others = [
        key
        for key in event.windows
        if key.budget_id not in counting.budget_ids and not book.rules[key.budget_id].is_per_request
    ]
    if others:
        moves.add(tuple([book.window_ids[key] for key in others]), HoldMove(NOTHING, cost_nanos))
