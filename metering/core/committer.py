"""Combines callers: what waits in a process is committed together, one transaction a tenant; or one
for several tenants of whom little waits.

Nothing waits on purpose: a job that arrives while no transaction runs is committed immediately, and
those that arrive meanwhile make up the next one.

Tenants alternate. One that sends much, or what cannot be stored, keeps no other waiting: it never
has all the threads, and while others wait its batches take no longer than BATCH_SECONDS.
"""

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, Self, TypeVar

import structlog
from django.db import connection

from common.database_errors import is_of_all
from common.errors import without_frames

log = structlog.get_logger(__name__)

# Large enough that the windows touched by a transaction cost little an event, and small enough that
# a transaction takes well under a second.
MERGED_EVENTS_MAX: Final = 5_000
THREADS: Final = 6
# The threads that one tenant may have at a time.
TENANT_THREADS: Final = 2
# How long a tenant's batch may take while others wait, going by what its last one took.
BATCH_SECONDS: Final = 0.05
# No batch is cut to less than this: what a transaction costs by itself would be most of it, and
# a slow machine would cut ever smaller pieces.
BATCH_EVENTS_MIN: Final = 200
# What one transaction takes of several tenants: this many, and so much of each.
TENANTS_TOGETHER_MAX: Final = 16
WEIGHT_TOGETHER_MAX: Final = 4
# While this many threads work for tenants of whom little waits, the others leave such tenants to
# them: each would take the next that comes, and none would share what a transaction costs. One that
# has taken BATCH_SECONDS is held up, and no longer counts.
LITTLE_THREADS_MAX: Final = 2
# Tenants whose last batch is remembered; beyond these the oldest is forgotten.
SPEEDS_MAX: Final = 1_000
# After so long a connection is replaced, which takes some milliseconds.
IDLE_SECONDS: Final = 60.0


class Combinable(Protocol):
    """A unit of work that can be committed with others of the same tenant."""

    @property
    def tenant_id(self) -> int: ...

    @property
    def weight(self) -> int:
        """How much of a transaction it makes up, in events."""

    def pieces(self, weight_max: int) -> Sequence[Self]:
        """The same in pieces that are no heavier, if it can be cut."""


Item = TypeVar("Item", bound=Combinable)


# Told once what a caller waits for is durable, or why it is not. It must not block or raise.
Done = Callable[[Exception | None], None]


@dataclass(slots=True, eq=False)
class _Waiting:
    """A caller, and the number of pieces of its item that are not done."""

    done: Done
    error: Exception | None = None
    pieces_left: int = 1

    def end(self) -> None:
        """Tell the caller. What is kept of it does not hold the error."""
        error, self.error = self.error, None
        self.done(error)


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item]):
    """A caller's item, or a piece of it, that waits for a batch."""

    item: Item
    waiting: _Waiting
    # What failed together with others is committed by itself, or without other tenants.
    is_alone: bool = False
    is_apart: bool = False


