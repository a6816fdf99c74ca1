"""What reservations hold: their rows, and the four ways in which a hold ends.

open -> settled | released | expired; released and expired may still be settled, late: what they
held has been given back by then, and the cost is booked all the same. Nothing leaves `settled`.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from django.db import connection
from django.db.backends.utils import CursorWrapper

from common.bounded_memory import BoundedMemory
from common.queries import Row, TakesStatements
from metering.budgets.index import BudgetIndex, WindowKey
from metering.core.amounts import NOTHING, Amounts
from metering.core.dimensions import MATCHABLE
from metering.core.match import Values
from metering.ledger.held_windows import HeldWindow, HeldWindows, forget_held_windows, share_windows
from metering.ledger.posting import HoldMove
from metering.models import ReservationState

OPEN: Final = ReservationState.OPEN.value
SETTLED: Final = ReservationState.SETTLED.value
RELEASED: Final = ReservationState.RELEASED.value
EXPIRED: Final = ReservationState.EXPIRED.value
STATES: Final = {state.value: state.label for state in ReservationState}
# Reservations that a process remembers; each is a few hundred bytes.
HELD_MAX: Final = 50_000
# The most expired reservations that one transaction releases.
DUE_MAX: Final = 500
_encode: Final = msgspec.json.Encoder().encode


class Held(NamedTuple):
    """What never changes of a reservation."""

    id: UUID
    values: Values
    amounts: Amounts
    windows: HeldWindows
    created_at: datetime
    # (provider, model) of the best model, against which a cheaper one saves.
    top: tuple[str, str] | None

    def windows_with(self, own: Iterable[WindowKey], book: BudgetIndex) -> tuple[WindowKey, ...]:
        """Where an event of this reservation counts: in the windows that it holds, and for other
        budgets in the event's own.
        """
        counting = self.windows.counting(book)
        others = [key for key in own if key.budget_id not in counting.budget_ids]
        return (*counting.keys, *others) if others else counting.keys


_HELD: Final = BoundedMemory[tuple[int, UUID], Held](HELD_MAX)


def remember_held(tenant_id: int, held: Held) -> None:
    """Keep a committed reservation's facts, which its settle will ask for."""
    _HELD.keep((tenant_id, held.id), held)


def find_held(tenant_id: int, ids: Collection[UUID]) -> dict[UUID, Held]:
    """The facts of these reservations, as far as they exist. Reads within the tenant's scope."""
    known = {id_: held for id_ in ids if (held := _HELD.get((tenant_id, id_))) is not None}
    if missing := [id_ for id_ in ids if id_ not in known]:
        for held in _read_held(tenant_id, missing):
            known[held.id] = held
            remember_held(tenant_id, held)
    return known


def forget_held() -> None:
    """Empty this process's memory (tests change what is stored under it)."""
    _HELD.forget_all()
    forget_held_windows()


def are_known(tenant_id: int, ids: Iterable[UUID]) -> bool:
    """Whether this process knows all of them, so that nothing need be read."""
    return all(_HELD.get((tenant_id, id_)) is not None for id_ in ids)


def _read_held(tenant_id: int, ids: Sequence[UUID]) -> list[Held]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, dimensions::text, reserved_nanos, reserved_tokens, reserved_requests,"
            " reserved_tool_calls, window_ids, created_at, top_provider, top_model"
            " FROM reservation WHERE tenant_id = %s AND id = ANY(%s)",
            [tenant_id, list(ids)],
        )
        rows = cursor.fetchall()
        windows = _read_windows(
            cursor, tenant_id, {window_id for row in rows for window_id in row[6]}
        )
    return [
        Held(
            id=id_,
            values=values_from(json.loads(dimensions)),
            amounts=Amounts(*amounts),
            # Retention removes windows that are over.
            windows=share_windows([windows[id_] for id_ in window_ids if id_ in windows]),
            created_at=created_at,
            top=(top_provider or "", top_model) if top_model is not None else None,
        )
        for id_, dimensions, *amounts, window_ids, created_at, top_provider, top_model in rows
    ]


def _read_windows(
    cursor: CursorWrapper, tenant_id: int, ids: Collection[int]
) -> dict[int, HeldWindow]:
    if not ids:
        return {}
    cursor.execute(
        "SELECT id, budget_id, revision, group_key, starts_at FROM budget_window"
        " WHERE tenant_id = %s AND id = ANY(%s)",
        [tenant_id, list(ids)],
    )
    return {
        row[0]: HeldWindow(row[0], row[2], WindowKey(row[1], tuple(json.loads(row[3])), row[4]))
        for row in cursor.fetchall()
    }


