"""Lanes: a few threads each that work for many callers of the event loop, which take turns.

A caller of a thousand requests waits behind its own; another caller's request is next but one.
All state belongs to the event loop's thread, so nothing here is locked.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, cast

from django.db import close_old_connections, connection

from config.connections import borrows_from_pool

Result = TypeVar("Result")

# Calls that may wait in a lane, of one caller and of all.
CALLER_WAITING_MAX: Final = 1_000
WAITING_MAX: Final = 10_000
# A caller that has waited for so long is better served by the answer that the service is busy.
WAIT_SECONDS: Final = 20.0


class Overloaded(Exception):
    """More calls wait than can be done soon."""


class _Call:
    __slots__ = ("result", "timer", "work")

    def __init__(self, work: Callable[[], object], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.result: asyncio.Future[object] = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None

    def give_up(self) -> None:
        if not self.result.done():
            self.result.set_exception(Overloaded())


class Lane:
    """Threads for one kind of work, each of which begins with `prepare`. One caller may have
    `caller_share` of them.
    """

    def __init__(
        self,
        name: str,
        *,
        threads: int,
        caller_share: float = 1.0,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=prepare)
        self._free = threads
        self._caller_max = max(1, round(threads * caller_share))
        # The next caller comes first. Those that have their share of threads stand aside.
        self._waiting: OrderedDict[Hashable, deque[_Call]] = OrderedDict()
        self._aside: dict[Hashable, deque[_Call]] = {}
        self._running: Counter[Hashable] = Counter()
        self._waiting_count = 0

    async def run(self, caller: Hashable, work: Callable[[], Result]) -> Result:
        """Do the work on a thread, which then gives back the connection that it borrowed.

        Raises Overloaded, and what the work raises.
        """
        loop = asyncio.get_running_loop()
        call = _Call(work, loop)
        queue = self._aside.get(caller)
        if queue is None:
            queue = self._waiting.setdefault(caller, deque())
        if len(queue) >= CALLER_WAITING_MAX or self._waiting_count >= WAITING_MAX:
            raise Overloaded
        queue.append(call)
        self._waiting_count += 1
        self._dispatch(loop)
        if call in queue:
            call.timer = loop.call_later(WAIT_SECONDS, call.give_up)
        try:
            return cast(Result, await call.result)
        finally:
            del call  # an error's traceback holds this frame, and the call holds the error

    def stop(self) -> None:
        """End the threads once what runs is done."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._free and self._waiting:
            caller, queue = self._waiting.popitem(last=False)
            call = queue.popleft()
            self._waiting_count -= 1
            if call.timer is not None:
                call.timer.cancel()
            if not call.result.done():
                self._free -= 1
                self._running[caller] += 1
                self._executor.submit(self._work, loop, caller, call)
            if self._running[caller] >= self._caller_max:
                self._aside[caller] = queue
            elif queue:
                self._waiting[caller] = queue

    def _work(self, loop: asyncio.AbstractEventLoop, caller: Hashable, call: _Call) -> None:
        result, failure = None, None
        try:
            result = call.work()
        except BaseException as error:  # whatever it is, the caller waits for an answer
            failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
        finally:
            if borrows_from_pool():
                connection.close()
            else:
                close_old_connections()
        loop.call_soon_threadsafe(self._end, loop, caller, call, result, failure)

    def _end(
        self,
        loop: asyncio.AbstractEventLoop,
        caller: Hashable,
        call: _Call,
        result: object,
        failure: Exception | None,
    ) -> None:
        self._free += 1
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]
        if queue := self._aside.pop(caller, None):
            self._waiting[caller] = queue
        if not call.result.done():  # its caller may have gone away
            if failure is None:
                call.result.set_result(result)
            else:
                call.result.set_exception(failure)
        self._dispatch(loop)
