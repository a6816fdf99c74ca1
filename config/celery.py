"""Celery: the broker, the queues, and the schedule.

Rows in the database are the queue of what is to be done; a message only says "look now". So a lost
message loses nothing, and the next beat finds the same rows.
"""

import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

from config.garbage import collect_seldom

collect_seldom()

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.schedules import crontab
from celery.signals import celeryd_init, task_prerun, worker_process_init
from django.db import close_old_connections

from config import work_metrics
from config.connections import JOBS, limit_process
from config.environment import Environment, read_environment
from config.queues import DEFAULT_QUEUE, HARD_LIMIT_SECONDS, LimitsByQueue, route

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


# A process replaces its connection after this many tasks; making one takes longer than most do.
TASKS_PER_CONNECTION = 1_000
# By so much the clocks of two machines may differ.
CLOCKS_APART_SECONDS = 60.0
# Background work yields the processors to processes that answer callers: a third of an equal share.
NICENESS = 5


def every(seconds: float, task: str) -> dict[str, Any]:
    """Run a task again and again; what waited longer than its period is dropped, not piled up."""
    # The worker judges by its own clock, which may be ahead of the scheduler's.
    expires = max(seconds, CLOCKS_APART_SECONDS)
    return {"task": task, "schedule": timedelta(seconds=seconds), "options": {"expires": expires}}


def daily(hour: int, task: str) -> dict[str, Any]:
    """Run a task once a day, at an hour UTC."""
    return {"task": task, "schedule": crontab(hour=str(hour), minute="10"), "options": {}}


BEAT_SCHEDULE = {
    "roll up what was acknowledged": every(5, "metering.jobs.tasks.roll_up"),
    "expire reservations": every(2, "metering.jobs.tasks.expire_reservations"),
    "end what is over in budgets": every(2, "metering.jobs.tasks.end_what_is_over"),
    "tell of what metering left": every(2, "alerts.tasks.notify"),
    "send what is due": every(2, "alerts.tasks.deliver"),
    "mail links to people": every(5, "dashboard.tasks.mail_links"),
    "send scheduled reports": every(30, "dashboard.tasks.send_reports"),
    "look for loops": every(5, "alerts.tasks.check_sessions"),
    "end what is over": every(10, "alerts.tasks.end_incidents"),
    "scan for anomalies": every(15, "alerts.tasks.scan_anomalies"),
    "judge by rules": every(60, "alerts.tasks.check_rules"),
    "let credit begin and expire": every(2, "billing.tasks.move_credit"),
    "go on with long work": every(2, "metering.jobs.tasks.run_jobs"),
    "run simulations": every(10, "metering.jobs.tasks.run_simulations"),
    "remove what is kept of idle groups": every(600, "metering.jobs.tasks.remove_idle_groups"),
    "remove spans of traces that grow no more": every(300, "metering.jobs.tasks.remove_old_spans"),
    "age rolling windows": every(60, "metering.jobs.tasks.age_rolling_windows"),
    "price what was unpriced": every(600, "metering.jobs.tasks.price_unpriced"),
    "seal usage too old to be kept": every(900, "metering.jobs.tasks.seal_old_usage"),
    "remove metering too old to be kept": every(900, "metering.jobs.tasks.remove_old_rows"),
    "remove alerts too old to be kept": every(900, "alerts.tasks.remove_old_rows"),
    "remove answers and audits too old to be kept": every(900, "tenants.tasks.remove_old_rows"),
    "forget links that ended long ago": every(900, "dashboard.tasks.forget_old_links"),
    "remove reports too old to be kept": every(900, "dashboard.tasks.remove_old_reports"),
    "compare bills, statements and usage": every(10, "billing.tasks_reconciliation.reconcile"),
    "compare what was billed since yesterday": daily(
        5, "billing.tasks_reconciliation.start_daily_reconciliations"
    ),
    "open drafts of periods that begin": every(10, "billing.tasks.open_drafts"),
    "finalize statements that are due": every(60, "billing.tasks.finalize_statements"),
    "collect with Stripe": every(10, "billing.tasks.collect_statements"),
    "remove events of Stripe too old to be kept": every(900, "billing.tasks.remove_old_events"),
    "make partitions ahead": daily(0, "metering.jobs.tasks.make_partitions"),
}