def dimensions_of(values: Values) -> dict[str, str]:
    """The values that are there, by name."""
    return {name: value for name, value in zip(MATCHABLE, values, strict=True) if value}


def values_from(dimensions: Mapping[str, str]) -> Values:
    """The reverse of `dimensions_of`."""
    return tuple([dimensions.get(name, "") for name in MATCHABLE])


@dataclass(slots=True)
class LockedReservation:
    """A reservation's row, locked by this transaction, and how it changes; as _LOCKED_COLUMNS."""

    held: Held
    state: int
    expires_at: datetime
    finished_at: datetime | None
    fingerprint: str | None
    event_id: int | None
    cost_nanos: int | None
    used_tokens: int | None
    is_late: bool
    # Whether it is open and its time is over, by the clock of the database.
    is_due: bool
    is_changed: bool = False

    def finish(self, state: int, now: datetime) -> None:
        """End an open reservation without a cost."""
        assert self.state == OPEN, "only what is open ends"
        self.state = state
        self.is_due = False
        self.finished_at = now
        self.is_changed = True

    def extend(self, expires_at: datetime) -> None:
        """Let an open reservation last longer; never shorter."""
        assert self.state == OPEN, "only what is open is extended"
        self.expires_at = max(self.expires_at, expires_at)
        self.is_changed = True

    def settle(
        self,
        *,
        cost_nanos: int,
        used_tokens: int,
        event_id: int,
        fingerprint: str | None,
        now: datetime,
    ) -> None:
        """Record what the call cost. Any state but settled may be settled; all but open is late."""
        assert self.state != SETTLED, "settled once"
        self.is_late = self.state != OPEN
        self.state = SETTLED
        self.is_due = False
        self.finished_at = now
        self.cost_nanos = cost_nanos
        self.used_tokens = used_tokens
        self.event_id = event_id
        self.fingerprint = fingerprint
        self.is_changed = True

    def confirm(
        self, *, cost_nanos: int, used_tokens: int, event_id: int, fingerprint: str
    ) -> None:
        """Record the settle of a reservation that an event, posted before it, has settled."""
        assert self.fingerprint is None, "one settle is answered"
        self.cost_nanos = cost_nanos
        self.used_tokens = used_tokens
        self.event_id = event_id
        self.fingerprint = fingerprint
        self.is_changed = True

    def give_back(self, moves: "HoldMoves") -> None:
        """Add what its end gives back, in every window that it holds."""
        cost_nanos, tokens, requests, tool_calls = self.held.amounts
        given_back = Amounts(-cost_nanos, -tokens, -requests, -tool_calls)
        moves.add(self.held.windows.ids, HoldMove(given_back))

    def row(self) -> dict[str, object]:
        """Return the columns that change."""
        return {"id": self.held.id, **{name: getattr(self, name) for name in _CHANGING}}

    @property
    def overrun_nanos(self) -> int:
        """What the call cost above what was reserved for it."""
        return max(0, (self.cost_nanos or 0) - self.held.amounts.cost_nanos)

    @property
    def released_nanos(self) -> int:
        """What a settle gave back unused; nothing where the hold had ended before."""
        if self.is_late or self.state != SETTLED:
            return 0
        return max(0, self.held.amounts.cost_nanos - (self.cost_nanos or 0))


_CHANGING: Final = (
    "state",
    "expires_at",
    "finished_at",
    "fingerprint",
    "event_id",
    "cost_nanos",
    "used_tokens",
    "is_late",
)
_LOCKED_COLUMNS: Final = (
    "id, state, expires_at, finished_at, replace(fingerprint::text, '-', ''), event_id,"
    f" cost_nanos, used_tokens, is_late, state = {OPEN} AND expires_at <= clock_timestamp()"
)
LOCK_RESERVATIONS: Final = (
    f"SELECT {_LOCKED_COLUMNS} FROM reservation WHERE tenant_id = %s AND id = ANY(%s::uuid[])"
    " ORDER BY id FOR UPDATE"
)
_LOCK_DUE: Final = (
    f"SELECT {_LOCKED_COLUMNS} FROM reservation WHERE tenant_id = %s AND state = {OPEN}"
    f" AND expires_at <= now() AND id <> ALL(%s::uuid[]) ORDER BY id LIMIT {DUE_MAX}"
    " FOR UPDATE SKIP LOCKED"
)


