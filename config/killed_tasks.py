"""Counts tasks that died with their process, which the worker's main process alone learns of."""

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from config.work_metrics import count_run


class CountedRequest(Request):
    """A message whose task runs in a process below; it is counted here when that is killed."""

    _is_timeout = False

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Count a task that is killed at the hard limit; at the soft one it decides itself."""
        if not soft:
            self._is_timeout = True
            count_run(self.task.name, "timeout")
        super().on_timeout(soft, timeout)

    def on_failure(
        self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Count a task that was lost with its process. Called for every failure."""
        error = exc_info.exception
        # What comes from another process is wrapped, so that its trace can be sent.
        error = getattr(error, "exc", error)
        if isinstance(error, WorkerLostError | SystemExit) and not self._is_timeout:
            count_run(self.task.name, "lost")
        super().on_failure(exc_info, send_failed_event, return_ok)
