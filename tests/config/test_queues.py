from pathlib import Path
from unittest.mock import Mock

import psycopg
import pytest
from celery import Task
from celery.fixups.django import DjangoFixup
from celery.signals import task_prerun
from django.db import connection

from config.celery import BEAT_SCHEDULE, NICENESS, application, be_nice, broker
from config.environment import read_environment
from config.parts import PARTS
from config.queues import QUEUES, QUEUES_BY_WORKER, LimitsByQueue, queue_of
from config.shared_metrics import VARIABLE, shared_by_part, shared_by_service
from metering.jobs.tasks import JOBS_SECONDS


def test_every_queue_has_one_worker() -> None:
    taken = [queue for queues in QUEUES_BY_WORKER.values() for queue in queues]
    assert sorted(taken) == sorted(QUEUES)
    assert set(QUEUES_BY_WORKER) < set(PARTS)


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        ("metering.jobs.tasks.roll_up", "ingest"),
        ("metering.jobs.tasks.run_simulations", "default"),
        ("metering.jobs.tasks.run_jobs", "default"),
        ("alerts.tasks.deliver", "alerts"),
        ("alerts.tasks.scan_anomalies", "scans"),
        ("alerts.tasks.check_sessions", "scans"),
        ("billing.tasks.write_statements", "billing"),
        ("celery.backend_cleanup", "default"),
    ],
)
def test_a_task_waits_among_its_kind(task: str, queue: str) -> None:
    assert queue_of(task) == queue
    assert application.amqp.router.route({}, task)["queue"].name == queue


@pytest.mark.django_db(transaction=True)
def test_tasks_share_a_connection_until_the_server_closes_it() -> None:
    fixup = DjangoFixup(application).worker_fixup
    task = Mock()
    task.request.is_eager = False

    def run() -> int:
        fixup.on_task_prerun(task)
        task_prerun.send(sender=task, task_id="1", task=task)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (process_id,) = cursor.fetchone()
        fixup.on_task_postrun(task)
        return int(process_id)

    first = run()
    assert run() == first
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [first])
    assert run() not in (first, 0)


def test_the_beat_sends_nothing_minute_long_to_those_who_tell_people() -> None:
    scheduled = {entry["task"]: queue_of(entry["task"]) for entry in BEAT_SCHEDULE.values()}
    assert scheduled["alerts.tasks.notify"] == "alerts"
    assert not [
        task
        for task, queue in scheduled.items()
        if queue in QUEUES_BY_WORKER["alerts"] and ("scan_" in task or "check_" in task)
    ]


def test_jobs_take_one_process_of_a_worker_and_leave_it_the_others() -> None:
    (period,) = {
        entry["schedule"].total_seconds()
        for entry in BEAT_SCHEDULE.values()
        if entry["task"] == "metering.jobs.tasks.run_jobs"
    }
    assert period > JOBS_SECONDS


def test_tasks_that_tell_people_are_stopped_sooner() -> None:
    def limits(name: str, own: int | None = None) -> dict[str, int]:
        task: Task[..., object] = Task()
        task.name, task.soft_time_limit, task.time_limit = name, own, own
        return LimitsByQueue().annotate(task)

    assert limits("alerts.tasks.deliver") == {"soft_time_limit": 30, "time_limit": 45}
    assert limits("alerts.tasks.scan_anomalies") == {"soft_time_limit": 240, "time_limit": 300}
    assert limits("alerts.tasks.deliver", own=5) == {}


def test_redis_gives_nothing_away_that_may_still_run(tmp_path: Path) -> None:
    for url in ("redis://h/0", "rediss://h/0"):
        given = broker(read_environment({"CELERY_BROKER_URL": url, "DATA_DIR": str(tmp_path)}))
        assert given["broker_transport_options"]["visibility_timeout"] == 600
    rabbitmq = broker(
        read_environment({"CELERY_BROKER_URL": "amqp://h", "DATA_DIR": str(tmp_path)})
    )
    assert rabbitmq == {"broker_url": "amqp://h", "broker_transport_options": {}}


def test_the_parts_of_one_service_count_together_from_its_start(tmp_path: Path) -> None:
    environment = read_environment({"DATA_DIR": str(tmp_path)})
    folder = tmp_path / "metrics"
    assert shared_by_service(environment) == {VARIABLE: str(folder)}
    (folder / "counter_1.db").touch()
    shared_by_service(environment)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "environ", "is_shared"),
    [
        ("web", {}, False),
        ("web", {"METRICS_PORT": "9000"}, False),
        ("web", {"WEB_WORKERS": "2"}, True),
        ("alerts", {}, False),
        ("alerts", {"METRICS_PORT": "9000"}, True),
    ],
)
def test_a_part_by_itself_counts_in_a_folder_of_its_own_when_it_has_several_processes(
    part: str,
    environ: dict[str, str],
    is_shared: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    given = [shared_by_part(part, read_environment(environ)) for _ in range(2)]
    assert [VARIABLE in each for each in given] == [is_shared, is_shared]
    assert len(list(tmp_path.iterdir())) == (2 if is_shared else 0)


@pytest.mark.parametrize(("worker", "steps"), [("worker@here", [NICENESS]), ("alerts@here", [])])
def test_only_work_that_nobody_waits_for_stands_back(
    monkeypatch: pytest.MonkeyPatch, worker: str, steps: list[int]
) -> None:
    taken: list[int] = []
    monkeypatch.setattr("os.nice", taken.append)
    be_nice(worker)
    assert taken == steps
