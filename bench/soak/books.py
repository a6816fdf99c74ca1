"""What the database has at the end: reservations, events, windows, budgets. Read, not judged."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg

from bench.soak.world import Amounts, Place, group_of

OPEN: Final = 1
SETTLED: Final = 2
STATES: Final = {1: "open", 2: "settled", 3: "released", 4: "expired"}
TOOL: Final = 3
ROWS_AT_ONCE: Final = 20_000


class ReservationRow(NamedTuple):
    """A reservation as it is stored."""

    id: str
    state: int
    created_at: datetime
    amounts: Amounts
    window_ids: tuple[int, ...]
    event_id: int | None
    cost_nanos: int | None
    used_tokens: int | None
    is_late: bool

    @property
    def status(self) -> str:
        """Its state as the API says it."""
        return STATES[self.state]


class EventRow(NamedTuple):
    """An event as it is stored."""

    id: int
    at: datetime
    amounts: Amounts
    reservation: str | None


class WindowRow(NamedTuple):
    """A window as it is stored."""

    budget_id: int
    revision: int
    place: Place
    counted_from: datetime | None
    spent: Amounts
    reserved: Amounts
    overrun_nanos: int


class BudgetRow(NamedTuple):
    """Of a budget what the service decides by itself."""

    revision: int
    counts_from: datetime


@dataclass
class Books:
    """All of it, as of one moment."""

    reservations: dict[str, ReservationRow] = field(default_factory=dict)
    events: dict[str, EventRow] = field(default_factory=dict)
    windows: dict[int, WindowRow] = field(default_factory=dict)
    budgets: dict[int, BudgetRow] = field(default_factory=dict)
    # Events beyond the first that have the same name.
    repeated: int = 0

    def held_places(self, row: ReservationRow) -> Mapping[int, Place]:
        """By budget, the windows of the present revision that a reservation held."""
        windows = [self.windows[window_id] for window_id in row.window_ids]
        return {
            window.budget_id: window.place
            for window in windows
            if window.revision == self.budgets[window.budget_id].revision
        }


def read_books(connection: psycopg.Connection[Any]) -> Books:
    """Everything, in one transaction."""
    books = Books()
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SET LOCAL spendgate.platform = 'soak'")
        for row in _rows(connection, "SELECT id, revision, counts_from FROM budget"):
            books.budgets[row[0]] = BudgetRow(*row[1:])
        for row in _rows(connection, WINDOWS):
            books.windows[row[0]] = _window(row)
        for row in _rows(connection, RESERVATIONS):
            books.reservations[str(row[0])] = ReservationRow(
                str(row[0]), row[1], row[2], Amounts(*row[3:7]), tuple(row[7]), *row[8:]
            )
        for row in _rows(connection, EVENTS):
            books.repeated += row[0] in books.events
            books.events[row[0]] = _event(row)
    return books


def count_open(connection: psycopg.Connection[Any]) -> int:
    """How many reservations still hold something."""
    with connection.transaction():
        connection.execute("SET LOCAL spendgate.platform = 'soak'")
        row = connection.execute("SELECT count(*) FROM reservation WHERE state = 1").fetchone()
    return int(row[0]) if row else 0


# The tenant that misbehaves has books of its own, which are not compared with what clients say.
COMPARED: Final = "tenant_id IN (SELECT id FROM tenant WHERE name IN ('tidy', 'rough'))"
WINDOWS: Final = (
    "SELECT id, budget_id, revision, group_key, starts_at, counted_from, spent_nanos,"
    " spent_tokens, spent_requests, spent_tool_calls, reserved_nanos, reserved_tokens,"
    " reserved_requests, reserved_tool_calls, overrun_nanos FROM budget_window"
)
RESERVATIONS: Final = (
    "SELECT id, state, created_at, reserved_nanos, reserved_tokens, reserved_requests,"  # noqa: S608
    " reserved_tool_calls, window_ids, event_id, cost_nanos, used_tokens, is_late FROM reservation"
    f" WHERE {COMPARED}"
)
EVENTS: Final = (
    "SELECT sent_id, id, time, coalesce(cost_nanos, 0),"  # noqa: S608 - built from constants
    " input_tokens + output_tokens, operation,"
    f" reservation_id FROM usage_event WHERE NOT is_void AND {COMPARED}"
)


def _window(row: tuple[Any, ...]) -> WindowRow:
    return WindowRow(
        budget_id=row[1],
        revision=row[2],
        place=Place(group_of(row[3]), row[4]),
        counted_from=row[5],
        spent=Amounts(*row[6:10]),
        reserved=Amounts(*row[10:14]),
        overrun_nanos=row[14],
    )


def _event(row: tuple[Any, ...]) -> EventRow:
    is_tool = row[5] == TOOL
    return EventRow(
        id=row[1],
        at=row[2],
        amounts=Amounts(row[3], row[4], int(not is_tool), int(is_tool)),
        reservation=None if row[6] is None else str(row[6]),
    )


def _rows(connection: psycopg.Connection[Any], query: str) -> Iterator[tuple[Any, ...]]:
    with connection.cursor(name="books") as cursor:
        cursor.itersize = ROWS_AT_ONCE
        cursor.execute(query)
        yield from cursor
