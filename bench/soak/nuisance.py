"""A tenant that misbehaves all the time, beside those whose books are compared."""

import gzip
import random
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from bench.kit.abuse import FORTUNE_USD, GZIP, empty_members, fortunes, left_open, wrong_events
from bench.kit.caller import Caller
from bench.kit.money import NANOS
from bench.kit.wire import Connection, Requests
from bench.soak.records import Memory

NUISANCE: Final = "nuisance"
MISUSE: Final = "misuse"
EVERY_SECONDS: Final = (0.02, 0.2)
# Connections that are left open; the oldest are closed.
LEFT_OPEN_MAX: Final = 120
AT_ONCE: Final = 20
FORTUNES_AT_ONCE: Final = 500
WRONG_AT_ONCE: Final = 10_000


class Nuisance:
    """Sends what no client should send, and continues."""

    def __init__(
        self, *, port: int, headers: Mapping[str, str], caller: Caller, pick: random.Random
    ) -> None:
        self.memory = Memory()
        # What its own books must say, in nano-dollars.
        self.spent_nanos = 0
        self._port = port
        self._requests = Requests(headers)
        self._strangers = Requests({"Content-Type": "application/json"})
        self._caller = caller
        self._pick = pick
        self._open: deque[socket.socket] = deque()
        self._fortunes = 0

    def run(self, stopping: threading.Event) -> None:
        """Misbehave until asked to stop."""
        ways: list[Callable[[], None]] = [
            self._half_sent,
            self._unread,
            self._members,
            self._bomb,
            self._wrong,
            self._fortune,
            self._drip,
        ]
        try:
            for way in ways:  # each at least once, however short the run
                self._do(way)
            while not stopping.wait(self._pick.uniform(*EVERY_SECONDS)):
                self._do(self._pick.choice(ways))
        except Exception as error:
            self.memory.wrong[f"the nuisance ended with {error!r}"] += 1
        finally:
            while self._open:
                self._open.popleft().close()

    def _do(self, way: Callable[[], None]) -> None:
        self.memory.tally.faults[f"{MISUSE}: " + way.__name__.strip("_").replace("_", " ")] += 1
        way()

    def _half_sent(self) -> None:
        """Send requests of which the rest never comes, with and without a key."""
        for requests in (self._requests, self._strangers):
            path = self._pick.choice(("/v1/events", "/v1/budgets", "/v1/reservations"))
            request = requests.make("POST", path, b"x" * 1000)
            for _ in range(AT_ONCE):
                self._leave(request[: self._pick.choice((20, -999))])

    def _unread(self) -> None:
        """Ask for answers that no one reads."""
        for path in ("/v1/export/focus.csv?month=2026-11", "/v1/events?limit=500", "/v1/halts"):
            for _ in range(AT_ONCE // 4):
                self._leave(self._requests.make("GET", path))

    def _leave(self, request: bytes) -> None:
        self._open.append(left_open(self._port, request))
        while len(self._open) > LEFT_OPEN_MAX:
            self._open.popleft().close()

    def _members(self) -> None:
        self._expect({400}, empty_members(20_000), **GZIP)

    def _bomb(self) -> None:
        bomb = gzip.compress(b" " * (32 << 20), compresslevel=1)
        self._expect({413}, bomb, **GZIP)

    def _wrong(self) -> None:
        """Send bodies that are refused, part by part."""
        self._expect({400, 422}, msgspec.json.encode(wrong_events(WRONG_AT_ONCE)))

    def _fortune(self) -> None:
        """Report more money than a database's integers hold, and all of it counts."""
        self._fortunes += 1
        batch = fortunes(f"fortune-{self._fortunes}", FORTUNES_AT_ONCE)
        self._expect({200}, msgspec.json.encode(batch))
        self.spent_nanos += FORTUNES_AT_ONCE * FORTUNE_USD * NANOS

    def _drip(self) -> None:
        """Send a good event a byte at a time, give up before its end, then send it as a whole."""
        self._fortunes += 1
        (event,) = fortunes(f"drip-{self._fortunes}", 1)
        request = self._requests.make("POST", "/v1/events", msgspec.json.encode(event))
        connection = Connection(self._port)
        with suppress(OSError):
            connection.drip(request[: self._pick.randrange(len(request))])
        connection.close()
        self._expect({200}, msgspec.json.encode(event))
        self.spent_nanos += FORTUNE_USD * NANOS

    def _expect(self, statuses: set[int], body: bytes, **headers: str) -> None:
        request = self._requests.make("POST", "/v1/events", body)
        head, _, _ = request.partition(b"\r\n\r\n")
        more = "".join(f"\r\n{name}: {value}" for name, value in headers.items()).encode()
        answer = self._caller.ask(head + more + b"\r\n\r\n" + body)
        if answer.status not in statuses:
            self.memory.wrong[f"nuisance: {answer}"] += 1
