"""Every connection has limits of time; those of pages and of busy endpoints differ."""

import os
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from django.conf import settings
from django.db import OperationalError, connection, connections

from common.api.problems import problem_of
from config import connections as roles
from config.connections import BUSY, PAGES, borrow_from_pool, limit_process
from config.postgresql.base import DatabaseWrapper
from config.processes import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def in_a_thread(work: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@pytest.fixture(autouse=True)
def _busy_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles._Process, "limits", BUSY)


def own_connection() -> DatabaseWrapper:
    """This thread's connection, as what it is."""
    own = connections["default"]
    assert isinstance(own, DatabaseWrapper)
    return own


def limits() -> list[str]:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    with connection.cursor() as cursor:
        result = []
        for name in names:
            cursor.execute(f"SHOW {name}")
            result.append(cursor.fetchone()[0])
    return result


def test_a_thread_of_its_own_has_the_limits_of_its_process() -> None:
    def look() -> None:
        assert limits() == ["2s", "2s", "5s"]
        assert own_connection().pool is None

    in_a_thread(look)


def test_a_thread_that_borrows_has_those_of_pages_and_gives_the_connection_back() -> None:
    def look() -> None:
        borrow_from_pool()
        assert limits() == ["10s", "5s", "10s"]
        pool = own_connection().pool

        # The pool makes connections in a thread of its own.
        def lent() -> int:
            stats = pool.get_stats()
            return int(stats["pool_size"] - stats["pool_available"])

        assert wait_until(lambda: lent() == 1, 10)
        connection.close()
        assert wait_until(lambda: lent() == 0, 10)
        own_connection().close_pool()

    in_a_thread(look)


def test_a_statement_that_takes_too_long_is_ended_and_says_so() -> None:
    limit_process(BUSY._replace(statement_ms=50))

    def wait() -> None:
        with pytest.raises(OperationalError) as caught, connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(10)")
        problem = problem_of(caught.value)
        assert (problem["status"], problem["code"]) == (503, "took_too_long")
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    in_a_thread(wait)
    assert PAGES.statement_ms > BUSY.statement_ms


@pytest.mark.parametrize("is_embedded", [True, False])
def test_the_embedded_server_works_at_the_priority_of_its_client(
    monkeypatch: pytest.MonkeyPatch, is_embedded: bool
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "getpriority", lambda which, who: 5)
    monkeypatch.setattr(os, "setpriority", lambda which, *what: given.append(what))
    url = None if is_embedded else "postgresql://elsewhere"
    monkeypatch.setattr(settings, "ENVIRONMENT", SimpleNamespace(database_url=url))
    pids: list[int] = []

    def look() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pids.append(cursor.fetchone()[0])

    in_a_thread(look)
    assert given == ([(pids[0], 5)] if is_embedded else [])
