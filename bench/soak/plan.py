"""Who does how much: the scale of a run, divided among the clients of its processes."""

import random
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from bench.kit.caller import Caller, Progress, Tally
from bench.soak.world import BULK, ROUGH, TIDY

# Reporting clients of each process.
REPORTERS: Final = 4


class Scale(NamedTuple):
    """How much is done, and by how many clients."""

    operations: int
    events: int = 0
    processes: int = 4
    # Of each process.
    clients: int = 12
    # It is spread over this time at least.
    seconds: float = 0.0

    @property
    def work(self) -> int:
        """Operations and events."""
        return self.operations + self.events


class Plan(NamedTuple):
    """What all clients of a run have in common."""

    port: int
    headers: Mapping[str, Mapping[str, str]]
    seed: str
    scale: Scale
    now: datetime
    begins_at: float
    records: Path

    def seats(self, process: int) -> Iterator["Seat"]:
        """Yield the clients of one process; half of all operations are the tidy tenant's."""
        clients = self.scale.clients if self.scale.operations else 0
        for client in range(clients):
            tenant = (TIDY, ROUGH)[client % 2]
            share = self._share(self.scale.operations, process * clients + client, clients)
            yield Seat(self, f"p{process}c{client}", tenant, share)

    def reporting_seats(self, process: int) -> Iterator["Seat"]:
        """Yield the clients of one process that report without asking first."""
        reporters = REPORTERS if self.scale.events else 0
        for reporter in range(reporters):
            share = self._share(self.scale.events, process * reporters + reporter, reporters)
            yield Seat(self, f"p{process}r{reporter}", BULK, share)

    def _share(self, total: int, number: int, clients: int) -> int:
        """Return a client's part of a number, so that all parts add up to it."""
        count = self.scale.processes * clients
        return total * (number + 1) // count - total * number // count


class Seat(NamedTuple):
    """Which client this is, and what it has to do."""

    plan: Plan
    name: str
    tenant: str
    operations: int

    @property
    def records(self) -> Path:
        """The file to which the client writes what it is through with."""
        return self.plan.records / self.name

    def pick(self) -> random.Random:
        """Return the client's own random numbers."""
        return random.Random(f"{self.plan.seed}-{self.name}")

    def caller(self, tally: Tally, pick: random.Random, progress: Progress) -> Caller:
        """Open a connection of this client."""
        return Caller(self.plan.port, self.plan.headers[self.tenant], tally, pick, progress)

    def wait_for_turn(self, number: int) -> None:
        """Come back when an operation is due."""
        due_at = self.plan.begins_at + self.plan.scale.seconds * number / self.operations
        time.sleep(max(0.0, due_at - time.monotonic()))
