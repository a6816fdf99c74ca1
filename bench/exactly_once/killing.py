"""Ends processes while events are on their way, and sees to it that each kind of death happens."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import psutil

from bench.exactly_once.victim import Victim, kill

EVERY_SECONDS: Final = (2.0, 4.0)
# The supervisor gives up on what ends again and again before it is up, and that is right. So the
# web process usually lives to serve for a moment, and dies during its start once in a while.
SERVES_SECONDS: Final = (0.5, 1.5)
EARLY_SHARE: Final = 0.1
EARLY_SECONDS: Final = (0.3, 1.5)
WAIT_FOR_REQUEST_SECONDS: Final = 2.0
CUT_EVERY_SECONDS: Final = (0.02, 0.2)

WEB_WORKER: Final = "web worker, SIGKILL"
WEB_PARENT: Final = "web parent, SIGKILL"
WEB_BOTH: Final = "web parent and worker, SIGKILL"
CONNECTION: Final = "database connections, cut within a transaction"
CELERY: Final = "Celery worker, SIGKILL"
POSTGRES: Final = "PostgreSQL, immediate shutdown"
EVERYTHING: Final = "the whole service, SIGKILL"


class Acknowledging(Protocol):
    """Counts what was answered."""

    @property
    def acknowledged(self) -> int:
        """How much was."""


class Load(Protocol):
    """Clients at work."""

    def is_going(self) -> bool:
        """Whether any of them still has something to do."""

    @property
    def tally(self) -> Acknowledging:
        """What came of their requests."""

    @property
    def in_flight(self) -> int:
        """How many requests are on their way."""

    @property
    def share(self) -> float:
        """How much of all that is to be done is done."""


class Rhythm(NamedTuple):
    """How often something dies, in seconds from and to."""

    web: tuple[float, float] = EVERY_SECONDS
    connections: tuple[float, float] = CUT_EVERY_SECONDS


USUAL: Final = Rhythm()


class Due(NamedTuple):
    """What happens once this share of the events was acknowledged."""

    share: float
    act: Callable[[], None]


class Killer:
    """Kills the web process every few seconds, and other parts when their time has come.

    Between these deaths it cuts database connections, which hits many more transactions, some of
    them while they commit.
    """

    def __init__(
        self,
        *,
        victim: Victim,
        traffic: Load,
        pick: random.Random,
        rhythm: Rhythm = USUAL,
    ) -> None:
        self.victim = victim
        self.rhythm = rhythm
        self.traffic = traffic
        self.pick = pick
        self.deaths: Counter[str] = Counter()
        self._killed_at = time.monotonic()
        self._acknowledged = 0
        self._served_at: float | None = None
        self._wait_seconds = pick.uniform(*rhythm.web)
        self._serve_seconds = pick.uniform(*SERVES_SECONDS)
        self._is_early = False
        self._cut_at = 0.0

    def run(self, dues: Sequence[Due], *, give_up_at: float, tick: Callable[[], None]) -> None:
        """Kill until the clients are done; everything due has happened before that."""
        waiting = sorted(dues, key=lambda due: due.share)
        while self.traffic.is_going() and time.monotonic() < give_up_at:
            time.sleep(0.01)
            tick()
            self.victim.require_running()
            self._notice_service()
            if waiting and self.traffic.share >= waiting[0].share:
                waiting.pop(0).act()
            elif self._is_time():
                self._kill_web()
            elif self._served_at is not None and time.monotonic() > self._cut_at:
                self._cut_connection()
        for due in waiting:
            due.act()

    def kill_celery(self) -> None:
        """End the processes that roll up."""
        self.deaths[CELERY] += kill(self.victim.celery_workers()) > 0

    def stop_postgres_at_once(self) -> None:
        """What `pg_ctl stop -m immediate` does: no checkpoint; the next start recovers."""
        self._wait_for_request()
        self.deaths[POSTGRES] += kill(self.victim.postmasters(), signal.SIGQUIT)
        self._begin_anew()

    def kill_everything(self) -> None:
        """End the supervisor and all below it, and start it again on the same folder."""
        self._wait_for_request()
        victims = self.victim.everything()
        kill(victims)
        self.victim.process.wait()
        psutil.wait_procs(victims, timeout=10)
        self.deaths[EVERYTHING] += 1
        self.victim.start_again()
        self._begin_anew()

    def _kill_web(self) -> None:
        parents, workers = self.victim.web_parents(), self.victim.web_workers()
        if not parents or not workers:
            return
        if not self._is_early:
            self._wait_for_request()
        kind, victims = self.pick.choice(
            [(WEB_WORKER, workers), (WEB_PARENT, parents), (WEB_BOTH, [*parents, *workers])]
        )
        self.deaths[kind] += kill(victims) > 0
        self._begin_anew()

    def _cut_connection(self) -> None:
        self._cut_at = time.monotonic() + self.pick.uniform(*self.rhythm.connections)
        if self.traffic.in_flight:
            self.deaths[CONNECTION] += self.victim.cut_connection()

    def _is_time(self) -> bool:
        """Whether the web process has lived long enough since the last death."""
        now = time.monotonic()
        if now < self._killed_at + self._wait_seconds:
            return False
        if self._is_early:
            return True
        return self._served_at is not None and now >= self._served_at + self._serve_seconds

    def _notice_service(self) -> None:
        acknowledged = self.traffic.tally.acknowledged
        if self._served_at is None and acknowledged > self._acknowledged:
            self._served_at = time.monotonic()

    def _begin_anew(self) -> None:
        self._killed_at = time.monotonic()
        self._acknowledged = self.traffic.tally.acknowledged
        self._served_at = None
        self._is_early = not self._is_early and self.pick.random() < EARLY_SHARE
        self._wait_seconds = self.pick.uniform(
            *(EARLY_SECONDS if self._is_early else self.rhythm.web)
        )
        self._serve_seconds = self.pick.uniform(*SERVES_SECONDS)

    def _wait_for_request(self) -> None:
        """Come back while a request is on its way, at a random moment of its life."""
        end = time.monotonic() + WAIT_FOR_REQUEST_SECONDS
        while not self.traffic.in_flight and time.monotonic() < end:
            time.sleep(0.0005)
        time.sleep(self.pick.uniform(0, 0.05))
