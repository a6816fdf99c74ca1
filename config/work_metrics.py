"""What Prometheus learns about the workers: how tasks ended, how long they ran and waited.

A message carries the time it was published at. Clocks of two machines may differ by a little, and
a lag is never told as less than nothing.
"""

import time
from datetime import datetime
from typing import Any, Final

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Task
from celery.signals import (
    before_task_publish,
    task_postrun,
    task_prerun,
    task_revoked,
    worker_ready,
)
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from config.environment import read_environment
from config.queues import queue_of

PUBLISHED_AT: Final = "spendgate_published_at"
# Of one process, which runs one task at a time.
_started_at: dict[str, float] = {}

RUNS: Final = Counter(
    "spendgate_task_runs",
    "Tasks by how they ended: success, failure, retry, timeout; lost with their process;"
    " expired before they began.",
    ["queue", "task", "outcome"],
)
RUN_SECONDS: Final = Histogram(
    "spendgate_task_seconds",
    "How long a task ran.",
    ["queue", "task"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
LAG_SECONDS: Final = Histogram(
    "spendgate_queue_lag_seconds",
    "How long a message waited until a worker began its task.",
    ["queue"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)


def listen() -> None:
    """Count from now on what Celery does in this process, and serve it once it is a worker."""
    before_task_publish.connect(note_publication)
    task_prerun.connect(note_start)
    task_postrun.connect(note_end)
    task_revoked.connect(note_revocation)
    worker_ready.connect(serve_metrics)


def serve_metrics(**_: object) -> None:
    """Answer Prometheus for this worker and its processes on METRICS_PORT, if that is set."""
    environment = read_environment()
    if environment.metrics_port is None:
        return
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    start_http_server(environment.metrics_port, addr=environment.host, registry=registry)


def note_publication(headers: dict[str, Any], **_: object) -> None:
    """Stamp a message with the time from which its worker is awaited."""
    due_at = headers.get("eta")
    headers[PUBLISHED_AT] = (
        time.time() if due_at is None else datetime.fromisoformat(due_at).timestamp()
    )


def note_start(task_id: str, task: Task[..., object], **_: object) -> None:
    """Measure how long the message waited. One that comes again has waited since the first time."""
    _started_at[task_id] = time.perf_counter()
    published_at = getattr(task.request, PUBLISHED_AT, None)
    if published_at is not None:
        waited_seconds = max(0.0, time.time() - published_at)
        LAG_SECONDS.labels(queue_of(task.name)).observe(waited_seconds)


def note_end(
    task_id: str, task: Task[..., object], state: str | None, retval: object, **_: object
) -> None:
    """Count a task that ended in its own process, well or not."""
    if state is None:
        return  # its process is being ended, and its killer counts it
    is_timeout = isinstance(retval, SoftTimeLimitExceeded)
    count_run(task.name, "timeout" if is_timeout else state.lower())
    started_at = _started_at.pop(task_id, None)
    if started_at is not None:
        ran_seconds = time.perf_counter() - started_at
        RUN_SECONDS.labels(queue_of(task.name), task.name).observe(ran_seconds)


def note_revocation(sender: Task[..., object], expired: bool, **_: object) -> None:
    """Count a message that no worker began."""
    count_run(sender.name, "expired" if expired else "revoked")


def count_run(task: str, outcome: str) -> None:
    """Add a run of a task, by its name."""
    RUNS.labels(queue_of(task), task, outcome).inc()
