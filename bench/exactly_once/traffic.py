"""The clients: each sends its bodies over one kept connection until each is answered with 200."""

import http.client
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from bench.exactly_once.calls import Batch

ANSWER_SECONDS: Final = 30.0
# A client that does not wait for its answer, as one that is killed would not.
HANG_UP_SHARE: Final = 0.02
RETRY_MOST_SECONDS: Final = 1.5
# The service is starting, busy, or without its database; the body may be sent again.
PATIENT_STATUSES: Final = frozenset({429, 502, 503, 504})


class HungUp(Exception):
    """The client closed its connection without reading the answer."""


@dataclass
class Tally:
    """What came of the requests; shared by the clients, under the lock of their traffic."""

    acknowledged: int = 0
    accepted: int = 0
    duplicates: int = 0
    requests: int = 0
    cut_off: int = 0
    put_off: Counter[int] = field(default_factory=Counter)
    # Answers that the contract does not know: the proof fails, with these words.
    wrong: Counter[str] = field(default_factory=Counter)

    @property
    def retries(self) -> int:
        """How many requests had to be made again."""
        return self.cut_off + self.put_off.total()


class Traffic:
    """All clients at once, each in a thread."""

    def __init__(
        self,
        *,
        port: int,
        headers: Mapping[str, str],
        batches: Sequence[Sequence[Batch]],
        seconds: float,
        seed: int,
    ) -> None:
        self.port = port
        self.headers = headers
        self.seconds = seconds
        self.total = sum(len(batch.reports) for one in batches for batch in one)
        self.tally = Tally()
        self.in_flight = 0
        self.begun_at = 0.0
        self.lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._send_all, args=(one, seed + place), name=f"client-{place}"
            )
            for place, one in enumerate(batches)
        ]

    def start(self) -> None:
        """Let the clients begin."""
        self.begun_at = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the clients, whatever they have not sent."""
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def is_going(self) -> bool:
        """Whether any client still has something to send."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def share(self) -> float:
        """How much of all that is to be sent was acknowledged."""
        return self.tally.acknowledged / max(1, self.total)

    def _send_all(self, batches: Sequence[Batch], seed: int) -> None:
        client = _Client(self, random.Random(seed))  # noqa: S311 - load, not secrets
        try:
            client.send_all(deque(batches), self._stopping)
        except Exception as error:
            with self.lock:
                self.tally.wrong[f"a client ended with {error!r}"] += 1
        finally:
            client.close()


@dataclass(order=True)
class _Retry:
    at: float
    attempt: int
    batch: Batch = field(compare=False)


class _Client:
    """One client and its connection."""

    def __init__(self, traffic: Traffic, pick: random.Random) -> None:
        self.traffic = traffic
        self.pick = pick
        self.connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def send_all(self, fresh: deque[Batch], stopping: threading.Event) -> None:
        """Send what is due; what failed comes again later, after others, so out of order."""
        waiting: list[_Retry] = []
        while (fresh or waiting) and not stopping.is_set():
            now = time.monotonic()
            due = [one for one in waiting if one.at <= now]
            if due:
                retry = self.pick.choice(due)
                waiting.remove(retry)
            elif fresh and self._due_at(fresh[0]) <= now:
                retry = _Retry(now, 0, fresh.popleft())
            else:
                stopping.wait(0.01)
                continue
            if not self._send(retry.batch):
                pause = min(0.1 * 2**retry.attempt, RETRY_MOST_SECONDS) * self.pick.uniform(
                    0.5, 1.5
                )
                waiting.append(_Retry(time.monotonic() + pause, retry.attempt + 1, retry.batch))
                stopping.wait(self.pick.uniform(0.02, 0.1))

    def _due_at(self, batch: Batch) -> float:
        return self.traffic.begun_at + batch.place * self.traffic.seconds

    def _send(self, batch: Batch) -> bool:
        """Send a body; False when it must be sent again."""
        traffic = self.traffic
        with traffic.lock:
            traffic.in_flight += 1
            traffic.tally.requests += 1
        try:
            status, content = self._ask(batch)
        except (OSError, http.client.HTTPException, HungUp):
            self.close()
            with traffic.lock:
                traffic.tally.cut_off += 1
            return False
        finally:
            with traffic.lock:
                traffic.in_flight -= 1
        with traffic.lock:
            return _note(traffic.tally, len(batch.reports), status, content)

    def _ask(self, batch: Batch) -> tuple[int, bytes]:
        if self.connection is None:
            port = self.traffic.port
            self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        headers = {**self.traffic.headers, "Content-Type": batch.content_type}
        self.connection.request("POST", "/v1/events", batch.body(), headers)
        if self.pick.random() < HANG_UP_SHARE:
            time.sleep(self.pick.uniform(0, 0.05))
            raise HungUp
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def _note(tally: Tally, count: int, status: int, content: bytes) -> bool:
    """Count an answer; False when the body must be sent again."""
    if status in PATIENT_STATUSES:
        tally.put_off[status] += 1
        return False
    if status != 200:
        tally.wrong[f"{status}: {content[:300].decode(errors='replace')}"] += 1
        # A server error may pass; anything else would come again for ever.
        return status < 500
    answer: dict[str, Any] = msgspec.json.decode(content)
    tally.acknowledged += count
    tally.accepted += answer["accepted"]
    tally.duplicates += answer["duplicates"]
    if answer["accepted"] + answer["duplicates"] != count or answer["unpriced"]:
        tally.wrong[f"{count} events answered with {content[:300].decode()}"] += 1
    return True
