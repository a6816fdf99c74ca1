"""A client that asks the service until it says what happened, however often it dies."""

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from bench.kit.wire import Answer, Connection, Requests

PATIENCE_SECONDS: Final = 300.0
PAUSE_SECONDS: Final = (0.02, 0.3)
HUNG_UP_WITHIN_SECONDS: Final = 0.03
# The service is starting, or without its database; what was asked may be asked again.
PATIENT_STATUSES: Final = frozenset({502, 503, 504})
IN_PROGRESS: Final = "request_in_progress"
HUNG_UP: Final = "clients gone without their answer"
DRIPPED: Final = "requests sent a byte at a time"


class GaveUp(Exception):
    """The service did not say what happened."""


@dataclass
class Tally:
    """What came of a client's requests, and what it did to the service on purpose."""

    answers: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    cut_off: int = 0

    def add(self, other: "Tally") -> None:
        """Count what another client met, too."""
        self.answers += other.answers
        self.faults += other.faults
        self.cut_off += other.cut_off


class Progress:
    """How far one process is, in memory that it shares with the one that started it."""

    def __init__(self, shared: Any) -> None:
        self._shared = shared
        self._lock = threading.Lock()

    def count(self, index: int, by: int) -> None:
        """Move a number: 0 is operations done, 1 requests on their way."""
        with self._lock:
            self._shared[index] += by


class Caller:
    """One connection of a client."""

    def __init__(
        self,
        port: int,
        headers: Mapping[str, str],
        tally: Tally,
        pick: random.Random,
        progress: Progress,
    ) -> None:
        self._requests = Requests(headers)
        self._connection = Connection(port)
        self._tally = tally
        self._pick = pick
        self._progress = progress

    def request(self, method: str, path: str, body: object = None, *, key: str = "") -> bytes:
        """Return a request to be sent."""
        content = b"" if body is None else msgspec.json.encode(body)
        return self._requests.make(method, path, content, key=key)

    def call(self, method: str, path: str, body: object = None, *, key: str = "") -> Answer:
        """Make a request and send it until its answer says what happened. Raises GaveUp."""
        return self.ask(self.request(method, path, body, key=key))

    def ask(self, request: bytes) -> Answer:
        """Send a request until its answer says what happened. Raises GaveUp."""
        return self._insist(request, self._try(request))

    def ask_once(self, request: bytes) -> Answer | None:
        """Send a request; None where it must be sent again to learn what happened."""
        answer = self._try(request)
        return None if answer is None or _is_for_later(answer) else answer

    def ask_slowly(self, request: bytes) -> Answer:
        """Ask a byte at a time, then as usual until the answer says what happened."""
        self._tally.faults[DRIPPED] += 1
        self._send(request, is_slow=True)
        return self._insist(request, self._receive())

    def ask_both(self, other: "Caller", first: bytes, second: bytes) -> tuple[Answer, Answer]:
        """Send two requests simultaneously, over two connections."""
        with_both = (self, first), (other, second)
        for caller, request in with_both:
            caller._send(request)
        answers = [caller._receive() for caller, _ in with_both]
        done = [
            caller._insist(request, answer)
            for (caller, request), answer in zip(with_both, answers, strict=True)
        ]
        return done[0], done[1]

    def hang_up_on(self, request: bytes) -> None:
        """Send a request and never learn what became of it."""
        self._tally.faults[HUNG_UP] += 1
        self._send(request)
        time.sleep(self._pick.uniform(0, HUNG_UP_WITHIN_SECONDS))
        self._connection.close()
        self._progress.count(1, -1)

    def close(self) -> None:
        """Hang up for good."""
        self._connection.close()

    def _insist(self, request: bytes, answer: Answer | None) -> Answer:
        end = time.monotonic() + PATIENCE_SECONDS
        while answer is None or _is_for_later(answer):
            if time.monotonic() > end:
                raise GaveUp(f"no answer within {PATIENCE_SECONDS:.0f} s: {answer}")
            time.sleep(self._pick.uniform(*PAUSE_SECONDS))
            answer = self._try(request)
        return answer

    def _try(self, request: bytes) -> Answer | None:
        self._send(request)
        return self._receive()

    def _send(self, request: bytes, *, is_slow: bool = False) -> None:
        self._progress.count(1, 1)
        try:
            (self._connection.drip if is_slow else self._connection.send)(request)
        except OSError:
            # To receive finds nothing sent.
            self._connection.close()

    def _receive(self) -> Answer | None:
        try:
            answer = self._connection.receive()
        except OSError:
            self._tally.cut_off += 1
            return None
        finally:
            self._progress.count(1, -1)
        self._tally.answers[str(answer.status)] += 1
        return answer


def _is_for_later(answer: Answer) -> bool:
    return answer.status in PATIENT_STATUSES or (
        answer.status == 409 and answer.code == IN_PROGRESS
    )