# What Redis was not told to be done in this time it gives to another worker. So it is longer than
# any task may run; else two workers would run a long one simultaneously.
VISIBILITY_TIMEOUT_SECONDS = 2 * HARD_LIMIT_SECONDS
REDIS_OPTIONS = {
    "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
    # A connection that a firewall forgot is noticed, and opened again.
    "socket_keepalive": True,
    "health_check_interval": 30,
}
# RabbitMQ waits 30 minutes for the same before it closes the channel, longer than any task runs.
# Its queues are of the plain, durable kind: copies on other machines would keep nothing that the
# next beat does not say again.
TRANSPORT_OPTIONS = {"redis": REDIS_OPTIONS, "rediss": REDIS_OPTIONS}


def broker(environment: Environment) -> dict[str, Any]:
    """Return Celery's settings for the given broker, or for files under DATA_DIR."""
    if environment.celery_broker_url is not None:
        return {
            "broker_url": environment.celery_broker_url,
            "broker_transport_options": TRANSPORT_OPTIONS.get(
                environment.celery_broker_url.partition("://")[0], {}
            ),
        }
    folder = environment.data_dir / "broker"
    for name in ("messages", "control"):
        Path(folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        "broker_url": "filesystem://localhost//",
        "broker_transport": "config.file_broker:Transport",
        "broker_transport_options": {
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.1,  # the transport's own default answers after seconds
        },
        # These write a file for every word between workers, and there is one worker.
        "worker_enable_remote_control": False,
    }


def configure(environment: Environment) -> dict[str, Any]:
    return {
        **broker(environment),
        "beat_schedule": BEAT_SCHEDULE,
        "beat_schedule_filename": str(environment.data_dir / "beat_schedule"),
        "broker_connection_retry_on_startup": True,
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_default_queue": DEFAULT_QUEUE,
        "task_routes": (route,),
        "task_annotations": (
            LimitsByQueue(),
            {"*": {"Request": "config.killed_tasks:CountedRequest"}},
        ),
        # A message is done when its task has ended, well or not. One whose process was killed goes
        # back to the queue; should it kill the next as well, it soon expires. A task that takes
        # too long would do so again: it is not repeated, and the beat asks for it again.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # A process takes a message when it is free to begin, so that none waits behind a long task
        # while another process is idle.
        "worker_prefetch_multiplier": 1,
        # Celery closes after twice as many.
        "CELERY_DB_REUSE_MAX": TASKS_PER_CONNECTION // 2,
        "worker_hijack_root_logger": False,
        # The log's lines go to standard output as they are, not as warnings about output.
        "worker_redirect_stdouts": False,
        "timezone": "UTC",
        "enable_utc": True,
    }


def be_nice(sender: str, **_: object) -> None:
    """Lower the priority of this worker and of the processes that it forks, but not of `alerts`."""
    if sender.startswith("worker@"):
        os.nice(NICENESS)


# Running as root is discouraged where messages may hold code; these are JSON.
warnings.filterwarnings("ignore", category=SecurityWarning)

application = Celery("spendgate")
application.conf.update(configure(read_environment()))
application.autodiscover_tasks()
application.autodiscover_tasks(["metering.jobs"], related_name="tasks")
application.autodiscover_tasks(["billing"], related_name="tasks_reconciliation")
work_metrics.listen()
celeryd_init.connect(be_nice)
worker_process_init.connect(lambda **_: limit_process(JOBS), weak=False)
# Replaces a connection that the server has closed, or that is too old, before a task needs it.
task_prerun.connect(lambda **_: close_old_connections(), weak=False)
