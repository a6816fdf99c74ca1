import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from config import processes
from config.data_folder import DataFolderInUse, own_data_folder
from config.database import embedded_conninfo
from config.supervisor import folder_identity

# Only a failure waits so long: a busy machine takes many seconds to start PostgreSQL.
PATIENCE_SECONDS = 90.0


class Service:
    """A toy service in a process of its own, whose words go to a file."""

    def __init__(self, data_dir: Path, *, kind: str = "healthy", port: int | None = None) -> None:
        self.data_dir = data_dir
        self.words = data_dir.with_name(f"{data_dir.name}.out")
        self.port = port or free_port()
        environ = {**os.environ, "DATA_DIR": str(data_dir), "PORT": str(self.port), "DEMO": "0"}
        environ.pop("DATABASE_URL", None)
        arguments = [sys.executable, "-m", "tests.config.toy_service", kind]
        if kind == "under-make":
            makefile = data_dir.with_name("Makefile")
            makefile.write_text(f"run:\n\t@exec {shlex.join(arguments)}\n")
            arguments = ["make", "-f", str(makefile), "run"]
        with self.words.open("ab") as output:
            self.process = subprocess.Popen(
                arguments,
                env=environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return self.words.read_text()

    def wait_for(self, words: str, *, times: int = 1) -> None:
        def is_said() -> bool:
            return self.said().count(words) >= times or self.process.poll() is not None

        assert processes.wait_until(is_said, PATIENCE_SECONDS), self.said()
        assert self.said().count(words) >= times, self.said()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def living(self) -> list[int]:
        """Everything the service started and that still runs, PostgreSQL included."""
        marker = f"SPENDGATE_RUN={folder_identity(self.data_dir)}"
        return processes.with_environment(marker) + self.postgres()

    def postgres(self) -> list[int]:
        cluster = self.data_dir / "postgres"
        if not cluster.exists():
            return []
        return processes.with_title(f"spendgate-{folder_identity(cluster)}-data")

    def children(self, program: str) -> list[int]:
        return [pid for pid in self.living() if program in command_line(pid)]


@pytest.fixture(autouse=True)
def _interrupts_are_heeded() -> Iterator[None]:
    """A shell's background job ignores interrupts, and so would what is started here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    if (tmp_path / "data").exists():
        marker = f"SPENDGATE_RUN={folder_identity(tmp_path / 'data')}"
        processes.end_all(processes.with_environment(marker), patience_seconds=1.0)


def free_port() -> int:
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        return int(attempt.getsockname()[1])


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_running_service_survives_what_happens_to_its_parts(data_dir: Path) -> None:
    service = Service(data_dir)
    service.wait_for("Ready: http://127.0.0.1")
    assert service.said().count("awake") == 1

    # A child that is killed is started again.
    os.kill(service.children("awake")[0], signal.SIGKILL)
    service.wait_for("web was ended by SIGKILL: starting it again")
    service.wait_for("awake", times=2)

    # So is PostgreSQL, and what was committed is there.
    with psycopg.connect(embedded_conninfo(data_dir), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (id int)")
        postmaster = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
    service.wait_for("PostgreSQL is back")
    with psycopg.connect(embedded_conninfo(data_dir)) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)

    # A second one on the same folder says who has it, and disturbs nothing.
    second = Service(data_dir)
    assert second.wait() == 1
    assert f"is in use by the service (process {service.process.pid})" in second.said()

    service.process.send_signal(signal.SIGTERM)
    assert service.wait() == 0
    assert service.living() == []
    assert service.said().splitlines()[-1] == "spendgate | Stopped."


def test_what_a_killed_supervisor_leaves_is_gone_before_the_next_start(data_dir: Path) -> None:
    service = Service(data_dir)
    service.wait_for("Ready")
    stubborn = service.children("SIG_IGN")
    service.process.kill()
    service.wait()
    # The kernel tells the children; one that does not listen is left for the next start.
    assert processes.wait_until(lambda: service.children("awake") == [], PATIENCE_SECONDS)
    assert service.children("SIG_IGN") == stubborn

    again = Service(data_dir)
    again.wait_for("Ready", times=2)
    assert not processes.is_running(stubborn[0])
    again.process.send_signal(signal.SIGINT)
    assert again.wait() == 0
    assert again.living() == []


def test_the_next_start_recovers_after_everything_was_killed(data_dir: Path) -> None:
    service = Service(data_dir)
    service.wait_for("Ready")
    with psycopg.connect(embedded_conninfo(data_dir), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id")
    service.process.kill()
    for pid in service.living():
        with_no_mercy(pid)
    service.wait()

    again = Service(data_dir)
    again.wait_for("Ready", times=2)
    with psycopg.connect(embedded_conninfo(data_dir)) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
    again.process.send_signal(signal.SIGTERM)
    assert again.wait() == 0


def with_no_mercy(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_child_that_cannot_start_stops_the_whole_with_a_sentence(data_dir: Path) -> None:
    service = Service(data_dir, kind="broken")
    assert service.wait() == 1
    assert "beat      | no such planet" in service.said()
    assert "beat ended with status 1 and came up in none of 5 tries: stopping." in service.said()
    assert service.living() == []


def test_a_database_that_cannot_be_prepared_stops_the_start(data_dir: Path) -> None:
    service = Service(data_dir, kind="unprepared")
    assert service.wait() == 1
    assert "Bringing the database up to date ended with status 1: stopping." in service.said()
    assert "awake" not in service.said()
    assert service.living() == []


def test_a_second_interrupt_does_not_wait(data_dir: Path) -> None:
    service = Service(data_dir)
    service.wait_for("Ready")
    service.process.send_signal(signal.SIGINT)
    service.wait_for("Stopping")
    time.sleep(0.35)
    service.process.send_signal(signal.SIGINT)
    assert service.wait() == 0
    assert service.living() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ending_make_alone_ends_the_service(data_dir: Path, number: signal.Signals) -> None:
    service = Service(data_dir, kind="under-make")
    service.wait_for("Ready")
    service.process.send_signal(number)
    service.wait()
    assert processes.wait_until(lambda: "Stopped." in service.said(), PATIENCE_SECONDS)
    assert service.living() == []


def test_a_port_in_use_is_said_before_anything_starts(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        service = Service(data_dir, port=port)
        assert service.wait() == 1
    assert f"Port {port} on 127.0.0.1 is in use by another program" in service.said()
    assert not (data_dir / "postgres").exists()


def test_a_wrong_setting_stops_the_start_with_its_sentence(data_dir: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "config.supervisor"],
        env={**os.environ, "DATA_DIR": str(data_dir), "PORT": "abc"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert (
        answer.stderr
        == "PORT is 'abc': input should be a valid integer, unable to parse string as an integer.\n"
    )
    assert not data_dir.exists()


def test_a_folder_has_one_owner_until_it_lets_go(tmp_path: Path) -> None:
    with own_data_folder(tmp_path, purpose="a test"):
        with pytest.raises(DataFolderInUse) as refusal, own_data_folder(tmp_path, purpose="other"):
            pass
        assert refusal.value.owner == f"a test (process {os.getpid()})"
    with own_data_folder(tmp_path, purpose="the next"):
        pass
