"""Combines callers: bodies that wait in a process are committed together, one transaction a tenant.

Nothing waits on purpose: a body that arrives while no transaction runs is committed at once, and
those that arrive meanwhile make up the next one. Tenants take turns.
"""

import threading
from collections import OrderedDict, deque
from typing import Final

from django.db import connection

from metering.ingest import Job, commit_jobs

# Large enough that the windows touched by a transaction cost little an event, and small enough that
# a transaction takes well under a second.
MERGED_EVENTS_MAX: Final = 5_000
THREADS: Final = 2


class _Waiting:
    """A caller's job and the signal that it is done."""

    __slots__ = ("done", "error", "job")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.done = threading.Event()
        self.error: BaseException | None = None


class Committer:
    """The threads of one process that commit on behalf of its callers."""

    def __init__(self, *, threads: int = THREADS) -> None:
        self._threads_max = threads
        self._threads: list[threading.Thread] = []
        self._is_stopping = False
        self._queues: OrderedDict[int, deque[_Waiting]] = OrderedDict()
        self._changed = threading.Condition()

    def submit(self, job: Job) -> None:
        """Commit the job and come back when it is durable. Raises what the commit raised."""
        if not job.events:
            return
        waiting = _Waiting(job)
        with self._changed:
            self._queues.setdefault(job.tenant_id, deque()).append(waiting)
            if len(self._threads) < self._threads_max:
                thread = threading.Thread(target=self._run, name="committer", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify()
        waiting.done.wait()
        if waiting.error is not None:
            raise waiting.error

    def stop(self) -> None:
        """Commit what waits, then end the threads and their connections. A later job starts new
        ones.
        """
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._is_stopping = False

    def _run(self) -> None:
        try:
            while (turn := self._take()) is not None:
                self._commit(*turn)
        finally:
            connection.close()

    def _take(self) -> tuple[int, list[_Waiting]] | None:
        """The next tenant in turn, and as many of its bodies as one transaction should take."""
        with self._changed:
            while not self._queues:
                if self._is_stopping:
                    return None
                self._changed.wait()
            tenant_id, queue = self._queues.popitem(last=False)
            taken = [queue.popleft()]
            count = len(taken[0].job.events)
            while queue and count + len(queue[0].job.events) <= MERGED_EVENTS_MAX:
                taken.append(queue.popleft())
                count += len(taken[-1].job.events)
            if queue:
                self._queues[tenant_id] = queue
            return tenant_id, taken

    def _commit(self, tenant_id: int, taken: list[_Waiting]) -> None:
        error: BaseException | None = None
        try:
            # A connection that the server closed is noticed here, not by the statement that needs
            # it.
            connection.close_if_unusable_or_obsolete()
            commit_jobs(tenant_id, [waiting.job for waiting in taken])
        except Exception as caught:  # every caller is told
            error = caught
            connection.close()
        finally:
            for waiting in taken:
                waiting.error = error
                waiting.done.set()


PROCESS_COMMITTER: Final = Committer()


def commit(job: Job) -> None:
    """Commit a job together with those of other callers in this process."""
    PROCESS_COMMITTER.submit(job)
