"""The service under test: started from outside as a user would start it, on a folder of its own."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg

CHECKOUT = Path(__file__).resolve().parent.parent
STARTS_WITHIN_SECONDS = 60
NOTHING_FURTHER: Mapping[str, str] = {}


class Service:
    """A running service and a tenant in it."""

    def __init__(
        self,
        *,
        process: subprocess.Popen[bytes],
        data_dir: Path,
        port: int,
        further: Mapping[str, str],
    ) -> None:
        self.process = process
        self.data_dir = data_dir
        self.port = port
        self.environ = _environ(data_dir, port, further)
        self.api_key = ""

    def manage(self, *arguments: str) -> str:
        """Run a management command; answers what it printed."""
        done = subprocess.run(  # noqa: S603 - our own command
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
        printed = self.manage("create_tenant", name, "--owner", f"{name}@example.com", "--json")
        self.api_key = json.loads(printed.splitlines()[-1])["api_key"]

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request of the API; answers its JSON."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=self.headers,
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - loopback
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.msg = f"{method} {path}: {error.read().decode(errors='replace')[:500]}"
            raise

    @property
    def headers(self) -> Mapping[str, str]:
        """What a client sends with every request."""
        return {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}

    def connect(self) -> psycopg.Connection[Any]:
        """A connection to the service's own PostgreSQL, as its own role."""
        record = json.loads((self.data_dir / "embedded_postgres.json").read_text())
        return psycopg.connect(
            host=record["socket_folder"],
            user="spendgate",
            password=record["password"],
            dbname="spendgate",
            # Otherwise every transaction of a benchmark would be a part of one that never ends.
            autocommit=True,
        )

    @contextmanager
    def another_web(self) -> Iterator[int]:
        """A second web process on the same database; the answer is its port."""
        port = free_port()
        with (self.data_dir / "other_web.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "config.parts", "web"],
                cwd=CHECKOUT,
                env={**self.environ, "PORT": str(port)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                _wait_until_listening(port)
                yield port
            finally:
                process.terminate()
                process.wait(timeout=60)

    @contextmanager
    def stopped_postgres(self) -> Iterator[None]:
        """PostgreSQL neither answers nor hangs up meanwhile."""
        pid = int((self.data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
        postmaster = psutil.Process(pid)
        stopped = [postmaster, *postmaster.children(recursive=True)]
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()

    def web_memory_mib(self) -> float:
        """The largest resident set of a web process."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        sizes = [_resident_mib(child) for child in children if "granian" in _command(child)]
        return max(sizes, default=0.0)


def _resident_mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def _environ(data_dir: Path, port: int, further: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return {**kept, "DATA_DIR": str(data_dir), "PORT": str(port), "DEMO": "0", **further}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_service(further: Mapping[str, str] = NOTHING_FURTHER) -> Iterator[Service]:
    """Start the service on an empty folder, with these variables besides; stop it and remove the
    folder at the end.
    """
    data_dir = Path(tempfile.mkdtemp(prefix="spendgate-bench-"))
    port = free_port()
    with (data_dir / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "config.supervisor"],
            cwd=CHECKOUT,
            env=_environ(data_dir, port, further),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        service = Service(process=process, data_dir=data_dir, port=port, further=further)
        try:
            _wait_until_ready(service)
            yield service
        finally:
            process.terminate()
            process.wait(timeout=60)
            shutil.rmtree(data_dir, ignore_errors=True)


def _wait_until_listening(port: int) -> None:
    end = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise SystemExit("The second web process does not listen.")


def _wait_until_ready(service: Service) -> None:
    end = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < end:
        if service.process.poll() is not None:
            break
        try:
            service.call("GET", "/readyz")
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
        else:
            return
    raise SystemExit((service.data_dir / "output.log").read_text()[-4000:])
