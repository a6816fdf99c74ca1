"""What the database has at the end: reservations, events, windows, budgets. Read, not judged."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from bench.kit.database import Connection, Row, fetch_rows
from bench.soak.records import RETOLD, Frame
from bench.soak.world import Amounts, WindowKey, group_of, integers

OPEN: Final = 1
SETTLED: Final = 2
STATES: Final = {1: "open", 2: "settled", 3: "released", 4: "expired"}
TOOL: Final = 3


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
    # Of the dimensions those that no reservation can have added.
    named: tuple[str, str, str] = ("", "", "")


class WindowRow(NamedTuple):
    """A window as it is stored."""

    budget_id: int
    revision: int
    key: WindowKey
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
    """Windows and budgets, and the number of rows of everything else."""

    windows: dict[int, WindowRow] = field(default_factory=dict)
    budgets: dict[int, BudgetRow] = field(default_factory=dict)
    # Reservations by status.
    reservations: Counter[str] = field(default_factory=Counter)
    events: int = 0
    # Events beyond the first that have the same name.
    repeated: int = 0

    def held_keys(self, row: ReservationRow) -> Mapping[int, WindowKey]:
        """Return, by budget, the windows of the present revision that a reservation held."""
        windows = [self.windows[window_id] for window_id in row.window_ids]
        return {
            window.budget_id: window.key
            for window in windows
            if window.revision == self.budgets[window.budget_id].revision
        }


class Rows(NamedTuple):
    """What is stored of a frame of the clients' records."""

    reservations: Mapping[str, ReservationRow]
    events: Mapping[str, EventRow]


class Archive:
    """One moment of the database, read a frame at a time, so that memory stays small."""

    def __init__(self, connection: Connection, tenant_ids: Sequence[int]) -> None:
        self._connection = connection
        connection.execute("SELECT set_config('spendgate.platform', 'soak', false)")
        for query in COPIES:
            connection.execute(query, [list(tenant_ids)])
        connection.execute(INDEXES)

    def books(self) -> Books:
        """Return all windows and budgets, and the counts of the rest."""
        return Books(
            windows={row[0]: _window(row) for row in self._rows("SELECT * FROM soak_window")},
            budgets={
                row[0]: BudgetRow(*row[1:]) for row in self._rows("SELECT * FROM soak_budget")
            },
            reservations=Counter(
                {
                    STATES[row[0]]: row[1]
                    for row in self._rows("SELECT state, count(*) FROM soak_reservation GROUP BY 1")
                }
            ),
            events=self._number("SELECT count(*) FROM soak_event"),
            repeated=self._number("SELECT count(*) - count(DISTINCT sent_id) FROM soak_event"),
        )

    def rows(self, frame: Frame) -> Rows:
        """Return what is stored of a frame."""
        sent = [event.sent_id for _, event, _ in frame.events]
        sent += [event.sent_id for hold in frame.holds for event, _ in hold.settles]
        names = [*sent, *(sent_id + RETOLD for sent_id in sent)]
        holds = [hold.id for hold in frame.holds if hold.id]
        by_id = "SELECT * FROM soak_reservation WHERE id = ANY(%s::uuid[])"
        return Rows(
            {
                str(row[0]): ReservationRow(
                    str(row[0]), row[1], row[2], Amounts(*row[3:7]), tuple(row[7]), *row[8:]
                )
                for row in self._rows(by_id, holds)
            },
            {
                row[0]: _event(row)
                for row in self._rows("SELECT * FROM soak_event WHERE sent_id = ANY(%s)", names)
            },
        )

    def status(self, reservation_id: str) -> str:
        """Return what has become of a reservation."""
        by_id = "SELECT state FROM soak_reservation WHERE id = ANY(%s::uuid[])"
        return "".join(STATES[row[0]] for row in self._rows(by_id, [reservation_id]))

    def _rows(self, query: str, names: Iterable[str] | None = None) -> Iterator[Row]:
        yield from self._connection.execute(query, None if names is None else [list(names)])

    def _number(self, query: str) -> int:
        ((number,),) = self._rows(query)
        return int(number)


# Until these find nothing there is more to come.
OPEN_RESERVATIONS: Final = "SELECT FROM reservation WHERE state = 1 AND tenant_id = ANY(%s)"
WAITING_BATCHES: Final = (
    "SELECT FROM ingest_batch WHERE rolled_up_at IS NULL AND tenant_id = ANY(%s)"
)


def tenants_named(connection: Connection, names: Sequence[str]) -> list[int]:
    """Return the ids of tenants."""
    query = "SELECT id FROM tenant WHERE name = ANY(%s)"
    return [row[0] for row in fetch_rows(connection, query, [list(names)])]


def sums_by_tenant(connection: Connection) -> dict[str, str]:
    """Return the number and the cost of every tenant's events, which no later part may change."""
    rows = fetch_rows(
        connection,
        "SELECT t.name, count(*), sum(e.cost_nanos) FROM usage_event e"
        " JOIN tenant t ON t.id = e.tenant_id WHERE NOT e.is_void GROUP BY t.name",
    )
    return {row[0]: f"{row[1]} events, {row[2]} nano-dollars" for row in rows}


COPIES: Final = (
    "CREATE TEMP TABLE soak_budget AS SELECT id, revision, counts_from FROM budget"
    " WHERE tenant_id = ANY(%s)",
    "CREATE TEMP TABLE soak_window AS SELECT id, budget_id, revision, group_key, starts_at,"
    " counted_from, spent_nanos, spent_tokens, spent_requests, spent_tool_calls, reserved_nanos,"
    " reserved_tokens, reserved_requests, reserved_tool_calls, overrun_nanos FROM budget_window"
    " WHERE tenant_id = ANY(%s)",
    "CREATE TEMP TABLE soak_reservation AS SELECT id, state, created_at, reserved_nanos,"
    " reserved_tokens, reserved_requests, reserved_tool_calls, window_ids, event_id, cost_nanos,"
    " used_tokens, is_late FROM reservation WHERE tenant_id = ANY(%s)",
    "CREATE TEMP TABLE soak_event AS SELECT sent_id, id, time, coalesce(cost_nanos, 0),"
    " input_tokens + output_tokens, operation, reservation_id, team, customer, agent"
    " FROM usage_event WHERE NOT is_void AND tenant_id = ANY(%s)",
)
INDEXES: Final = (
    "CREATE INDEX ON soak_reservation (id); CREATE INDEX ON soak_event (sent_id);"
    " ANALYZE soak_reservation; ANALYZE soak_event"
)


def _window(row: Row) -> WindowRow:
    return WindowRow(
        budget_id=row[1],
        revision=row[2],
        key=WindowKey(group_of(row[3]), row[4]),
        counted_from=row[5],
        spent=integers(row[6:10]),
        reserved=integers(row[10:14]),
        overrun_nanos=int(row[14]),
    )


def _event(row: Row) -> EventRow:
    is_tool = row[5] == TOOL
    return EventRow(
        id=row[1],
        at=row[2],
        amounts=Amounts(row[3], row[4], int(not is_tool), int(is_tool)),
        reservation=None if row[6] is None else str(row[6]),
        named=row[7:10],
    )
