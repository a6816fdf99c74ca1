"""The parts of the service, and how each is started; `python -m config.parts NAME` becomes one.

The supervisor runs all of them; where something else supervises, each runs by itself.
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

from config.environment import Environment, WrongSetting, read_environment
from config.queues import QUEUES_BY_WORKER
from config.shared_metrics import VARIABLE, shared_by_part


def arguments_of(part: str, environment: Environment) -> list[str]:
    """Return the command line of a part."""
    return [sys.executable, "-m", *PARTS[part](environment)]


def web(environment: Environment) -> list[str]:
    return [
        *("granian", "config.web:application"),
        *("--interface", "rsgi", "--http", "1", "--no-ws", "--loop", "uvloop"),
        *("--host", environment.host, "--port", str(environment.port)),
        *("--workers", str(environment.web_workers)),
        # A connection costs some kilobytes, and one without a request ends after these seconds.
        *("--backlog", "4096", "--backpressure", "16384"),
        *("--http1-header-read-timeout", "15000"),
        *("--workers-kill-timeout", "20", "--log-level", "error"),
    ]


# Slow receivers may keep two processes of `alerts` busy while the third delivers new messages.
PROCESSES_BY_WORKER = {"worker": 2, "alerts": 3}


def worker(environment: Environment, *, name: str) -> list[str]:
    return [
        *("celery", "--quiet", "--app", "config.celery", "worker"),
        # Two workers of one machine are told apart by their names.
        *("--hostname", f"{name}@%h"),
        *("--queues", ",".join(QUEUES_BY_WORKER[name])),
        *("--concurrency", str(PROCESSES_BY_WORKER[name])),
        *("--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]


def beat(environment: Environment) -> list[str]:
    return [
        *("celery", "--quiet", "--app", "config.celery", "beat"),
        *("--loglevel", "WARNING", "--pidfile", ""),
    ]


PARTS: dict[str, Callable[[Environment], list[str]]] = {
    "web": web,
    **{name: partial(worker, name=name) for name in QUEUES_BY_WORKER},
    "beat": beat,
}


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in PARTS:
        sys.stderr.write(f"Name one part of the service: {', '.join(PARTS)}.\n")
        return 2
    try:
        environment = read_environment()
    except WrongSetting as error:
        sys.stderr.write(f"{error}\n")
        return 2
    command = arguments_of(arguments[0], environment)
    if VARIABLE not in os.environ:
        os.environ.update(shared_by_part(arguments[0], environment))
    return os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
