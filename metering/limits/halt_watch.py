"""What this process knows of halts, so that a call is refused without the database, and while the
database is slow or down.

One thread of each process reads the halts of all tenants that the process serves, several times a
second, on a connection of its own. While the database cannot be reached, what is known stays in
force, and refusals wait in memory to be recorded.
"""

import atexit
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from django.db import InterfaceError, OperationalError, connection
from django.db.backends.utils import CursorWrapper

from metering.limits.decisions import DecisionRow, insert_decisions
from metering.limits.halts import (
    HALTS_SQL,
    NO_HALTS,
    ActiveHalts,
    HaltsQuestion,
    forget_halts_of,
    halts_changed,
    remembered_halts,
)
from tenants.scope import platform_scope

log = structlog.get_logger(__name__)

# A halt must be in force everywhere within a second: two readings, and time for each.
PAUSE_SECONDS: Final = 0.25
# Without tenants to watch the thread sleeps until there is one; this is for a signal missed.
IDLE_SECONDS: Final = 30.0
# A tenant that no one asked about for so long is no longer watched.
WATCHED_SECONDS: Final = 3600.0
STATEMENT_TIMEOUT: Final = "2s"
# After so long without an answer, no one who can do without the database should wait for it. This,
# and a pause, end before what is told of keys counts no more (`tenants.changes`): a halted agent is
# refused without a question about its key that would hang.
SILENT_SECONDS: Final = 0.4
REFUSALS_MAX: Final = 10_000
REFUSALS_AT_ONCE: Final = 1_000
# While the database is down the log says so this often.
COMPLAINT_SECONDS: Final = 60.0
STOP_SECONDS: Final = 2.0


class HaltWatcher:
    """The thread of a process that keeps its memory of halts fresh."""

    def __init__(self) -> None:
        self._asked_at: dict[int, float] = {}
        # The oldest give way: a process that cannot write must not grow without bound.
        self._refusals: deque[tuple[int, DecisionRow]] = deque(maxlen=REFUSALS_MAX)
        self._unwritten: list[tuple[int, DecisionRow]] = []
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        # Held while the database is asked.
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._complained_at = -COMPLAINT_SECONDS
        # Since when the database has been asked without an answer.
        self._unanswered_since: float | None = None

    def watch(self, tenant_id: int) -> None:
        """Keep the halts of a tenant in memory from now on."""
        is_first = not self._asked_at
        self._asked_at[tenant_id] = time.monotonic()
        if is_first:
            # Otherwise it looks soon.
            halts_changed.set()
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def refuse(self, tenant_id: int, row: DecisionRow) -> None:
        """Record a refusal soon."""
        self._refusals.append((tenant_id, row))
        self.watch(tenant_id)

    def is_unanswered(self) -> bool:
        """Whether the database has not answered for a while, however it fails to."""
        since = self._unanswered_since
        return since is not None and since < time.monotonic() - SILENT_SECONDS

    def stop(self) -> None:
        """Write what waits, then end the thread and its connection. Being asked again starts
        another.
        """
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopping.set()
        halts_changed.set()
        if thread is not None:
            # No longer than that: without a database it may be on its way there for a while.
            thread.join(STOP_SECONDS)

    def forget(self) -> None:
        """Forget all tenants and what waits, and do not look at the database until asked."""
        with self._turn:
            self._asked_at.clear()
            self._refusals.clear()
            self._unwritten.clear()
            self._unanswered_since = None

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            # A thread that was stopped and is still under way keeps the event that stopped it.
            self._stopping = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=[self._stopping], name="halt watcher", daemon=True
            )
            self._thread.start()

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            looked_at = time.monotonic()
            is_idle = not self.look()
            pause_seconds = max(0.0, looked_at + PAUSE_SECONDS - time.monotonic())
            halts_changed.wait(IDLE_SECONDS if is_idle else pause_seconds)
            halts_changed.clear()
        if self._refusals or self._unwritten:
            self.look()
        connection.close()

    def look(self) -> bool:
        """Read the halts of the watched tenants once, and write what waits. False where there was
        nothing to do.
        """
        with self._turn:
            self._forget_unasked()
            if not (self._asked_at or self._refusals or self._unwritten):
                connection.close()
                return False
            if self._unanswered_since is None:
                self._unanswered_since = time.monotonic()
            try:
                connection.close_if_unusable_or_obsolete()
                self._read()
                self._unanswered_since = None
                self._write_refusals()
            except Exception as error:  # the thread continues whatever happened
                connection.close()
                self._complain(error)
            return True

    def _forget_unasked(self) -> None:
        since = time.monotonic() - WATCHED_SECONDS
        gone = [tenant_id for tenant_id, at in self._asked_at.copy().items() if at < since]
        for tenant_id in gone:
            del self._asked_at[tenant_id]
        forget_halts_of(gone)

    def _read(self) -> None:
        question = HaltsQuestion(self._asked_at.copy())
        with _short_cursor("halts of the tenants that this process serves") as cursor:
            cursor.execute(HALTS_SQL, question.parameters)
            question.take(cursor.fetchall())

    def _write_refusals(self) -> None:
        while self._unwritten or self._refusals:
            while self._refusals and len(self._unwritten) < REFUSALS_AT_ONCE:
                self._unwritten.append(self._refusals.popleft())
            try:
                _write(self._unwritten)
            except (OperationalError, InterfaceError):
                # They stay, for when the database is back.
                raise
            except Exception:
                log.exception("refusals cannot be recorded", refusals=len(self._unwritten))
            self._unwritten.clear()

    def _complain(self, error: Exception) -> None:
        if time.monotonic() >= self._complained_at + COMPLAINT_SECONDS:
            self._complained_at = time.monotonic()
            log.warning("halts cannot be read; those known stay in force", error=str(error))


def _write(refusals: list[tuple[int, DecisionRow]]) -> None:
    """In one transaction: what failed was not written, and can be written again."""
    by_tenant: dict[int, list[DecisionRow]] = {}
    for tenant_id, row in refusals:
        by_tenant.setdefault(tenant_id, []).append(row)
    with _short_cursor("refusals by halts that this process knew") as cursor:
        for tenant_id, rows in by_tenant.items():
            insert_decisions(cursor, tenant_id, rows)


@contextmanager
def _short_cursor(reason: str) -> Iterator[CursorWrapper]:
    """A transaction over all tenants, whose statements may not take long."""
    with platform_scope(reason), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'")
        yield cursor


PROCESS_WATCHER: Final = HaltWatcher()
# What waits is written before the process ends.
atexit.register(PROCESS_WATCHER.stop)


def known_halts(tenant_id: int) -> ActiveHalts:
    """The tenant's halts as this process knows them, half a second old at most while the database
    answers. From the first question on they are kept fresh.
    """
    PROCESS_WATCHER.watch(tenant_id)
    known = remembered_halts(tenant_id)
    return NO_HALTS if known is None else known


def is_database_silent() -> bool:
    """Whether the database has not answered this process for a while: what is known here is
    then the best that there is.
    """
    return PROCESS_WATCHER.is_unanswered()


def remember_refusal(tenant_id: int, row: DecisionRow) -> None:
    """Record a refusal that was made from memory: within a second, or once the database is back."""
    PROCESS_WATCHER.refuse(tenant_id, row)


def stop_watching() -> None:
    """End the thread and its connection."""
    PROCESS_WATCHER.stop()


def forget_halts() -> None:
    """Empty this process's memory (tests make tenants again under the same ids)."""
    PROCESS_WATCHER.forget()
    forget_halts_of(None)
