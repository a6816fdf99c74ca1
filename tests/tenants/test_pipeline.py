"""Statements sent together: one round trip, and errors where they are read."""

from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from psycopg.generators import send
from psycopg.pq import TransactionStatus

from tenants.pipeline import pipelined

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One item for each time that a pipeline goes to the server."""
    made: list[None] = []

    def counted(raw: object) -> object:
        made.append(None)
        return send(raw)

    monkeypatch.setattr("tenants.pipeline.send", counted)
    return made


def test_one_round_trip_answers_everything_that_was_sent(round_trips: list[None]) -> None:
    with transaction.atomic(), pipelined() as together:
        cursors = [together.send("SELECT %s::int", [number]) for number in range(20)]
        assert not round_trips
        assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(20)]
    assert len(round_trips) == 1


def test_the_server_knows_that_the_transaction_waits_for_this_process() -> None:
    """Else its limit on idle transactions would not count: locks could be held for ever."""
    with transaction.atomic(), pipelined() as together:
        cursor = together.send("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone() or (0,)
        own: Any = connection.connection
        with type(own).connect(own.info.dsn, password=own.info.password) as other:
            result = other.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [pid])
            assert result.fetchone() == ("idle in transaction",)


def test_a_transaction_begins_once_and_ends_as_ever() -> None:
    """A second BEGIN is a warning in PostgreSQL's log, each time."""
    connection.ensure_connection()
    raw: Any = connection.connection
    told: list[str] = []
    raw.add_notice_handler(lambda diagnostic: told.append(diagnostic.message_primary))
    for is_undone in (False, True):
        with transaction.atomic():
            with pipelined() as together:
                for _ in range(3):
                    together.send("SELECT 1")
                together.send("CREATE TEMPORARY TABLE made (one int) ON COMMIT DROP")
            with connection.cursor() as cursor:
                cursor.execute("SELECT 'made'::regclass")
            transaction.set_rollback(is_undone)
        assert raw.info.transaction_status == TransactionStatus.IDLE
        assert raw.autocommit
    assert told == []


def divide_by_zero(*, is_read: bool) -> None:
    with transaction.atomic(), pipelined() as together:
        together.send("CREATE TEMPORARY TABLE undone (one int)")
        together.send("SELECT 1 / %s::int", [0])
        if is_read:
            together.send("SELECT 1").fetchone()


@pytest.mark.parametrize("is_read", [True, False])
def test_an_error_is_raised_and_undoes_the_transaction(is_read: bool) -> None:
    with pytest.raises(DatabaseError, match="division by zero"):
        divide_by_zero(is_read=is_read)
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('undone')")
        assert cursor.fetchone() == (None,)


def test_a_large_pipeline_and_its_large_answers_do_not_block_each_other() -> None:
    text = "x" * 1_000_000
    with transaction.atomic(), pipelined() as together:
        cursors = [together.send("SELECT %s::text", [text]) for _ in range(20)]
        assert all(cursor.fetchone() == (text,) for cursor in cursors)
