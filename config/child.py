"""One supervised process: started, watched, restarted with patience, stopped."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from config import processes
from config.output import say

FAILURES_MAX = 5
RESTART_FIRST_SECONDS = 0.2
RESTART_MOST_SECONDS = 5.0
JUDGE_SECONDS = 0.3


class KeepsFailing(Exception):
    """A child ended again and again without coming up; the message says which, and how."""


def has_lived(seconds: float) -> Callable[["Child"], bool]:
    """Judge a child that answers no requests: it is up if it has not ended for a while."""

    def judge(child: "Child") -> bool:
        return time.monotonic() - child.started_at > seconds

    return judge


@dataclass
class Child:
    """A process that should always run.

    One that never came up is given up after a few tries: it cannot start. One that did is restarted
    indefinitely, with growing pauses until it is up again: the problem may pass.
    """

    name: str
    arguments: list[str]
    judge: Callable[["Child"], bool] = field(default_factory=lambda: has_lived(10.0))
    stop_seconds: float = 10.0
    has_own_output: bool = False
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    is_up: bool = False
    has_been_up: bool = False
    judge_at: float = 0.0
    restart_at: float = 0.0

    def start(self, environ: Mapping[str, str]) -> int | None:
        """Start it; the answer is the descriptor of its output, if that is to be read."""
        self.process = processes.spawn(
            self.arguments,
            death_signal=signal.SIGTERM,
            environ=environ,
            output=None if self.has_own_output else subprocess.PIPE,
        )
        self.started_at = time.monotonic()
        self.is_up = False
        return self.process.stdout.fileno() if self.process.stdout is not None else None

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def notice(self) -> None:
        """Take note of it coming up, or of its death; raises KeepsFailing after too many."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            self._bury()
        elif not self.is_up and time.monotonic() >= self.judge_at:
            self.judge_at = time.monotonic() + JUDGE_SECONDS
            self.is_up = self.judge(self)
            self.has_been_up |= self.is_up

    def is_due(self) -> bool:
        return self.process is None and time.monotonic() >= self.restart_at

    def ask_to_stop(self) -> None:
        """Ask its main process alone: it knows best in which order its own children end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def kill(self) -> None:
        if self.process is not None:
            processes.signal_group(self.process, signal.SIGKILL)

    def _bury(self) -> None:
        assert self.process is not None, "it was running"
        how = describe_end(self.process.returncode)
        self.kill()  # what it started must not keep its port or its work
        self.process = None
        self.failures = 0 if self.is_up else self.failures + 1
        if self.failures >= FAILURES_MAX and not self.has_been_up:
            raise KeepsFailing(
                f"{self.name} {how} and came up in none of {FAILURES_MAX} tries: stopping. "
                f"Its own output is above."
            )
        pause = min(RESTART_FIRST_SECONDS * 2 ** min(self.failures, 10), RESTART_MOST_SECONDS)
        self.restart_at = time.monotonic() + pause
        say(f"{self.name} {how}: starting it again in {pause:.1f} s.")


def describe_end(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
