"""`/metrics`: what this service tells Prometheus. Sums over all tenants, and no names of theirs."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import structlog
from django.db import Error, connection
from django.http import HttpRequest, HttpResponseBase
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import REGISTRY, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from config.shared_metrics import VARIABLE
from tenants.scope import platform_scope

log = structlog.get_logger(__name__)

REQUESTS: Final = Counter("spendgate_requests", "Answers.", ["method", "route", "status"])
REQUEST_SECONDS: Final = Histogram(
    "spendgate_request_seconds",
    "How long an answer took.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
# When each series began doubles their number and tells little.
disable_created_metrics()
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


# What waits as rows, by name: a statement that selects, for each, the time since which it waits.
# It sees all tenants, and must be quick: every scrape runs it.
WAITING_WORK: Final = {
    "batches": "SELECT received_at FROM ingest_batch WHERE rolled_up_at IS NULL",
    "sessions": "SELECT received_at FROM ingest_batch WHERE sessions_checked_at IS NULL",
    "crossings": "SELECT crossed_at FROM crossing WHERE claimed_at IS NULL",
    "failed_crossings": "SELECT crossed_at FROM crossing WHERE claimed_at IS NULL AND failures > 0",
    "jobs": "SELECT coalesce(stepped_at, created_at) FROM background_job"
    " WHERE state IN ('waiting', 'running')",
    # What a paused channel keeps back waits for a person.
    "deliveries": "SELECT d.due_at FROM delivery d LEFT JOIN channel c ON c.id = d.channel_id"
    " WHERE d.state = 'waiting' AND d.due_at <= now() AND c.removed_at IS NULL"
    " AND c.is_paused IS NOT TRUE",
}


def note_answer(*, method: str, route: str, status: int, seconds: float) -> None:
    """Count an answer. `route` is a pattern, never a path: clients could make up any number."""
    method = method if method in METHODS else "other"
    REQUESTS.labels(method, route, str(status)).inc()
    REQUEST_SECONDS.labels(method, route).observe(seconds)


class RequestMetrics:
    """Middleware that counts what Django answers; plain handlers are counted by their caller."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started_at = time.perf_counter()
        response = self.get_response(request)
        match = request.resolver_match
        note_answer(
            method=request.method or "other",
            route=f"/{match.route}" if match else "unmatched",
            status=response.status_code,
            seconds=time.perf_counter() - started_at,
        )
        return response


class _Now(Collector):
    """What each scrape reads: waiting work, and this process's memory."""

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "spendgate_process_resident_bytes",
            "Memory of the process that answers this scrape.",
            value=resident_bytes(),
        )
        waiting = _waiting_work()
        yield GaugeMetricFamily(
            "spendgate_database_up", "Whether the database answers.", value=float(bool(waiting))
        )
        rows = GaugeMetricFamily(
            "spendgate_waiting_rows", "Rows that a worker is yet to take up.", labels=["work"]
        )
        seconds = GaugeMetricFamily(
            "spendgate_waiting_seconds",
            "For how long the oldest of them could have been taken up.",
            labels=["work"],
        )
        for work, count, oldest_seconds in waiting:
            rows.add_metric([work], count)
            seconds.add_metric([work], oldest_seconds)
        yield from (rows, seconds)


def _waiting_work() -> list[tuple[str, int, float]]:
    """Return each kind of waiting work; none if the database does not answer."""
    try:
        with platform_scope("metrics"), connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(map(_counted, WAITING_WORK)))
            return list(cursor.fetchall())
    except Error as error:
        log.warning("metrics without the database", error=str(error))
        return []


def _counted(work: str) -> str:
    return (
        f"SELECT '{work}', count(*), coalesce(extract(epoch FROM now() - min(since)), 0)::float8"
        f" FROM ({WAITING_WORK[work]}) AS waiting(since)"
    )


def resident_bytes() -> int:
    """Return the memory that this process occupies."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class _SharedFiles(MultiProcessCollector):
    """The counters of all processes. The file of one that is just starting is still empty, and
    reading it would fail.
    """

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in Path(self._path).glob("*.db") if file.stat().st_size]
        return self.merge(files)  # type: ignore[no-untyped-call,no-any-return]


def exposition() -> bytes:
    """Return what Prometheus reads: this process's metrics, or those of all workers together."""
    registry = CollectorRegistry()
    registry.register(_Now())
    if VARIABLE in os.environ:
        _SharedFiles(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest(REGISTRY) + generate_latest(registry)
