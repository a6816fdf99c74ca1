"""Sends bodies over many connections from a process of its own."""

import json
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.queues import Queue
from typing import Final, NamedTuple

from bench.kit.wire import Conversation, Requests, converse

COUNTS: Final = ("accepted", "merged", "duplicates", "rejected")


class Sent(NamedTuple):
    """What a run of requests took. `latencies_ms` is one figure a request, in no order."""

    seconds: float
    # By the names in COUNTS.
    counts: Counter[str]
    latencies_ms: list[float]

    @property
    def accepted(self) -> int:
        """The number of new events."""
        return self.counts["accepted"]

    def percentile_ms(self, percent: int) -> float:
        """Return the latency that this share of requests did not exceed."""
        return percentile(sorted(self.latencies_ms), percent)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the value that this share of ordered values does not exceed."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def send(
    *, port: int, headers: Mapping[str, str], bodies: Sequence[bytes], connections: int
) -> Sent:
    """POST every body to /v1/events from a process of its own, over some connections at once."""
    context = get_context("fork")
    results: Queue[Sent] = context.Queue()
    process = context.Process(
        target=_send, args=(port, Requests(headers), bodies, connections, results)
    )
    process.start()
    sent = results.get(timeout=600)
    process.join()
    return sent


def _send(
    port: int,
    requests: Requests,
    bodies: Sequence[bytes],
    connections: int,
    results: "Queue[Sent]",
) -> None:
    waiting = deque(bodies)
    answers: list[bytes] = []
    latencies: list[float] = []

    def run() -> Conversation:
        while waiting:
            request = requests.make("POST", "/v1/events", waiting.popleft())
            begun = time.perf_counter()
            answer = yield request
            latencies.append((time.perf_counter() - begun) * 1000)
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {answer.body[:500]!r}")
            answers.append(answer.body)

    begun = time.perf_counter()
    converse(port, [run() for _ in range(connections)])
    seconds = time.perf_counter() - begun
    counts = Counter[str]()
    for told in map(json.loads, answers):
        counts.update({name: told[name] for name in COUNTS})
    results.put(Sent(seconds, counts, latencies))
