"""The processes that make calls, each with a few clients in threads."""

import ctypes
import signal
import threading
from collections.abc import Mapping
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any, Final, NamedTuple

from bench.soak.actor import Actor, Seat
from bench.soak.caller import Progress
from bench.soak.calls import Prices
from bench.soak.records import Memory
from bench.soak.world import ROUGH, TIDY

NUMBERS: Final = 2
PR_SET_PDEATHSIG: Final = 1
JOIN_SECONDS: Final = 30.0


class Plan(NamedTuple):
    """Who does how much."""

    port: int
    headers: Mapping[str, Mapping[str, str]]
    seed: int
    operations: int
    seconds: float
    processes: int
    clients: int
    now: datetime
    begins_at: float

    def seats(self, process: int) -> list[Seat]:
        """The clients of one process; half of all work for the tidy tenant."""
        seats = self.processes * self.clients
        return [
            Seat(
                name=f"p{process}c{client}",
                tenant=(tenant := (TIDY, ROUGH)[client % 2]),
                port=self.port,
                headers=self.headers[tenant],
                seed=f"{self.seed}-{process}-{client}",
                operations=_share(self.operations, process * self.clients + client, seats),
                seconds=self.seconds,
                begins_at=self.begins_at,
            )
            for client in range(self.clients)
        ]


def _share(whole: int, place: int, places: int) -> int:
    """A part of a whole number, so that all parts add up to it."""
    return whole * (place + 1) // places - whole * place // places


class Acknowledged:
    """How many operations are done, as the killer of processes asks for it."""

    def __init__(self, clients: "Clients") -> None:
        self._clients = clients

    @property
    def acknowledged(self) -> int:
        """Operations that were answered."""
        return self._clients.done


class Clients:
    """All processes at once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Acknowledged(self)
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
        return self.done / max(1, self.plan.operations)

    def _collect(self) -> None:
        for _ in self._processes:
            self.memory.add(self._results.get())


def _work(plan: Plan, process: int, numbers: Any, results: "Queue[Memory]") -> None:
    """One process: its clients at once, then all that they remember."""
    # Whatever ends the one that started it ends this one too.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prices, progress = Prices(plan.now), Progress(numbers)
    actors = [Actor(seat, prices=prices, progress=progress) for seat in plan.seats(process)]
    threads = [threading.Thread(target=actor.run) for actor in actors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory = Memory()
    for actor in actors:
        memory.add(actor.memory)
    results.put(memory)
