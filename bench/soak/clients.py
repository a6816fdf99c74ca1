"""The processes that make calls, each with a few clients in threads."""

import ctypes
import signal
import threading
from collections import deque
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Final

from bench.kit.caller import Progress
from bench.soak.actor import Actor
from bench.soak.calls import Prices
from bench.soak.plan import Plan
from bench.soak.records import Event, Memory
from bench.soak.reporter import TOLD_MAX, Reporter

NUMBERS: Final = 2
PR_SET_PDEATHSIG: Final = 1
JOIN_SECONDS: Final = 30.0


class Clients:
    """All processes together."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.memory = Memory()
        context = get_context("fork")
        self._numbers = [
            context.Array("q", NUMBERS, lock=False) for _ in range(plan.scale.processes)
        ]
        self._results: Queue[Memory] = context.Queue()
        self._processes: list[BaseProcess] = [
            context.Process(
                target=_work,
                args=(plan, process, self._numbers[process], self._results),
                daemon=True,
            )
            for process in range(plan.scale.processes)
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
        """The number of operations that are done."""
        return sum(numbers[0] for numbers in self._numbers)

    @property
    def in_flight(self) -> int:
        """The number of requests on their way."""
        return sum(numbers[1] for numbers in self._numbers)

    @property
    def share(self) -> float:
        """The share of all work that is done."""
        return self.done / max(1, self.plan.scale.work)

    def _collect(self) -> None:
        for _ in self._processes:
            self.memory.add(self._results.get())


def _work(plan: Plan, process: int, numbers: object, results: "Queue[Memory]") -> None:
    """Run the clients of one process, then hand over all that they remember."""
    # Whatever ends the one that started it ends this one too.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prices, progress = Prices(plan.now), Progress(numbers)
    # The latest calls of all clients of this process, acknowledged or not.
    told: deque[Event] = deque(maxlen=TOLD_MAX)
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
