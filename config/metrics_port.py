"""The metrics of a worker, where no web process shares its folder of metrics."""

from typing import Any

from celery.signals import worker_ready
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from config.environment import read_environment


def listen() -> None:
    """Serve them from the moment at which a worker is ready."""
    worker_ready.connect(serve_metrics)


def serve_metrics(**facts: Any) -> None:
    """Answer Prometheus on METRICS_PORT for this worker and its processes, when it is set."""
    environment = read_environment()
    if environment.metrics_port is None:
        return
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    start_http_server(environment.metrics_port, addr=environment.host, registry=registry)
