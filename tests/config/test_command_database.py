import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest

from config import processes
from config.command_database import database_for_command
from config.data_folder import SERVICE, own_data_folder
from config.database import embedded_conninfo
from config.embedded_postgres import running_postgres
from config.environment import read_environment


def run(arguments: list[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        env={**os.environ, "DATABASE_URL": "", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_starts_the_database_for_itself_and_stops_it(tmp_path: Path) -> None:
    environment = read_environment({"DATA_DIR": str(tmp_path)})
    with database_for_command(environment, "migrate"):
        with psycopg.connect(embedded_conninfo(tmp_path)) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("spendgate",)
        pid = int((tmp_path / "postgres" / "postmaster.pid").read_text().split()[0])
    assert not processes.is_running(pid)


def test_a_command_uses_the_database_of_the_running_service(tmp_path: Path) -> None:
    environment = read_environment({"DATA_DIR": str(tmp_path)})
    with own_data_folder(tmp_path, purpose=SERVICE), running_postgres(tmp_path):
        pid_file = tmp_path / "postgres" / "postmaster.pid"
        before = pid_file.read_text()
        with database_for_command(environment, "audit_ledger"):
            psycopg.connect(embedded_conninfo(tmp_path)).close()
        assert pid_file.read_text() == before


def test_a_second_command_waits_for_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = read_environment({"DATA_DIR": str(tmp_path)})
    is_first_in, may_first_end = threading.Event(), threading.Event()

    def first() -> None:
        with database_for_command(environment, "shell"):
            is_first_in.set()
            may_first_end.wait(20)

    thread = threading.Thread(target=first)
    thread.start()
    assert is_first_in.wait(20)
    threading.Timer(0.5, may_first_end.set).start()
    with database_for_command(environment, "migrate"):
        assert may_first_end.is_set()
        psycopg.connect(embedded_conninfo(tmp_path)).close()
    thread.join()
    words = f"Waiting for manage.py shell (process {os.getpid()})"
    assert words in capsys.readouterr().err


def test_commands_that_need_no_database_start_none(tmp_path: Path) -> None:
    answer = run(["version"], {"DATA_DIR": str(tmp_path / "data")})
    assert answer.returncode == 0
    assert not (tmp_path / "data" / "postgres").exists()


@pytest.mark.parametrize(
    ("environ", "status", "sentence"),
    [
        ({"PORT": "0"}, 2, "PORT is '0': input should be greater than or equal to 1.\n"),
        ({"DATA_DIR": "/proc/1/nowhere"}, 1, "DATA_DIR /proc/1/nowhere cannot be made: "),
    ],
)
def test_a_command_that_cannot_run_says_why_in_one_sentence(
    environ: dict[str, str], status: int, sentence: str
) -> None:
    answer = run(["migrate"], environ)
    assert answer.returncode == status
    assert answer.stderr.startswith(sentence)
    assert answer.stderr.count("\n") == 1
