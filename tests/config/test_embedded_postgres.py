import json
import os
import signal
import stat
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from config import embedded_postgres, processes
from config.database import EMBEDDED_RECORD, embedded_conninfo
from config.embedded_postgres import (
    EmbeddedPostgres,
    PostgresFailed,
    running_postgres,
    server_settings,
)

GIBIBYTE = 1024**3
QUICK = {"fsync": "off", "shared_buffers": "64MB"}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_the_service_logs_in_without_power_over_row_security(data_dir: Path) -> None:
    with (
        running_postgres(data_dir, settings=QUICK) as conninfo,
        psycopg.connect(conninfo) as connection,
    ):
        query = (
            "SELECT rolsuper, rolbypassrls, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        )
        assert connection.execute(query).fetchone() == (False, False, False)
        owner = (
            "SELECT datdba::regrole::text, datlocale FROM pg_database WHERE datname = 'spendgate'"
        )
        assert connection.execute(owner).fetchone() == ("spendgate", "C.UTF-8")
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_nobody_else_gets_in(data_dir: Path) -> None:
    with running_postgres(data_dir, settings=QUICK) as conninfo:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(make_conninfo(conninfo, password="guess"))
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(make_conninfo(conninfo, user="postgres"))
        closed = [data_dir, data_dir / "postgres", data_dir / EMBEDDED_RECORD]
        assert [stat.S_IMODE(path.stat().st_mode) & 0o077 for path in closed] == [0, 0, 0]
        assert (data_dir / "postgres").stat().st_uid != 0


def test_its_log_holds_no_values_of_statements(data_dir: Path) -> None:
    with (
        running_postgres(data_dir, settings=QUICK) as conninfo,
        psycopg.connect(conninfo, autocommit=True) as connection,
    ):
        connection.execute("CREATE TABLE person (email text PRIMARY KEY)")
        for _ in range(2):
            with suppress(psycopg.errors.UniqueViolation):
                connection.execute("INSERT INTO person VALUES ('ada@example.com')")
    log = (data_dir / "postgres.log").read_text()
    assert 'duplicate key value violates unique constraint "person_pkey"' in log
    assert "ada@example.com" not in log


def test_its_log_stays_within_bounds_while_it_runs(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_postgres, "LOG_MAX_BYTES", 2_000)
    with (
        running_postgres(data_dir, settings=QUICK) as conninfo,
        psycopg.connect(conninfo, autocommit=True) as connection,
    ):
        server = EmbeddedPostgres(data_dir)
        for _ in range(100):
            with suppress(psycopg.errors.UndefinedTable):
                connection.execute("SELECT FROM nowhere")
            server.rotate_log()
    sizes = [path.stat().st_size for path in data_dir.glob("postgres.log*")]
    assert len(sizes) == 2
    assert max(sizes) < 3_000
    assert b"\0" not in (data_dir / "postgres.log").read_bytes()


def test_a_server_that_was_killed_recovers_what_was_committed(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, settings=QUICK)
    server.prepare()
    server.launch()
    server.wait_until_ready()
    record = json.loads((data_dir / EMBEDDED_RECORD).read_text())
    assert server.process is not None
    with psycopg.connect(embedded_conninfo(data_dir), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    # The number in the file now belongs to another process of the same user: this test's.
    pid_file = data_dir / "postgres" / "postmaster.pid"
    _, *others = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *others]) + "\n")

    with (
        running_postgres(data_dir, settings=QUICK) as conninfo,
        psycopg.connect(conninfo) as connection,
    ):
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    assert json.loads((data_dir / EMBEDDED_RECORD).read_text()) == record


def test_a_start_waits_for_the_server_of_a_killed_supervisor(data_dir: Path) -> None:
    first = EmbeddedPostgres(data_dir, settings=QUICK)
    first.prepare()
    first.launch()
    first.wait_until_ready()
    with (
        running_postgres(data_dir, settings=QUICK) as conninfo,
        psycopg.connect(conninfo) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert first.process is not None
    assert first.process.wait() == 0


def test_a_lost_record_is_made_anew(data_dir: Path) -> None:
    with running_postgres(data_dir, settings=QUICK):
        pass
    (data_dir / EMBEDDED_RECORD).unlink()
    with (
        running_postgres(data_dir, settings=QUICK) as conninfo,
        psycopg.connect(conninfo) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_first_start_that_was_killed_leaves_no_half_made_cluster(data_dir: Path) -> None:
    (data_dir / "postgres.new").mkdir(parents=True)
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    with (
        running_postgres(data_dir, settings=QUICK) as conninfo,
        psycopg.connect(conninfo) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not (data_dir / "postgres.new").exists()


def test_a_long_path_gets_a_short_way_in_that_is_kept(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 30) / "data"
    with running_postgres(data_dir, settings=QUICK) as conninfo:
        psycopg.connect(conninfo).close()
        link = Path(str(conninfo_to_dict(conninfo)["host"]))
        assert link.readlink() == data_dir / "postgres"
    with running_postgres(data_dir, settings=QUICK) as conninfo:
        assert conninfo_to_dict(conninfo)["host"] == str(link)
    link.unlink()
    link.parent.rmdir()


def test_a_path_that_only_root_may_enter_is_no_obstacle(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with running_postgres(closed / "data", settings=QUICK) as conninfo:
        psycopg.connect(conninfo).close()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_data_of_another_version_are_refused_with_a_sentence(data_dir: Path) -> None:
    with running_postgres(data_dir, settings=QUICK):
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(PostgresFailed, match=r"written by PostgreSQL 16, and this release brings"):
        EmbeddedPostgres(data_dir).prepare()


def test_a_server_that_cannot_start_says_why(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, settings={"shared_buffers": "nonsense"})
    with pytest.raises(PostgresFailed, match="shared_buffers"):
        server.prepare()


def test_settings_fit_the_machine() -> None:
    assert server_settings(64 * GIBIBYTE)["shared_buffers"] == "4096MB"
    assert server_settings(8 * GIBIBYTE)["shared_buffers"] == "2048MB"
    assert server_settings(2 * GIBIBYTE)["shared_buffers"] == "512MB"
    assert server_settings(GIBIBYTE // 2)["shared_buffers"] == "128MB"
    assert server_settings(2 * GIBIBYTE)["work_mem"] == "16MB"


def test_nothing_is_left_running(data_dir: Path) -> None:
    with running_postgres(data_dir, settings=QUICK):
        status = (data_dir / "postgres").stat()
        title = f"spendgate-{status.st_dev:x}-{status.st_ino:x}-data"
        assert len(processes.with_title(title)) > 3
    assert processes.with_title(title) == []
