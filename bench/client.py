"""A client of the benchmarks: one process, a few connections kept open, bodies made beforehand."""

import http.client
import json
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.queues import Queue
from typing import Any, NamedTuple


class Sent(NamedTuple):
    """What a run of requests took. `latencies_ms` is one figure a request, in no order."""

    seconds: float
    accepted: int
    merged: int
    duplicates: int
    rejected: int
    latencies_ms: list[float]

    def percentile_ms(self, percent: int) -> float:
        """The latency that this share of requests did not exceed."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def send(
    *, port: int, headers: Mapping[str, str], bodies: Sequence[bytes], connections: int
) -> Sent:
    """POST every body to /v1/events from a process of its own, over some connections at once."""
    context = get_context("fork")
    results: Queue[Sent] = context.Queue()
    process = context.Process(
        target=_send, args=(port, dict(headers), bodies, connections, results)
    )
    process.start()
    sent = results.get()
    process.join()
    return sent


def _send(
    port: int,
    headers: dict[str, str],
    bodies: Sequence[bytes],
    connections: int,
    results: "Queue[Sent]",
) -> None:
    waiting = deque(bodies)
    answers: list[dict[str, Any]] = []
    latencies: list[float] = []

    def run() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.connect()
        while True:
            try:
                body = waiting.popleft()
            except IndexError:
                break
            begun = time.perf_counter()
            connection.request("POST", "/v1/events", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            latencies.append((time.perf_counter() - begun) * 1000)
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {text[:500]!r}")
            answers.append(json.loads(text))
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(connections)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    results.put(
        Sent(
            seconds=seconds,
            accepted=sum(answer["accepted"] for answer in answers),
            merged=sum(answer["merged"] for answer in answers),
            duplicates=sum(answer["duplicates"] for answer in answers),
            rejected=sum(answer["rejected"] for answer in answers),
            latencies_ms=latencies,
        )
    )
