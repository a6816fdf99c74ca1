"""Looks at all windows at one moment, again and again while calls are made, and compares.

Between two looks a window under a blocking budget may only have grown up to its limit, apart from
recorded overrun and usage without a reservation. What it holds is always the sum of its open
reservations.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import psycopg

from bench.kit.database import Connection
from bench.kit.service import Service
from bench.soak.caps import Caps
from bench.soak.world import NOTHING, TIDY, Amounts, Budget, integers

SETTLE_ENTRY: Final = 6
# Ids of entries are handed out in portions, so that a smaller one may commit later.
ENTRIES_OVERLAP: Final = 20_000
DATABASE_PAUSE_SECONDS: Final = 0.2
KEPT_FINDINGS: Final = 20


class Window(NamedTuple):
    """A window as it stands."""

    budget_id: int
    spent: Amounts
    reserved: Amounts
    overrun_nanos: int
    carried_nanos: int

    @property
    def used(self) -> Amounts:
        """What is spent and reserved."""
        return self.spent.plus(self.reserved)


class Snapshot(NamedTuple):
    """All windows at one moment between two of the clock."""

    began: float
    ended: float
    windows: Mapping[int, Window]
    # By window: what its open reservations add up to.
    held: Mapping[int, Amounts]
    # By window: what was ever booked without a reservation, in nano-dollars.
    unreserved: Mapping[int, int]


class Entries:
    """What the ledger has booked without a reservation, read a little at a time."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._largest = 0
        self._sums: Counter[int] = Counter()

    def read(self, connection: Connection, tenant_ids: Sequence[int]) -> Mapping[int, int]:
        """Return the sums by window as of this transaction."""
        rows = connection.execute(
            "SELECT id, window_id, kind, cost_nanos FROM ledger_entry"
            " WHERE tenant_id = ANY(%s) AND id > %s",
            [list(tenant_ids), self._largest - ENTRIES_OVERLAP],
        ).fetchall()
        for entry_id, window_id, kind, nanos in rows:
            if entry_id not in self._seen and kind != SETTLE_ENTRY:
                self._sums[window_id] += max(0, int(nanos))
        self._seen = {row[0] for row in rows}
        self._largest = max(self._seen, default=self._largest)
        return dict(self._sums)


def look(connection: Connection, tenant_ids: Sequence[int], entries: Entries) -> Snapshot:
    """Read one moment of the database."""
    began = time.monotonic()
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SET LOCAL spendgate.platform = 'soak'")
        windows = {
            row[0]: Window(
                row[1], integers(row[2:6]), integers(row[6:10]), int(row[10]), int(row[11])
            )
            for row in connection.execute(
                "SELECT id, budget_id, spent_nanos, spent_tokens, spent_requests,"
                " spent_tool_calls, reserved_nanos, reserved_tokens, reserved_requests,"
                " reserved_tool_calls, overrun_nanos, carried_nanos FROM budget_window"
                " WHERE tenant_id = ANY(%s)",
                [list(tenant_ids)],
            )
        }
        held = {
            row[0]: integers(row[1:])
            for row in connection.execute(
                "SELECT window_id, sum(reserved_nanos), sum(reserved_tokens),"
                " sum(reserved_requests), sum(reserved_tool_calls)"
                " FROM reservation, unnest(window_ids) AS window_id"
                " WHERE tenant_id = ANY(%s) AND state = 1 GROUP BY window_id",
                [list(tenant_ids)],
            )
        }
        unreserved = entries.read(connection, tenant_ids)
    return Snapshot(began, time.monotonic(), windows, held, unreserved)


def wrong_holds(snapshot: Snapshot) -> Iterator[str]:
    """Yield windows that hold anything but their open reservations."""
    for window_id in snapshot.windows.keys() | snapshot.held.keys():
        window = snapshot.windows.get(window_id)
        reserved = window.reserved if window is not None else NOTHING
        if reserved != (held := snapshot.held.get(window_id, NOTHING)):
            yield f"window {window_id} holds {tuple(reserved)}, its reservations {tuple(held)}"


def overspent(
    before: Snapshot, after: Snapshot, *, budgets: Mapping[int, Budget], caps: Caps
) -> Iterator[str]:
    """Yield windows that have grown beyond what their budget allowed meanwhile."""
    for window_id, window in after.windows.items():
        budget = budgets.get(window.budget_id)
        if budget is None or not budget.blocks or budget.is_per_request:
            continue
        earlier = before.windows.get(window_id, Window(window.budget_id, NOTHING, NOTHING, 0, 0))
        if earlier == window:
            continue
        excused = _excused_nanos(window_id, earlier, window, before, after)
        # Nothing else is recorded of other parts, so they are compared where nothing else happens.
        parts = len(NOTHING) if budget.tenant == TIDY else 1
        for part in range(parts):
            cap = caps.largest(budget.id, part, since=before.began, until=after.ended)
            carried = max(earlier.carried_nanos, window.carried_nanos) if part == 0 else 0
            most = max(cap + carried, earlier.used[part]) + (excused if part == 0 else 0)
            if window.used[part] > most:
                yield (
                    f"{budget.name!r}, window {window_id}: {NOTHING._fields[part]} went from"
                    f" {earlier.used[part]:,} to {window.used[part]:,}, {most:,.0f} at most"
                )


def _excused_nanos(
    window_id: int, earlier: Window, window: Window, before: Snapshot, after: Snapshot
) -> int:
    """Return what was recorded as overrun, and what was booked without a reservation."""
    unreserved = after.unreserved.get(window_id, 0) - before.unreserved.get(window_id, 0)
    return unreserved + window.overrun_nanos - earlier.overrun_nanos


class Watch:
    """Takes snapshots until it is stopped. What it finds wrong stays in `found`."""

    def __init__(
        self,
        *,
        service: Service,
        budgets: Callable[[], Mapping[int, Budget]],
        caps: Caps,
        tenant_ids: Sequence[int],
        every_seconds: float,
    ) -> None:
        self.found: Counter[str] = Counter()
        self.looks = 0
        self._service = service
        self._budgets = budgets
        self._caps = caps
        self._every_seconds = every_seconds
        self._entries = Entries()
        self._last: Snapshot | None = None
        self._tenant_ids = tenant_ids

    def run(self, stopping: threading.Event) -> None:
        """Look every so often. While the database is down there is nothing to see."""
        while not stopping.is_set():
            try:
                with self._service.connect() as connection:
                    while not stopping.wait(self._every_seconds):
                        self.look(connection)
            except (psycopg.Error, OSError, ValueError):
                stopping.wait(DATABASE_PAUSE_SECONDS)
            except Exception as error:
                self._note(f"the watch ended with {error!r}")
                return

    def look(self, connection: Connection) -> None:
        """Look once, and compare with the look before."""
        snapshot = look(connection, self._tenant_ids, self._entries)
        self.looks += 1
        for finding in wrong_holds(snapshot):
            self._note(finding)
        if self._last is not None:
            findings = overspent(self._last, snapshot, budgets=self._budgets(), caps=self._caps)
            for finding in findings:
                self._note(finding)
        self._last = snapshot

    def _note(self, finding: str) -> None:
        if len(self.found) < KEPT_FINDINGS:
            self.found[finding] += 1
