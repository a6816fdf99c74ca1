"""`make run`: the database, the web process, the workers and the scheduler, under one roof.

One thread, one loop. Whatever ends the supervisor, even SIGKILL, ends its children: the kernel
tells them. What a killed supervisor left all the same is ended by the next start, which knows it
by a variable in its environment.
"""

import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import psycopg

from config import processes
from config.child import Child, KeepsFailing, describe_end
from config.data_folder import SERVICE, DataFolderUnusable, own_data_folder
from config.database_role import UnsafeRole, prepare_role
from config.embedded_postgres import EmbeddedPostgres, PostgresFailed
from config.environment import Environment, WrongSetting, read_environment
from config.fake_stripe import fake_stripe_child
from config.listening import PortInUse, require_free_port
from config.make_parent import MakeParent
from config.output import LineSplitter, say
from config.parts import PARTS, arguments_of
from config.shared_metrics import shared_by_service

TICK_SECONDS = 0.1
LEFTOVER_SECONDS = 10.0
POSTGRES_TRIES = 5
# A second Ctrl-C counts from here on; before, it is the same one that reached us twice.
SAME_SIGNAL_SECONDS = 0.3


class Stopped(Exception):
    """Someone asked the service to stop."""


class PreparationFailed(Exception):
    """The database could not be brought up to date."""


CANNOT_RUN = (
    DataFolderUnusable,
    KeepsFailing,
    PortInUse,
    PostgresFailed,
    PreparationFailed,
    UnsafeRole,
    psycopg.OperationalError,
)


def main(arguments: Sequence[str]) -> int:
    parent = MakeParent() if "--under-make" in arguments else None
    try:
        environment = read_environment()
        with own_data_folder(environment.data_dir, purpose=SERVICE):
            return Supervisor(
                environment,
                children=service_children(environment),
                preparation=Child("prepare", manage("prepare_database")),
                parent=parent,
            ).run()
    except WrongSetting as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except DataFolderUnusable as error:
        sys.stderr.write(f"{error}\n")
        return 1


