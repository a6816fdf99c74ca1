"""Compares the database with what it must be while calls are made."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import psycopg

from bench.service import Service
from bench.soak.caps import Caps
from bench.soak.snapshots import Connection, Entries, Snapshot, look, overspent, wrong_holds
from bench.soak.world import Budget

DATABASE_PAUSE_SECONDS: Final = 0.2
KEPT_FINDINGS: Final = 20


class Watch:
    """Takes snapshots until it is stopped. What it finds wrong stays in `found`."""

    def __init__(
        self,
        *,
        service: Service,
        budgets: Callable[[], Mapping[int, Budget]],
        caps: Caps,
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
        self._tenant_ids: list[int] = []

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
        """One look, compared with the one before."""
        if not self._tenant_ids:
            self._tenant_ids = _tenant_ids(connection)
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


def _tenant_ids(connection: Connection) -> list[int]:
    with connection.transaction():
        connection.execute("SET LOCAL spendgate.platform = 'soak'")
        return [row[0] for row in connection.execute("SELECT id FROM tenant")]
