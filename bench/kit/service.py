"""The service under test: started from outside as a user would start it, on a folder of its own,
with its processes found from outside so that they can be broken.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import psutil
import psycopg
from psycopg.rows import TupleRow

from bench.kit.clock.sitecustomize import FILE as CLOCKS_VARIABLE
from bench.kit.wire import Connection, JsonObject, Requests

CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent
READY_SECONDS: Final = 120.0
STOP_SECONDS: Final = 90.0
# Nothing else of the caller's environment reaches the service: it may name another database.
KEPT_VARIABLES: Final = ("PATH", "HOME", "LANG", "TMPDIR")
NOTHING_MORE: Final[Mapping[str, str]] = {}


class ServiceEnded(Exception):
    """The service ended by itself, or does not come up; the message holds its last words."""


class Service:
    """A running service, and the tenant for which calls are made."""

    def __init__(self, folder: Path, more: Mapping[str, str] = NOTHING_MORE) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.port = free_port()
        self.log = folder / "output.log"
        self.clocks = folder / "clocks.json"
        self.environ = {
            **{name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ},
            "DATA_DIR": str(self.data_dir),
            "PORT": str(self.port),
            "DEMO": "0",
            "PYTHONPATH": str(Path(__file__).parent / "clock"),
            CLOCKS_VARIABLE: str(self.clocks),
            **more,
        }
        self.api_key = ""
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Start the service on its folder, for the first time or after all of it was killed."""
        self.process = self._spawn("config.supervisor")

    def _spawn(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=CHECKOUT,
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

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

    def require_running(self) -> None:
        """Raise ServiceEnded when the supervisor has ended."""
        if self.process.poll() is not None:
            raise ServiceEnded(
                f"The service ended with status {self.process.returncode}:\n{self.last_words()}"
            )

    def last_words(self) -> str:
        """Return the end of what the service printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])

    def stop(self) -> int:
        """Ask the service to stop, and return its exit status."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    # Its API and its database.

    def manage(self, *arguments: str) -> str:
        """Run a management command and return what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=CHECKOUT,
            env=self.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def create_tenant(self, name: str = "bench") -> None:
        """Make a tenant, for which all calls are made from now on."""
        self.api_key = self.make_tenant(name)

    def make_tenant(self, name: str) -> str:
        """Make a tenant and return its key."""
        printed = self.manage("create_tenant", name, "--owner", f"{name}@example.com", "--json")
        return str(json.loads(printed.splitlines()[-1])["api_key"])

    def make_tenants(self, count: int) -> list[str]:
        """Make tenants in one process, each with one budget that enforces, and return their keys:
        no web process has met them.
        """
        printed = self.manage("shell", "-v", "0", "-c", MAKE_TENANTS.format(count=count))
        return printed.split()

    @property
    def headers(self) -> Mapping[str, str]:
        """What a client sends with every request."""
        return headers_of(self.api_key)

    def call(self, method: str, path: str, body: object = None) -> JsonObject:
        """Make one request of the API and return its JSON. Raises OSError where it is refused."""
        content = b"" if body is None else msgspec.json.encode(body)
        with contextlib.closing(Connection(self.port)) as connection:
            answer = connection.ask(Requests(self.headers).make(method, path, content))
        if answer.status >= 400:
            raise OSError(f"{method} {path}: {answer}")
        return answer.json()

    def connect(self) -> psycopg.Connection[TupleRow]:
        """Connect to the service's own PostgreSQL, as its own role."""
        return psycopg.connect(
            # Otherwise every transaction of a benchmark would be a part of one that never ends.
            **self.login(),
            autocommit=True,
        )

    def login(self) -> JsonObject:
        """Return what a client needs to connect to the service's PostgreSQL."""
        record = json.loads((self.data_dir / "embedded_postgres.json").read_text())
        return {
            "host": record["socket_folder"],
            "user": "spendgate",
            "password": record["password"],
            "dbname": "spendgate",
        }

    @contextmanager
    def another_web(self) -> Iterator[int]:
        """Run a second web process on the same database; yields its port."""
        port = free_port()
        process = self._spawn("config.parts", "web", PORT=str(port))
        try:
            _wait_until_listening(port)
            yield port
        finally:
            process.terminate()
            process.wait(timeout=60)

    # Its processes.

    def web_parents(self) -> list[psutil.Process]:
        """Return the main process of the web server, if it runs."""
        return self._children("granian")

    def web_workers(self) -> list[psutil.Process]:
        """Return the processes that answer requests."""
        return _below(self.web_parents())

    def celery_workers(self) -> list[psutil.Process]:
        """Return the processes that run tasks."""
        parents = self._children("celery", "worker")
        return [*parents, *_below(parents)]

    def with_clocks(self) -> list[psutil.Process]:
        """Return what reads its clock's shift when it starts: web, workers and Celery's beat."""
        beat = self._children("celery", "beat")
        return [*self.web_parents(), *self.web_workers(), *self.celery_workers(), *beat]

    def postmasters(self) -> list[psutil.Process]:
        """Return PostgreSQL's main process, if it runs."""
        try:
            pid = (self.data_dir / "postgres" / "postmaster.pid").read_text().split()[0]
            return [psutil.Process(int(pid))]
        except (OSError, IndexError, psutil.NoSuchProcess):
            return []

    def everything(self) -> list[psutil.Process]:
        """Return the supervisor and all processes below it, PostgreSQL's too."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def cut_connection(self) -> bool:
        """End one of the service's database connections in the middle of its transaction."""
        with contextlib.suppress(psycopg.OperationalError), self.connect() as connection:
            cut = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state <> 'idle'"
                " AND usename = current_user AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
            ).fetchone()
            return cut == (True,)
        return False

    @contextmanager
    def stopped_postgres(self) -> Iterator[None]:
        """PostgreSQL neither answers nor hangs up meanwhile."""
        masters = self.postmasters()
        stopped = [*masters, *_below(masters)]
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def web_memory_mib(self) -> float:
        """Return the largest resident set of a web process."""
        sizes = [0.0]
        for process in self.web_workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes.append(process.memory_info().rss / 2**20)
        return max(sizes)

    def _children(self, *words: str) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if set(words) <= set(child.cmdline())]
        except psutil.NoSuchProcess:
            return []