class Supervisor:
    """Runs the service of one DATA_DIR, whose lock the caller holds, until it is asked to stop."""

    def __init__(
        self,
        environment: Environment,
        *,
        children: Sequence[Child],
        preparation: Child,
        parent: MakeParent | None = None,
    ) -> None:
        self.environment = environment
        self.children = list(children)
        self.preparation = preparation
        self.parent = parent
        self.postgres: EmbeddedPostgres | None = None
        self._marker = f"SPENDGATE_RUN={folder_identity(environment.data_dir)}"
        self._environ = child_environment(environment, self._marker)
        self._selector = selectors.DefaultSelector()
        self._stop_at = 0.0  # when the first request to stop came; 0 means none did
        self._is_forced = False
        self._postgres_failures = 0
        self._helper: Child | None = None  # a child that ends by itself: preparation, then the demo

    def run(self) -> int:
        """Start everything, watch it, stop everything. The answer is the exit status."""
        status = 1
        with ExitStack() as stack:
            stack.callback(self._selector.close)
            self._listen_to_signals(stack)
            try:
                self._start_all()
                self._watch()
            except Stopped:
                status = 0
            except WrongSetting as error:
                say(str(error))
                status = 2
            except CANNOT_RUN as error:
                say(str(error).strip())
            finally:
                self._stop()
        return status

    def _start_all(self) -> None:
        leftovers = processes.with_environment(self._marker)
        processes.end_all(leftovers, patience_seconds=LEFTOVER_SECONDS)
        self._environ |= shared_by_service(self.environment)
        require_free_port(self.environment)
        if self.environment.stripe_fake:
            fake, where = fake_stripe_child(self.environment)
            self.children.append(fake)
            self._environ |= where
        self._start_database()
        self._prepare_database()
        for child in self.children:
            self._start(child)

    def _start_database(self) -> None:
        if self.environment.database_url is not None:
            prepare_role(self.environment.database_url)
            return
        say(f"Starting PostgreSQL in {self.environment.data_dir} ...")
        self.postgres = EmbeddedPostgres(self.environment.data_dir)
        self.postgres.prepare()
        self.postgres.launch()
        self._pump_until(self._is_database_ready)

    def _is_database_ready(self) -> bool:
        assert self.postgres is not None, "only an embedded server is waited for"
        self.postgres.require_alive()
        return self.postgres.is_ready()

    def _prepare_database(self) -> None:
        """Run migrations and import prices, in a process whose memory goes with it."""
        say("Bringing the database up to date ...")
        self._helper = self.preparation
        self._start(self._helper)
        process = self._helper.process
        assert process is not None, "it was started"
        self._pump_until(lambda: process.poll() is not None)
        self._pump(0.1)  # its last words
        self._helper = None
        if process.returncode != 0:
            raise PreparationFailed(
                f"Bringing the database up to date {describe_end(process.returncode)}: stopping. "
                f"The reason is above."
            )

    def _watch(self) -> NoReturn:
        has_greeted = False
        while True:
            self._pump(TICK_SECONDS)
            self._watch_postgres()
            if self._helper is not None and not self._helper.is_running():
                self._helper = None  # the demo is loaded, or has said why not
            for child in self.children:
                child.notice()
                if child.is_due():
                    self._start(child)
            if not has_greeted and self.children[0].is_up:
                self._greet()
                has_greeted = True

    def _greet(self) -> None:
        say(f"Ready: {self.environment.url} (Ctrl-C stops everything).")
        if self.environment.demo:
            # It draws a progress bar, so it writes to the terminal itself.
            self._helper = Child("demo", manage("load_demo"), has_own_output=True)
            self._helper.start(self._environ)

    def _watch_postgres(self) -> None:
        """Start the embedded server again if it has ended; the others wait for it meanwhile."""
        if self.postgres is None or self.postgres.process is None:
            return
        if self.postgres.process.poll() is None:
            self.postgres.rotate_log()
            if self._postgres_failures and self.postgres.is_ready():
                self._postgres_failures = 0
                say("PostgreSQL is back.")
            return
        self._postgres_failures += 1
        how = describe_end(self.postgres.process.returncode)
        if self._postgres_failures > POSTGRES_TRIES:
            raise PostgresFailed(
                f"PostgreSQL {how} {POSTGRES_TRIES} times in a row: {self.postgres.last_words()} "
                f"The log is {self.postgres.log}."
            )
        say(f"PostgreSQL {how}: starting it again.")
        time.sleep(0.2 * self._postgres_failures)
        self.postgres.prepare()
        self.postgres.launch()

    def _stop(self) -> None:
        """Stop the web process first, so that it answers what it took; PostgreSQL last."""
        self._stop_at = self._stop_at or time.monotonic()
        if any(child.is_running() for child in self.children):
            say("Stopping ...")
        helper = [self._helper] if self._helper is not None else []
        for group in (helper, self.children[:1], self.children[1:]):
            self._stop_children(group)
        if self.postgres is not None:
            if self._is_forced:
                self.postgres.kill()
            self.postgres.stop()
        say("Stopped.")

    def _stop_children(self, children: Sequence[Child]) -> None:
        for child in children:
            child.ask_to_stop()
        end = time.monotonic() + max((child.stop_seconds for child in children), default=0.0)
        while any(child.is_running() for child in children):
            if self._is_forced or time.monotonic() > end:
                break
            with contextlib.suppress(Stopped):
                self._pump(TICK_SECONDS)
        for child in children:
            child.kill()  # also what a child that ended by itself may have left
            if child.process is not None:
                child.process.wait()

    def _start(self, child: Child) -> None:
        descriptor = child.start(self._environ)
        assert descriptor is not None, "its output is read here"
        os.set_blocking(descriptor, False)
        # The process object keeps the pipe open until its end was read.
        self._selector.register(
            descriptor, selectors.EVENT_READ, (child.process, LineSplitter(child.name))
        )

    def _pump_until(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            self._pump(TICK_SECONDS)

    def _pump(self, seconds: float) -> None:
        """Pass on what children print, for a short time; raises Stopped if asked to stop."""
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 4096)  # a signal woke us; its handler has run
            else:
                self._pass_on(key)
        if self.parent is not None and self.parent.wants_to_stop():
            self._stop_at = self._stop_at or time.monotonic()
        if self._stop_at:
            raise Stopped

    def _pass_on(self, key: selectors.SelectorKey) -> None:
        process, splitter = key.data
        try:
            output = os.read(key.fd, 65536)
        except BlockingIOError:
            return
        if output:
            splitter.feed(output)
            return
        splitter.finish()
        self._selector.unregister(key.fd)
        process.stdout.close()

    def _listen_to_signals(self, stack: ExitStack) -> None:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, reading)
        stack.callback(os.close, writing)
        stack.callback(
            signal.set_wakeup_fd, signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        )
        self._selector.register(reading, selectors.EVENT_READ, None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            before = signal.signal(number, self._on_signal)
            stack.callback(signal.signal, number, before)

    def _on_signal(self, number: int, frame: object) -> None:
        if number == signal.SIGCHLD:
            return  # it only wakes the loop
        now = time.monotonic()
        if not self._stop_at:
            self._stop_at = now
        elif number == signal.SIGINT and now - self._stop_at > SAME_SIGNAL_SECONDS:
            self._is_forced = True


def service_children(environment: Environment) -> list[Child]:
    """Return the processes of the service; the first is the one that takes requests."""
    web, *others = (Child(part, arguments_of(part, environment)) for part in PARTS)
    web.judge = answers(environment)
    web.stop_seconds = 30.0  # it answers what it has taken
    return [web, *others]


def manage(command: str) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve().parent.parent / "manage.py"), command]


def answers(environment: Environment) -> Callable[[Child], bool]:
    """Judge the web process: it is up if it says that the service is ready."""

    def judge(child: Child) -> bool:
        with closing(HTTPConnection(urlsplit(environment.url).netloc, timeout=2)) as connection:
            try:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
            except (OSError, HTTPException):
                return False

    return judge


def child_environment(environment: Environment, marker: str) -> dict[str, str]:
    name, _, value = marker.partition("=")
    environ = {**os.environ, name: value, "PYTHONUNBUFFERED": "1"}
    # As one absolute path, whatever folder a child works in.
    environ.pop("DATA_DIR_FILE", None)
    environ["DATA_DIR"] = str(environment.data_dir)
    # The web process tells the metrics of all.
    environ.pop("METRICS_PORT", None)
    environ.pop("METRICS_PORT_FILE", None)
    return environ


def folder_identity(folder: Path) -> str:
    status = folder.stat()
    return f"{status.st_dev:x}-{status.st_ino:x}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
