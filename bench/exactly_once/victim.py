"""The service that is killed: its processes found from outside, started again on its folder."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg

from bench.service import CHECKOUT, Service, free_port

READY_SECONDS: Final = 120.0
STOP_SECONDS: Final = 90.0
# Nothing else of the caller's environment reaches the service: it may name another database.
KEPT_VARIABLES: Final = ("PATH", "HOME", "LANG", "TMPDIR")


class ServiceEnded(Exception):
    """The service ended by itself, or does not come up; the message holds its last words."""


class Victim(Service):
    """A service whose processes are killed while it is used."""

    def __init__(self, data_dir: Path, more: Mapping[str, str] | None = None) -> None:
        port = free_port()
        self.log = data_dir / "output.log"
        environ = {
            **{name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ},
            "DATA_DIR": str(data_dir / "data"),
            "PORT": str(port),
            "DEMO": "0",
            **(more or {}),
        }
        super().__init__(
            process=_spawn(environ, self.log),
            data_dir=data_dir / "data",
            port=port,
            further=more or {},
        )
        self.environ = environ

    def start_again(self) -> None:
        """Start the service on its folder after all of it was killed."""
        self.process = _spawn(self.environ, self.log)

    def wait_until_ready(self) -> None:
        """Come back when the service takes requests."""
        end = time.monotonic() + READY_SECONDS
        while True:
            self.require_running()
            with contextlib.suppress(OSError):
                self.call("GET", "/readyz")
                return
            if time.monotonic() > end:
                raise ServiceEnded(f"The service is not ready:\n{self.last_words()}")
            time.sleep(0.1)

    def make(self, path: str, body: object, *, key: str) -> Any:
        """POST what must be made once, however often it is asked for with this key."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method="POST",
            data=json.dumps(body).encode(),
            headers={**self.headers, "Idempotency-Key": key},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
            return json.load(answer)

    def require_running(self) -> None:
        """Raise ServiceEnded when the supervisor has ended."""
        if self.process.poll() is not None:
            raise ServiceEnded(
                f"The service ended with status {self.process.returncode}:\n{self.last_words()}"
            )

    def last_words(self) -> str:
        """The end of what the service said."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])

    def said(self, words: str) -> int:
        """How many lines of the service's output hold these words."""
        return sum(words in line for line in self.log.read_text(errors="replace").splitlines())

    def web_parents(self) -> list[psutil.Process]:
        """The main process of the web server, if it runs."""
        return self._children("granian")

    def web_workers(self) -> list[psutil.Process]:
        """The processes that answer requests."""
        return _below(self.web_parents())

    def celery_workers(self) -> list[psutil.Process]:
        """The processes that roll up."""
        parents = self._children("celery", "worker")
        return [*parents, *_below(parents)]

    def postmasters(self) -> list[psutil.Process]:
        """PostgreSQL's main process, if it runs."""
        try:
            pid = (self.data_dir / "postgres" / "postmaster.pid").read_text().split()[0]
            return [psutil.Process(int(pid))]
        except (OSError, IndexError, psutil.NoSuchProcess):
            return []

    def cut_connection(self) -> bool:
        """End one of the service's database connections in the middle of its transaction."""
        with contextlib.suppress(psycopg.OperationalError), self.connect() as connection:
            cut = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state <> 'idle'"
                " AND usename = current_user AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
            ).fetchone()
            return cut == (True,)
        return False

    def everything(self) -> list[psutil.Process]:
        """The supervisor and all processes below it, PostgreSQL's too; the supervisor first."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def stop(self) -> int:
        """Ask the service to stop; answers its exit status."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    def _children(self, *words: str) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.process.pid).children()
            return [one for one in children if set(words) <= set(one.cmdline())]
        except psutil.NoSuchProcess:
            return []


def _below(parents: Sequence[psutil.Process]) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for parent in parents:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += parent.children(recursive=True)
    return found


def kill(victims: Sequence[psutil.Process], number: signal.Signals = signal.SIGKILL) -> int:
    """Signal processes, as far as they still live; answers how many did."""
    count = 0
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(number)
            count += 1
    return count


@contextmanager
def running_victim(more: Mapping[str, str] | None = None) -> Iterator[Victim]:
    """Start the service on an empty folder, with `more` in its environment.

    The folder goes at the end, unless the block fails.
    """
    folder = Path(tempfile.mkdtemp(prefix="spendgate-victim-"))
    victim = Victim(folder, more)
    try:
        victim.wait_until_ready()
        yield victim
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            kill(victim.everything())
        victim.process.wait()
    shutil.rmtree(folder)


def _spawn(environ: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "config.supervisor"],
            cwd=CHECKOUT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
