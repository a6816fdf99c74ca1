"""Combines callers: what waits in a process is committed together, one transaction a tenant.

Nothing waits on purpose: a job that arrives while no transaction runs is committed at once, and
those that arrive meanwhile make up the next one. Tenants take turns.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from django.db import connection

from metering.ingest import commit_jobs
from metering.job import Job

# Large enough that the windows touched by a transaction cost little an event, and small enough that
# a transaction takes well under a second.
MERGED_EVENTS_MAX: Final = 5_000
THREADS: Final = 2
# After so long a connection is made anew, which takes some milliseconds.
IDLE_SECONDS: Final = 60.0


class Combinable(Protocol):
    """What callers wait for: of one tenant, and as heavy as so many events."""

    @property
    def tenant_id(self) -> int: ...

    @property
    def weight(self) -> int: ...


Work = TypeVar("Work", bound=Combinable)


# Told once what a caller waits for is durable, or why it is not. It must not block or raise.
Done = Callable[[Exception | None], None]


class _Waiting(NamedTuple, Generic[Work]):
    """A caller's work, and whom to tell that it is done."""

    work: Work
    done: Done


class Committer(Generic[Work]):
    """The threads of one process that commit on behalf of its callers.

    `commit` takes one tenant's works together and settles between them whose error is whose; what
    it raises is every caller's. With `is_one_a_tenant` a tenant has one transaction at a time,
    which leaves more callers to each: for work that would wait for the same rows anyway.
    """

    def __init__(
        self,
        commit: Callable[[int, Sequence[Work]], None],
        *,
        name: str,
        threads: int = THREADS,
        weight_max: int = MERGED_EVENTS_MAX,
        is_one_a_tenant: bool = False,
    ) -> None:
        self._commit_works = commit
        self._name = name
        self._threads_max = threads
        self._weight_max = weight_max
        self._is_one_a_tenant = is_one_a_tenant
        self._threads: list[threading.Thread] = []
        self._is_stopping = False
        self._queues: OrderedDict[int, deque[_Waiting[Work]]] = OrderedDict()
        # Tenants whose transaction runs; their queues wait beside the others.
        self._busy: dict[int, deque[_Waiting[Work]]] = {}
        self._changed = threading.Condition()

    def submit(self, work: Work) -> None:
        """Commit the work and come back when it is durable. Raises what the commit raised."""
        waiting = threading.Event()
        errors: list[Exception] = []

        def done(error: Exception | None) -> None:
            if error is not None:
                errors.append(error)
            waiting.set()

        self.enqueue(work, done)
        waiting.wait()
        if errors:
            raise errors.pop()

    def enqueue(self, work: Work, done: Done) -> None:
        """Commit the work, and call `done` from the thread that did."""
        with self._changed:
            self._queue_of(work.tenant_id).append(_Waiting(work, done))
            if len(self._threads) < self._threads_max:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify()

    def stop(self) -> None:
        """Commit what waits, then end the threads and their connections. Later work starts new
        ones.
        """
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._is_stopping = False

    def _queue_of(self, tenant_id: int) -> deque[_Waiting[Work]]:
        if tenant_id in self._busy:
            return self._busy[tenant_id]
        return self._queues.setdefault(tenant_id, deque())

    def _run(self) -> None:
        ended_at = time.monotonic()
        try:
            while (turn := self._take()) is not None:
                # The server, or what is between, may have closed a connection that lay idle. One
                # that breaks under way is made anew by who commits.
                if time.monotonic() > ended_at + IDLE_SECONDS:
                    connection.close()
                self._commit(*turn)
                self._end_turn(turn[0])
                ended_at = time.monotonic()
        finally:
            connection.close()

    def _take(self) -> tuple[int, list[_Waiting[Work]]] | None:
        """The next tenant in turn, and as much of its work as one transaction should take."""
        with self._changed:
            while not self._queues:
                if self._is_stopping:
                    return None
                self._changed.wait()
            tenant_id, queue = self._queues.popitem(last=False)
            taken = [queue.popleft()]
            weight = taken[0].work.weight
            while queue and weight + queue[0].work.weight <= self._weight_max:
                taken.append(queue.popleft())
                weight += taken[-1].work.weight
            if self._is_one_a_tenant:
                self._busy[tenant_id] = queue
            elif queue:
                self._queues[tenant_id] = queue
            return tenant_id, taken

    def _end_turn(self, tenant_id: int) -> None:
        if not self._is_one_a_tenant:
            return
        with self._changed:
            if queue := self._busy.pop(tenant_id):
                self._queues[tenant_id] = queue
                self._changed.notify()

    def _commit(self, tenant_id: int, taken: list[_Waiting[Work]]) -> None:
        error: Exception | None = None
        try:
            self._commit_works(tenant_id, [waiting.work for waiting in taken])
        except Exception as caught:  # every caller is told
            error = caught
            connection.close()
        finally:
            for waiting in taken:
                waiting.done(error)


PROCESS_COMMITTER: Final[Committer[Job]] = Committer(commit_jobs, name="committer")