class Committer(Generic[Item]):
    """The threads of one process that commit on behalf of its callers.

    `commit` takes one tenant's items together. If it raises, each of them gets a batch of its own,
    unless no one could have been served; what a single item raises is its caller's. It may return
    smaller items to commit in place of a single one.

    `commit_together`, if there is one, takes few items of several tenants, and returns the tenants
    for which it has committed nothing: their items get batches of their own.
    """

    def __init__(  # noqa: PLR0913 - each is a limit of its own
        self,
        commit: Callable[[int, Sequence[Item]], Sequence[Item]],
        *,
        name: str,
        commit_together: Callable[[Mapping[int, Sequence[Item]]], Collection[int]] | None = None,
        threads: int = THREADS,
        tenant_threads: int = TENANT_THREADS,
        weight_max: int = MERGED_EVENTS_MAX,
        weight_min: int = BATCH_EVENTS_MIN,
    ) -> None:
        self._commit_items = commit
        self._commit_together = commit_together
        self._name = name
        self._threads_max = threads
        # One where the items of a tenant would wait for the same rows anyway.
        self._tenant_threads = tenant_threads
        self._weight_max = weight_max
        self._weight_min = weight_min
        self._threads: list[threading.Thread] = []
        self._is_stopping = False
        self._queues: dict[int, deque[_Entry[Item]]] = {}
        # Tenants that may have a batch, in order: those with items and without enough threads.
        self._ready: OrderedDict[int, None] = OrderedDict()
        self._running: Counter[int] = Counter()
        # When those batches began that others may share.
        self._little: dict[_Batch[Item], float] = {}
        # How much weight a tenant's last batch did in BATCH_SECONDS.
        self._speeds: OrderedDict[int, int] = OrderedDict()
        self._changed = threading.Condition()

    def submit(self, item: Item) -> None:
        """Commit the item and come back when it is durable. Raises what the commit raised."""
        waiting = threading.Event()
        errors: list[Exception] = []

        def done(error: Exception | None) -> None:
            if error is not None:
                errors.append(error)
            waiting.set()

        self.enqueue(item, done)
        waiting.wait()
        if errors:
            raise errors.pop()

    def enqueue(self, item: Item, done: Done) -> None:
        """Commit the item, and call `done` from the thread that did."""
        with self._changed:
            self._queue(item.tenant_id, [_Entry(item, _Waiting(done))])
            if len(self._threads) < self._threads_max:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def stop(self) -> None:
        """Commit what waits, then end the threads and their connections. Later item starts new
        ones.
        """
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._is_stopping = False

    def _queue(self, tenant_id: int, entries: Sequence[_Entry[Item]]) -> None:
        """Let entries wait behind those of their tenant, and the tenant behind the others."""
        if entries:
            self._queues.setdefault(tenant_id, deque()).extend(entries)
        has_thread = self._running[tenant_id] < self._tenant_threads
        if tenant_id in self._queues and has_thread and tenant_id not in self._ready:
            self._ready[tenant_id] = None
            self._changed.notify()

    def _run(self) -> None:
        ended_at = time.monotonic()
        try:
            while (batch := self._take()) is not None:
                # The server, or what is between, may have closed a connection that lay idle. One
                # that breaks under way is replaced by the committer.
                if time.monotonic() > ended_at + IDLE_SECONDS:
                    connection.close()
                self._serve(batch)
                ended_at = time.monotonic()
                # An idle thread keeps no one's item.
                del batch
        finally:
            connection.close()

    def _serve(self, batch: "_Batch[Item]") -> None:
        began_at = time.monotonic()
        along = self._take_along(batch)
        if along:
            self._commit_shared([batch, *along])
        else:
            self._commit(batch)
        with self._changed:
            self._little.pop(batch, None)
        seconds = (time.monotonic() - began_at) / (1 + len(along))
        for each in (batch, *along):
            self._end_batch(each, seconds=seconds)

    def _take(self) -> "_Batch[Item] | None":
        """The next tenant, and as many of its items as one transaction should take."""
        with self._changed:
            while (tenant_id := self._next_tenant()) is None:
                if self._is_stopping and not self._ready:
                    self._changed.notify_all()
                    return None
                self._changed.wait(BATCH_SECONDS if self._ready else None)
            most = self._weight_max
            if len(self._ready) > 1:
                allowed = self._speeds.get(tenant_id, most)
                most = min(most, max(self._weight_min, allowed))
            batch = self._take_of(tenant_id, most)
            if self._commit_together is not None and _is_little(batch.taken):
                self._little[batch] = time.monotonic()
            return batch

    def _next_tenant(self) -> int | None:
        since = time.monotonic() - BATCH_SECONDS
        if sum(began_at > since for began_at in self._little.values()) < LITTLE_THREADS_MAX:
            return next(iter(self._ready), None)
        much = (id_ for id_ in self._ready if not _is_little(self._queues[id_]))
        return next(much, None)

    def _take_of(self, tenant_id: int, weight_max: int) -> "_Batch[Item]":
        del self._ready[tenant_id]
        queue = self._queues[tenant_id]
        taken = self._cut_off(queue, weight_max)
        if not queue:
            del self._queues[tenant_id]
        self._running[tenant_id] += 1
        self._queue(tenant_id, [])
        return _Batch(tenant_id, taken)

    def _take_along(self, batch: "_Batch[Item]") -> "list[_Batch[Item]]":
        """The batches of other tenants to commit with this one: where all that waits is little."""
        if batch not in self._little:
            return []
        with self._changed:
            little = [id_ for id_ in self._ready if _is_little(self._queues[id_])]
            along = little[: TENANTS_TOGETHER_MAX - 1]
            return [self._take_of(tenant_id, WEIGHT_TOGETHER_MAX) for tenant_id in along]

    def _cut_off(self, queue: deque[_Entry[Item]], weight_max: int) -> list[_Entry[Item]]:
        """Take entries from the front: one at least, cut where it alone is too heavy."""
        first = queue.popleft()
        if first.item.weight > weight_max:
            first, *rest = _replaced(first, first.item.pieces(weight_max))
            queue.extendleft(reversed(rest))
        taken, weight = [first], first.item.weight
        while queue and not (first.is_alone or queue[0].is_alone):
            weight += queue[0].item.weight
            if weight > weight_max:
                break
            taken.append(queue.popleft())
        return taken

    def _end_batch(self, batch: "_Batch[Item]", *, seconds: float) -> None:
        weight = sum(entry.item.weight for entry in batch.taken)
        with self._changed:
            self._speeds[batch.tenant_id] = max(1, int(weight * BATCH_SECONDS / max(seconds, 1e-6)))
            self._speeds.move_to_end(batch.tenant_id)
            if len(self._speeds) > SPEEDS_MAX:
                self._speeds.popitem(last=False)
            self._running[batch.tenant_id] -= 1
            if not self._running[batch.tenant_id]:
                del self._running[batch.tenant_id]
            self._queue(batch.tenant_id, batch.left())
            done = batch.done()
        for waiting in done:
            waiting.end()

    def _commit_shared(self, batches: "Sequence[_Batch[Item]]") -> None:
        """Commit several tenants' batches, and say which of them are left to do."""
        assert self._commit_together is not None, "batches are shared where that is possible"
        try:
            apart = self._commit_together(
                {batch.tenant_id: [entry.item for entry in batch.taken] for batch in batches}
            )
        except Exception as error:
            # Which of them is to blame shows when each is committed by itself.
            log.warning("work of several tenants not committed together", error=repr(error))
            connection.close()
            apart = {batch.tenant_id for batch in batches}
        for batch in batches:
            batch.is_put_back = batch.tenant_id in apart

    def _commit(self, batch: "_Batch[Item]") -> None:
        """Commit the items, and say what is left to do in batches of their own."""
        try:
            batch.pieces = self._commit_items(
                batch.tenant_id, [entry.item for entry in batch.taken]
            )
        except Exception as error:
            connection.close()
            if not is_of_all(error):
                if len(batch.taken) > 1:
                    batch.is_apart = True
                    return
                log.exception("work not committed", tenant_id=batch.tenant_id)
            for entry in batch.taken:
                entry.waiting.error = without_frames(error)


