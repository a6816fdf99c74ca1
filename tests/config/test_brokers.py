"""A real worker with each broker: it takes tasks from every queue, and what is killed comes again.

With Redis on 127.0.0.1:6379 and RabbitMQ on 127.0.0.1:5672 (guest, guest); skipped without them.
"""

import os
import secrets
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection
from kombu.exceptions import OperationalError
from prometheus_client.parser import text_string_to_metric_families

from config import celery, processes
from config.environment import read_environment
from config.parts import arguments_of
from config.queues import DEFAULT_QUEUE, QUEUES
from config.shared_metrics import VARIABLE
from tests.config.broker_tasks import be_killed_once, leave, take_too_long

PATIENCE_SECONDS = 30.0
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
RABBITMQ_URL = "amqp://guest:guest@127.0.0.1:5672//"
# One broker may serve others too.
PREFIX = f"test-{secrets.token_hex(4)}-"


def empty_redis_url() -> str:
    """A database of the local Redis that holds nothing."""
    for number in range(15, 0, -1):
        with redis.Redis(port=6379, db=number) as client:
            if client.dbsize() == 0:
                return f"redis://127.0.0.1:6379/{number}"
    pytest.skip("Every database of the Redis on 127.0.0.1:6379 is in use.")


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    try:
        url = empty_redis_url()
    except redis.ConnectionError:
        pytest.skip("Needs a Redis on 127.0.0.1:6379.")
    yield url
    with redis.Redis.from_url(url) as client:
        client.flushdb()


@pytest.fixture(scope="module")
def rabbitmq_url() -> Iterator[str]:
    try:
        Connection(RABBITMQ_URL, connect_timeout=2).ensure_connection(max_retries=1).release()
    except (OSError, OperationalError):
        pytest.skip("Needs a RabbitMQ on 127.0.0.1:5672 that knows guest, guest.")
    yield RABBITMQ_URL
    with Connection(RABBITMQ_URL) as connection:
        channel: Any = connection.default_channel
        for queue in QUEUES:
            channel.queue_delete(PREFIX + queue)
            channel.exchange_delete(PREFIX + queue)


class Worker:
    """A worker of all queues, each of whose names begins with PREFIX."""

    def __init__(self, folder: Path, broker_url: str) -> None:
        with socket.socket() as attempt:
            attempt.bind(("127.0.0.1", 0))
            self.metrics_port = attempt.getsockname()[1]
        self.words = folder / "words"
        (folder / "metrics").mkdir(exist_ok=True)
        self.environ = {
            **os.environ,
            "DATA_DIR": str(folder),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "CELERY_BROKER_URL": broker_url,
            "METRICS_PORT": str(self.metrics_port),
            VARIABLE: str(folder / "metrics"),
        }
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        arguments = arguments_of("worker", read_environment(self.environ))
        arguments[arguments.index("--queues") + 1] = ",".join(PREFIX + queue for queue in QUEUES)
        with self.words.open("ab") as output:
            self.process = subprocess.Popen(
                [*arguments, "--include", "tests.config.broker_tasks"],
                env=self.environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.process

    def send(self, task: Any, *arguments: Any, **options: Any) -> None:
        """Publish a message, to the default queue unless another one is named."""
        settings = celery.broker(read_environment(self.environ))
        transport = {"transport": settings.get("broker_transport")}
        with Connection(
            settings["broker_url"],
            transport_options=settings["broker_transport_options"],
            **{name: value for name, value in transport.items() if value},
        ) as connection:
            queue = PREFIX + options.pop("queue", DEFAULT_QUEUE)
            task.apply_async(arguments, connection=connection, queue=queue, **options)

    def wait_for(self, *paths: Path) -> None:
        def are_done() -> bool:
            return all(path.exists() and path.read_text() == "done" for path in paths)

        assert processes.wait_until(are_done, PATIENCE_SECONDS), self.words.read_text()

    def wait_for_runs(self, task: str, outcome: str, count: float) -> None:
        def are_counted() -> bool:
            return self.runs(task, outcome) == count

        assert processes.wait_until(are_counted, PATIENCE_SECONDS), self.words.read_text()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have those labels."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == f"spendgate_{name}" and labels.items() <= sample.labels.items()
        )

    def runs(self, task: str, outcome: str) -> float:
        return self.metric("task_runs_total", queue=DEFAULT_QUEUE, task=task, outcome=outcome)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module", params=["files", "redis_url", "rabbitmq_url"])
def worker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    url = "" if request.param == "files" else request.getfixturevalue(request.param)
    running = Worker(tmp_path_factory.mktemp("worker"), url)
    yield running
    running.kill()


def test_tasks_of_every_queue_are_run_and_their_wait_is_measured(
    worker: Worker, tmp_path: Path
) -> None:
    paths = [tmp_path / queue for queue in QUEUES]
    for queue, path in zip(QUEUES, paths, strict=True):
        worker.send(leave, str(path), queue=queue)
    worker.wait_for(*paths)
    worker.wait_for_runs("tests.leave", "success", len(QUEUES))
    assert worker.metric("task_seconds_count", task="tests.leave") == len(QUEUES)
    assert worker.metric("queue_lag_seconds_count", queue=DEFAULT_QUEUE) == len(QUEUES)
    assert 0 < worker.metric("queue_lag_seconds_sum", queue=DEFAULT_QUEUE) < 600


def test_a_task_whose_process_is_killed_runs_again(worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "word"
    worker.send(be_killed_once, str(path), False)
    worker.wait_for_runs("tests.be_killed_once", "lost", 1)
    worker.wait_for(path)
    worker.wait_for_runs("tests.be_killed_once", "success", 1)


@pytest.mark.parametrize("worker", ["redis_url", "rabbitmq_url"], indirect=True, scope="module")
def test_a_task_whose_worker_is_killed_is_run_by_the_next(worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "word"
    worker.send(be_killed_once, str(path), True)
    assert worker.process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert path.read_text() == "begun"
    worker.start()
    worker.wait_for(path)
    # What the dead have counted still counts.
    assert worker.runs("tests.leave", "success") == len(QUEUES)


@pytest.mark.parametrize("worker", ["files"], indirect=True, scope="module")
def test_what_takes_too_long_is_stopped_and_what_came_too_late_is_dropped(
    worker: Worker, tmp_path: Path
) -> None:
    worker.send(take_too_long, str(tmp_path / "long"))
    worker.send(leave, str(tmp_path / "late"), expires=LONG_AGO)
    worker.wait_for_runs("tests.leave", "expired", 1)
    worker.wait_for(tmp_path / "long")
    worker.wait_for_runs("tests.take_too_long", "timeout", 1)
    assert not (tmp_path / "late").exists()
