"""Which queue a task's messages wait in, which worker takes them, and how long a task may run.

What people wait for never stands behind work that takes minutes: it has a queue and a worker of its
own.
"""

from fnmatch import fnmatchcase
from typing import Final

from celery import Task

DEFAULT_QUEUE: Final = "default"
ALERTS_QUEUE: Final = "alerts"
SCANS_QUEUE: Final = "scans"

# The first pattern that fits decides.
QUEUE_BY_TASKS: Final = {
    # These may take long: a simulation minutes.
    "metering.jobs.tasks.run_simulations": DEFAULT_QUEUE,
    "metering.jobs.tasks.run_jobs": DEFAULT_QUEUE,
    "billing.tasks.finalize_statements": DEFAULT_QUEUE,
    "metering.jobs.tasks.*": "ingest",
    "tenants.tasks.*": "ingest",
    # These may take a minute, and who is to be told of something must not wait for them.
    "alerts.tasks.scan_*": SCANS_QUEUE,
    "alerts.tasks.check_*": SCANS_QUEUE,
    "alerts.tasks.remove_*": SCANS_QUEUE,
    "alerts.tasks.*": ALERTS_QUEUE,
    "dashboard.tasks.*": ALERTS_QUEUE,
    "billing.tasks*": "billing",
}
QUEUES: Final = tuple(dict.fromkeys((DEFAULT_QUEUE, *QUEUE_BY_TASKS.values())))

# A worker is a part of the service. Every queue is in one of them.
QUEUES_BY_WORKER: Final = {
    "worker": tuple(queue for queue in QUEUES if queue != ALERTS_QUEUE),
    "alerts": (ALERTS_QUEUE,),
}

# At the soft limit a task gets an exception, at the hard one its process is killed.
SOFT_LIMIT_SECONDS: Final = 240
HARD_LIMIT_SECONDS: Final = 300
# For ALERTS_QUEUE: its tasks end by themselves after SHORT_SECONDS of alerts.tasks and the time of
# one delivery.
ALERTS_SOFT_LIMIT_SECONDS: Final = 30
ALERTS_HARD_LIMIT_SECONDS: Final = 45


def queue_of(task: str) -> str:
    """Return the queue of a task, by its name."""
    fitting = (queue for tasks, queue in QUEUE_BY_TASKS.items() if fnmatchcase(task, tasks))
    return next(fitting, DEFAULT_QUEUE)


def route(name: str, *arguments: object, **options: object) -> dict[str, str]:
    """Return `queue_of`, as Celery asks for it."""
    return {"queue": queue_of(name)}


class LimitsByQueue:
    """Gives each task that has none of its own the time limits of its queue."""

    def annotate(self, task: Task[..., object]) -> dict[str, int]:
        limits = {"soft_time_limit": SOFT_LIMIT_SECONDS, "time_limit": HARD_LIMIT_SECONDS}
        if queue_of(task.name) == ALERTS_QUEUE:
            limits = {
                "soft_time_limit": ALERTS_SOFT_LIMIT_SECONDS,
                "time_limit": ALERTS_HARD_LIMIT_SECONDS,
            }
        return {name: limit for name, limit in limits.items() if getattr(task, name) is None}

    def annotate_any(self) -> None:
        """Do nothing: no limit is that of all tasks."""