@dataclass(slots=True, eq=False)
class _Batch(Generic[Item]):
    """A batch of a tenant: what was taken, and what of it is left to do."""

    tenant_id: int
    taken: Sequence[_Entry[Item]]
    # Each of the items is to be committed by itself; or the only one in these pieces.
    is_apart: bool = False
    # Nothing was committed together with other tenants' batches.
    is_put_back: bool = False
    pieces: Sequence[Item] = ()

    def done(self) -> list[_Waiting]:
        """The callers whose items are done."""
        if self.is_apart or self.is_put_back or self.pieces:
            return []
        for entry in self.taken:
            entry.waiting.pieces_left -= 1
        return [entry.waiting for entry in self.taken if not entry.waiting.pieces_left]

    def left(self) -> list[_Entry[Item]]:
        """What is left to do, in batches of their own."""
        if self.is_put_back:
            return [_Entry(entry.item, entry.waiting, is_apart=True) for entry in self.taken]
        if self.is_apart:
            return [_Entry(entry.item, entry.waiting, is_alone=True) for entry in self.taken]
        return _replaced(self.taken[0], self.pieces, is_alone=True) if self.pieces else []


def _is_little(entries: Collection[_Entry[Item]]) -> bool:
    """Whether these may be committed together with other tenants' items."""
    if len(entries) > WEIGHT_TOGETHER_MAX or any(
        entry.is_alone or entry.is_apart for entry in entries
    ):
        return False
    return sum(entry.item.weight for entry in entries) <= WEIGHT_TOGETHER_MAX


def _replaced(
    entry: _Entry[Item], pieces: Sequence[Item], *, is_alone: bool = False
) -> list[_Entry[Item]]:
    """An entry for each of the pieces; the caller waits for all of them."""
    entry.waiting.pieces_left += len(pieces) - 1
    return [_Entry(piece, entry.waiting, is_alone=is_alone) for piece in pieces]
