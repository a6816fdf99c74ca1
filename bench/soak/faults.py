"""Breaks parts of a service while clients are at work, and counts how often each fault happened."""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import psutil

from bench.kit.service import Service, kill
from bench.soak.clients import Clients

# The supervisor gives up on what ends again and again before it is up, and that is right. So the
# web process usually lives to serve for a moment, and dies during its start once in a while.
SERVES_SECONDS: Final = (0.5, 1.5)
EARLY_SHARE: Final = 0.1
EARLY_SECONDS: Final = (0.3, 1.5)
WAIT_FOR_REQUEST_SECONDS: Final = 2.0
# Longer than any statement may take, at times.
HUNG_SECONDS: Final = (1.5, 12.0)
WEB_SKEW_SECONDS: Final = 10
# Beat has the clock of the workers: the messages it sends expire by its clock.
WORKER_SKEW_SECONDS: Final = 60

WEB_WORKER: Final = "kill -9 of a web worker"
WEB_PARENT: Final = "kill -9 of the web parent"
WEB_BOTH: Final = "kill -9 of web parent and workers"
CONNECTION: Final = "database connections cut within a transaction"
CELERY: Final = "kill -9 of workers"
POSTGRES_KILLED: Final = "kill -9 of PostgreSQL"
POSTGRES_STOPPED: Final = "immediate shutdown of PostgreSQL"
POSTGRES_HUNG: Final = "PostgreSQL hung for seconds"
CLOCKS: Final = "web and worker clocks changed"
EVERYTHING: Final = "kill -9 of the whole service"


class Rhythm(NamedTuple):
    """How often something breaks by itself, in seconds from and to."""

    web: tuple[float, float]
    connections: tuple[float, float]


class Due(NamedTuple):
    """What happens once this share of the work is done."""

    share: float
    act: Callable[[], None]


class FaultInjector:
    """Kills the web process every few seconds, and breaks other parts when their time has come.

    In between it cuts database connections, which hits many more transactions, some of them while
    they commit.
    """

    def __init__(
        self, *, service: Service, clients: Clients, pick: random.Random, rhythm: Rhythm
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._service = service
        self._clients = clients
        self._pick = pick
        self._rhythm = rhythm
        self._cut_at = 0.0
        self._is_early = False
        self._served_at: float | None = None
        self._begin_anew()

    def run(self, dues: Sequence[Due], *, give_up_at: float, tick: Callable[[], None]) -> None:
        """Break things until the clients are done; everything due has happened before that."""
        waiting = sorted(dues, key=lambda due: due.share)
        while self._clients.is_going() and time.monotonic() < give_up_at:
            time.sleep(0.01)
            tick()
            self._service.require_running()
            if self._served_at is None and self._clients.done > self._done:
                self._served_at = time.monotonic()
            if waiting and self._clients.share >= waiting[0].share:
                waiting.pop(0).act()
            elif self._is_time():
                self.kill_web()
            elif self._served_at is not None and time.monotonic() > self._cut_at:
                self._cut_connection()
        for due in waiting:
            due.act()

    def kill_workers(self) -> None:
        """End the processes that run tasks."""
        self.counts[CELERY] += kill(self._service.celery_workers()) > 0

    def stop_postgres(self) -> None:
        """Do what `pg_ctl stop -m immediate` does: no checkpoint; the next start recovers."""
        self._wait_for_request()
        self.counts[POSTGRES_STOPPED] += kill(self._service.postmasters(), signal.SIGQUIT)
        self._begin_anew()

    def kill_postgres(self) -> None:
        """Do what the kernel does where memory runs out: no word to those who serve connections."""
        self._wait_for_request()
        self.counts[POSTGRES_KILLED] += kill(self._service.postmasters())
        self._begin_anew()

    def hang_postgres(self) -> None:
        """Let PostgreSQL neither answer nor hang up for some seconds, as a stuck disk would."""
        self._wait_for_request()
        with self._service.stopped_postgres():
            time.sleep(self._pick.uniform(*HUNG_SECONDS))
        self.counts[POSTGRES_HUNG] += 1
        self._begin_anew()

    def skew_clocks(self) -> None:
        """Start web and workers again with clocks that are wrong by other amounts."""
        web, worker = WEB_SKEW_SECONDS, WORKER_SKEW_SECONDS
        shifts = {
            "granian": self._pick.uniform(-web, web),
            "celery": self._pick.uniform(-worker, worker),
        }
        self._service.clocks.write_text(json.dumps(shifts))
        self._wait_for_request()
        self.counts[CLOCKS] += kill(self._service.with_clocks()) > 0
        self._begin_anew()

    def kill_everything(self) -> None:
        """End the supervisor and all below it, and start it again on the same folder."""
        self._wait_for_request()
        victims = self._service.everything()
        kill(victims)
        self._service.process.wait()
        psutil.wait_procs(victims, timeout=10)
        self.counts[EVERYTHING] += 1
        self._service.start()
        self._begin_anew()

    def kill_web(self) -> None:
        """End the web process, or a part of it."""
        parents, workers = self._service.web_parents(), self._service.web_workers()
        if not parents or not workers:
            return
        if not self._is_early:
            self._wait_for_request()
        kind, victims = self._pick.choice(
            [(WEB_WORKER, workers), (WEB_PARENT, parents), (WEB_BOTH, [*parents, *workers])]
        )
        self.counts[kind] += kill(victims) > 0
        self._begin_anew()

    def _cut_connection(self) -> None:
        self._cut_at = time.monotonic() + self._pick.uniform(*self._rhythm.connections)
        if self._clients.in_flight:
            self.counts[CONNECTION] += self._service.cut_connection()

    def _is_time(self) -> bool:
        """Whether the web process has lived long enough since the last fault."""
        now = time.monotonic()
        if now < self._broken_at + self._wait_seconds:
            return False
        if self._is_early:
            return True
        if self._served_at is None:
            return False
        # Where a start takes long, what is served between two deaths would be next to nothing.
        start_seconds = self._served_at - self._broken_at
        return now >= self._served_at + max(self._serve_seconds, start_seconds / 2)

    def _begin_anew(self) -> None:
        self._broken_at = time.monotonic()
        self._done = self._clients.done
        self._served_at = None
        self._is_early = not self._is_early and self._pick.random() < EARLY_SHARE
        self._wait_seconds = self._pick.uniform(
            *(EARLY_SECONDS if self._is_early else self._rhythm.web)
        )
        self._serve_seconds = self._pick.uniform(*SERVES_SECONDS)

    def _wait_for_request(self) -> None:
        """Come back while a request is on its way, at a random moment of its life."""
        end = time.monotonic() + WAIT_FOR_REQUEST_SECONDS
        while not self._clients.in_flight and time.monotonic() < end:
            time.sleep(0.0005)
        time.sleep(self._pick.uniform(0, 0.05))
