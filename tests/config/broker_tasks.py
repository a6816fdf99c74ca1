"""Tasks for `test_brokers`, in workers that include this module."""

import os
import signal
import time
from pathlib import Path

from config.celery import application

if os.environ.get("CELERY_BROKER_URL", "").startswith("redis:"):
    # So that what a killed worker had is soon given away.
    application.conf.broker_transport_options["visibility_timeout"] = 1


@application.task(name="tests.leave")
def leave(path: str) -> None:
    """Say that it was here."""
    Path(path).write_text("done")


@application.task(name="tests.be_killed_once", bind=True)
def be_killed_once(self: object, path: str, whole_worker: bool) -> None:
    """Kill its process, or all of its worker; the next run says that it was here."""
    if Path(path).exists():
        Path(path).write_text("done")
        return
    Path(path).write_text("begun")
    if whole_worker:
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@application.task(name="tests.take_too_long", soft_time_limit=1, time_limit=2)
def take_too_long(path: str) -> None:
    """Go on until it is stopped, after the soft limit too."""
    while True:
        try:
            time.sleep(10)
        except Exception:
            Path(path).write_text("done")
