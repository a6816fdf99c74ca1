"""The processes that make calls, each with a few clients in threads."""

import ctypes
import signal
import threading
from collections.abc import Mapping
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.kit.caller import Progress
from bench.soak.actor import Actor, Seat
from bench.soak.calls import Prices
from bench.soak.records import Memory
from bench.soak.reporter import REPORTERS, Reporter, Told
from bench.soak.world import BULK, ROUGH, TIDY

NUMBERS: Final = 2
PR_SET_PDEATHSIG: Final = 1
JOIN_SECONDS: Final = 30.0


class Plan(NamedTuple):
    """Who does how much."""

    port: int
    headers: Mapping[str, Mapping[str, str]]
    seed: str
    operations: int
    events: int
    seconds: float
    processes: int
    clients: int
    now: datetime
    begins_at: float
    records: Path

    def seats(self, process: int) -> list[Seat]:
        """Return the clients of one process; half of all operations are the tidy tenant's."""
        clients = self.clients if self.operations else 0
        return [
            self._seat(f"p{process}c{client}", (TIDY, ROUGH)[client % 2], self.operations, place)
            for client in range(clients)
            for place in [(process * clients + client, self.processes * clients)]
        ]

    def reporting_seats(self, process: int) -> list[Seat]:
        """Return the clients of one process that report without asking first."""
        reporters = REPORTERS if self.events else 0
        return [
            self._seat(f"p{process}r{reporter}", BULK, self.events, place)
            for reporter in range(reporters)
            for place in [(process * reporters + reporter, self.processes * reporters)]
        ]

    def _seat(self, name: str, tenant: str, whole: int, place: tuple[int, int]) -> Seat:
        return Seat(
            name=name,
            tenant=tenant,
            port=self.port,
            headers=self.headers[tenant],
            seed=f"{self.seed}-{name}",
            operations=_share(whole, *place),
            seconds=self.seconds,
            begins_at=self.begins_at,
            records=self.records / name,
        )


def _share(whole: int, place: int, places: int) -> int:
    """A part of a whole number, so that all parts add up to it."""
    return whole * (place + 1) // places - whole * place // places


class Clients:
    """All processes at once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.memory = Memory()
        context = get_context("fork")
        self._numbers = [context.Array("q", NUMBERS, lock=False) for _ in range(plan.processes)]
        self._results: Queue[Memory] = context.Queue()
        self._processes: list[BaseProcess] = [
            context.Process(
                target=_work,
                args=(plan, process, self._numbers[process], self._results),
                daemon=True,
            )
            for process in range(plan.processes)
        ]
        self._collector = threading.Thread(target=self._collect, daemon=True)

    def start(self) -> None:
        """Let them begin."""
        for process in self._processes:
            process.start()
        self._collector.start()

    def stop(self) -> None:
        """End them, whatever they have not done."""
        if self._collector.ident is not None:
            self._collector.join(0 if self.is_going() else JOIN_SECONDS)
        for process in self._processes:
            process.kill()

    def is_going(self) -> bool:
        """Whether any of them still has something to do."""
        return self._collector.is_alive()

    @property
    def done(self) -> int:
        """How many operations are done."""
        return sum(numbers[0] for numbers in self._numbers)

    @property
    def in_flight(self) -> int:
        """How many requests are on their way."""
        return sum(numbers[1] for numbers in self._numbers)

    @property
    def share(self) -> float:
        """How much of all that is to be done is done."""
        return self.done / max(1, self.plan.operations + self.plan.events)

    def _collect(self) -> None:
        for _ in self._processes:
            self.memory.add(self._results.get())


def _work(plan: Plan, process: int, numbers: Any, results: "Queue[Memory]") -> None:
    """One process: its clients at once, then all that they remember."""
    # Whatever ends the one that started it ends this one too.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prices, progress, told = Prices(plan.now), Progress(numbers), Told()
    clients: list[Actor | Reporter] = [
        *(Actor(seat, prices=prices, progress=progress) for seat in plan.seats(process)),
        *(
            Reporter(seat, prices=prices, progress=progress, told=told)
            for seat in plan.reporting_seats(process)
        ),
    ]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory = Memory()
    for client in clients:
        memory.add(client.memory)
    results.put(memory)
