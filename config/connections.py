"""How long a connection may take, and who shares connections: by what its process or thread does.

Threads that answer pages and reports borrow a connection of a pool for as long as their statements
take. Everything else of a web process (busy endpoints, and those who commit for them) keeps one a
thread, so no report ever has a connection that a reservation needs.
"""

import os
import threading
from contextlib import suppress
from typing import Any, Final, NamedTuple

from django.conf import settings
from psycopg import Connection
from psycopg.rows import TupleRow

# The threads that borrow are fewer (WEB_THREADS): none of them ever waits for another's.
POOL_SIZE_MAX: Final = 256
WAIT_SECONDS: Final = 10


class Limits(NamedTuple):
    """PostgreSQL ends what takes longer, in milliseconds; 0 is without a limit."""

    statement_ms: int = 0
    lock_ms: int = 0
    idle_in_transaction_ms: int = 0


# Commands, migrations, and everything else that no one waits for.
UNLIMITED: Final = Limits()
# What callers of the busy endpoints wait for.
BUSY: Final = Limits(statement_ms=2_000, lock_ms=2_000, idle_in_transaction_ms=5_000)
# Pages, reports and configuration.
PAGES: Final = Limits(statement_ms=10_000, lock_ms=5_000, idle_in_transaction_ms=10_000)
# Background work, whose transactions are made to take less than two seconds.
JOBS: Final = Limits(statement_ms=10_000, lock_ms=5_000, idle_in_transaction_ms=10_000)


class _Role(threading.local):
    borrows = False


_role: Final = _Role()


class _Process:
    limits = UNLIMITED


def limit_process(limits: Limits) -> None:
    """Let connections of this process, from now on, have these limits where they are not pooled."""
    _Process.limits = limits


def limit_connection(connection: Connection[TupleRow]) -> None:
    """Set the limits of a new connection."""
    is_pooled = getattr(connection, "_pool", None) is not None
    statement_ms, lock_ms, idle_ms = PAGES if is_pooled else _Process.limits
    connection.execute(
        f"SET statement_timeout = {statement_ms}; SET lock_timeout = {lock_ms};"
        f" SET idle_in_transaction_session_timeout = {idle_ms}"
    )
    _share_priority(connection)


def _share_priority(connection: Connection[TupleRow]) -> None:
    """Let the server's process be as nice as this thread, for which it works. The embedded server
    alone: that of another machine, or container, has other numbers of processes.
    """
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    if niceness > 0 and settings.ENVIRONMENT.database_url is None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, connection.info.backend_pid, niceness)


def borrow_from_pool() -> None:
    """Let this thread borrow its connections from the pool. Call it before its first statement."""
    _role.borrows = True


def borrows_from_pool() -> bool:
    """Whether this thread does."""
    return _role.borrows


def parameters_of_thread(parameters: dict[str, Any]) -> dict[str, object]:
    """Return Django's parameters of the database, as the calling thread uses them."""
    if not _role.borrows:
        return parameters
    pool = {"min_size": 1, "max_size": POOL_SIZE_MAX, "timeout": WAIT_SECONDS}
    # What is borrowed is given back, never kept.
    return {
        **parameters,
        "CONN_MAX_AGE": 0,
        "OPTIONS": {**parameters["OPTIONS"], "pool": pool},
    }