def lock_reservations(tenant_id: int, held: Mapping[UUID, Held]) -> dict[UUID, LockedReservation]:
    """Lock these reservations in the order of their ids."""
    if not held:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(LOCK_RESERVATIONS, [tenant_id, list(held)])
        return locked_reservations_of(cursor.fetchall(), held)


def locked_reservations_of(
    rows: Iterable[Row], held: Mapping[UUID, Held]
) -> dict[UUID, LockedReservation]:
    """The reservations that LOCK_RESERVATIONS has locked."""
    return {row[0]: LockedReservation(held[row[0]], *row[1:]) for row in rows}


def lock_due(tenant_id: int, *, without: Collection[UUID] = ()) -> dict[UUID, LockedReservation]:
    """Lock open reservations whose time is over, skipping what another transaction has locked."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_DUE, [tenant_id, list(without)])
        rows = cursor.fetchall()
    return locked_reservations_of(rows, find_held(tenant_id, [row[0] for row in rows]))


# The ids are given besides, so that PostgreSQL looks them up by the index also where it takes the
# table for a small one: a plan is kept from when it was.
_WRITE: Final = f"""
    UPDATE reservation r SET {", ".join(f"{name} = n.{name}" for name in _CHANGING)}
    FROM json_populate_recordset(NULL::reservation, %s::json) n
    WHERE r.tenant_id = %s AND r.id = n.id AND r.id = ANY(%s::uuid[])
"""


def write_reservations(
    cursor: TakesStatements, tenant_id: int, reservations: Iterable[LockedReservation]
) -> None:
    """Store the locked reservations that changed, in one statement."""
    changed = [reservation for reservation in reservations if reservation.is_changed]
    if not changed:
        return
    rows = _encode([reservation.row() for reservation in changed]).decode()
    ids = [reservation.held.id for reservation in changed]
    cursor.execute(_WRITE, [rows, tenant_id, ids])
    for reservation in changed:
        reservation.is_changed = False


class HoldMoves:
    """How reserved amounts move, added up. Most reservations hold the same windows as others, so
    moves are kept by windows that move alike.
    """

    def __init__(self) -> None:
        self._moves: dict[tuple[int, ...], HoldMove] = {}

    def __bool__(self) -> bool:
        return bool(self._moves)

    def add(self, window_ids: tuple[int, ...], move: HoldMove) -> None:
        """Add the same move to each of these windows."""
        known = self._moves.get(window_ids)
        self._moves[window_ids] = move if known is None else known.plus(move)

    def add_all(self, moves: "HoldMoves") -> None:
        """Add other moves."""
        for window_ids, move in moves._moves.items():
            self.add(window_ids, move)

    def add_overrun(self, held: Held, book: BudgetIndex, nanos: int) -> None:
        """Note in the held windows that count what was booked beyond what was held."""
        if nanos > 0:
            self.add(held.windows.counting(book).ids, HoldMove(NOTHING, nanos))

    def by_window(self) -> dict[int, HoldMove]:
        """Return the moves of each window, added up."""
        by_window: dict[int, HoldMove] = {}
        for window_ids, move in self._moves.items():
            for window_id in window_ids:
                known = by_window.get(window_id)
                by_window[window_id] = move if known is None else known.plus(move)
        return by_window


def settle_with(  # noqa: PLR0913 - all of it is what a settle records
    reservation: LockedReservation,
    *,
    moves: HoldMoves,
    book: BudgetIndex,
    cost_nanos: int,
    used_tokens: int,
    event_id: int,
    fingerprint: str | None,
    is_posted: bool,
    now: datetime,
) -> int:
    """Settle a locked reservation: what it held goes back; return how much that was.

    `is_posted`: this transaction posts the whole cost, so what goes beyond the hold is noted as
    overrun. A call that was known before is judged by what moves (`settling`). `fingerprint` is of
    the settle; None if an event settled it.
    """
    if reservation.is_due:
        reservation.finish(EXPIRED, now)
        reservation.give_back(moves)
    held_nanos = 0
    if reservation.state == OPEN:
        reservation.give_back(moves)
        held_nanos = reservation.held.amounts.cost_nanos
    reservation.settle(
        cost_nanos=cost_nanos,
        used_tokens=used_tokens,
        event_id=event_id,
        fingerprint=fingerprint,
        now=now,
    )
    if is_posted:
        moves.add_overrun(reservation.held, book, cost_nanos - held_nanos)
    return held_nanos
