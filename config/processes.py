"""Child processes that do not outlive the one that started them, and finding those that did."""

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypedDict

import psutil

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def spawn(
    arguments: Sequence[str | Path],
    *,
    death_signal: signal.Signals,
    environ: Mapping[str, str],
    output: int | IO[bytes] | None,
    folder: Path | None = None,
    user: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C reaches its parent alone.

    When this process ends, however it ends, the kernel sends `death_signal` to the new one.
    Call it from the main thread: the kernel watches the thread, not the process.
    """
    return subprocess.Popen(
        [str(argument) for argument in arguments],
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        start_new_session=True,
        **run_as(user),
        preexec_fn=_end_with(os.getpid(), death_signal),  # noqa: PLW1509 - the supervisor has one thread
    )


class RunAs(TypedDict, total=False):
    """Popen's arguments for another user."""

    user: int
    group: int
    extra_groups: list[int]


def run_as(user: int | None) -> RunAs:
    """Return Popen's arguments for another user, without this one's groups; `None` is this one."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}


def _end_with(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    # Runs after the change of user, which would clear the setting.
    def prepare() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the kernel was told to watch it

    return prepare


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a spawned process and everything it started in its session's first group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def is_running(pid: int) -> bool:
    """Whether a process lives; one that has ended and waits to be collected does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def with_environment(marker: str) -> list[int]:
    """Return processes whose environment holds `NAME=value`, this one left out."""
    name, _, value = marker.partition("=")
    return [pid for pid, known in _others("environ") if known.get(name) == value]


def with_title(text: str) -> list[int]:
    """Return processes whose command line or title holds a text, this one left out."""
    return [pid for pid, arguments in _others("cmdline") if text in "\0".join(arguments)]


def _others(attribute: str) -> Iterator[tuple[int, Any]]:
    """Yield what this user may see of each other process that has not ended."""
    for process in psutil.process_iter([attribute]):
        known = process.info[attribute]
        if known and process.pid != os.getpid() and is_running(process.pid):
            yield process.pid, known


def end_all(pids: Sequence[int], *, patience_seconds: float) -> None:
    """Ask processes to end, wait, and kill those that do not."""
    for number, seconds in ((signal.SIGTERM, patience_seconds), (signal.SIGKILL, 5.0)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        if wait_until(lambda: not any(map(is_running, pids)), seconds):
            return


def wait_until(is_done: Callable[[], bool], seconds: float) -> bool:
    """Poll until something holds; return False if it does not within the time."""
    end = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
