"""Counts tasks that died with their process, which the worker's main process alone learns of."""

from typing import Any

from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from config.work_metrics import count_run


class CountedRequest(Request):
    """A message whose task runs in a process below; it is counted here when that is killed."""

    _is_timeout = False

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """Count a task that is killed at the hard limit; at the soft one it decides itself."""
        if not soft:
            self._is_timeout = True
            count_run(self.task.name, "timeout")
        return super().on_timeout(soft, timeout)

    def on_failure(self, exc_info: Any, *arguments: Any, **options: Any) -> Any:
        """Count a task that was lost with its process. Called for every failure."""
        error = exc_info.exception
        # What comes from another process is wrapped, so that its trace can be sent.
        error = getattr(error, "exc", error)
        if isinstance(error, WorkerLostError | SystemExit) and not self._is_timeout:
            count_run(self.task.name, "lost")
        return super().on_failure(exc_info, *arguments, **options)