# Hashing passwords that no one uses would take longer than everything else.
MAKE_TENANTS: Final = """
from django.test.utils import override_settings
from metering.configuration.budgets import DEFAULT_LEVELS, create_budget
from tenants.people import create_tenant
from tenants.scope import tenant_scope
with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
    for number in range({count}):
        owner = dict(owner_email="many@example.com", actor="bench")
        made = create_tenant(name=f"many-{{number}}", **owner)
        with tenant_scope(made.tenant.id):
            create_budget(tenant=made.tenant, actor="bench", levels=DEFAULT_LEVELS, name="shared",
                match={{}}, per=[], period="month", mode="enforce",
                limit_cost_nanos=10**15, limit_tokens=10**14)
        print(made.api_key)
"""


def headers_of(api_key: str) -> Mapping[str, str]:
    """Return what a client of a tenant sends with every request."""
    return {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_service(
    more: Mapping[str, str] = NOTHING_MORE, *, folder: Path | None = None
) -> Iterator[Service]:
    """Start the service with `more` in its environment, and kill what is left of it at the end.

    Without a folder it gets an empty one, which goes at the end unless the block fails.
    """
    data_folder = folder or Path(tempfile.mkdtemp(prefix="spendgate-bench-"))
    data_folder.mkdir(parents=True, exist_ok=True)
    service = Service(data_folder, more)
    try:
        service.wait_until_ready()
        yield service
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            kill(service.everything())
        service.process.wait()
    if folder is None:
        shutil.rmtree(data_folder)


def kill(processes: Sequence[psutil.Process], number: int = 9) -> int:
    """Signal processes that still live, and return how many did."""
    count = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            count += 1
    return count


def _below(parents: Sequence[psutil.Process]) -> list[psutil.Process]:
    below: list[psutil.Process] = []
    for parent in parents:
        with contextlib.suppress(psutil.NoSuchProcess):
            below += parent.children(recursive=True)
    return below


def _wait_until_listening(port: int) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise ServiceEnded("The second web process does not listen.")
