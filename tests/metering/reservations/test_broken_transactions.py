"""Connections that break within a batch, or in its commit: what was asked for is done once."""

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from metering.ledger.posting import Planned, plan_move
from metering.models import Reservation, UsageEvent
from metering.reservations import batch
from metering.reservations.batch import Batch
from tests.factories import Account, make_budget, windows_of
from tests.metering.api.caller import Answer, Caller, caller


def raw_connection() -> psycopg.Connection[TupleRow]:
    connection.ensure_connection()
    raw = connection.connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def end_own_connection() -> None:
    """End it as the server does where it is stopped or loses its patience, and wait until it is:
    on a busy machine it would still commit what comes next.
    """
    info = raw_connection().info
    with psycopg.connect(info.dsn, password=info.password) as other:
        row = other.execute("SELECT pg_terminate_backend(%s, 10000)", [info.backend_pid]).fetchone()
    assert row == (True,)


def once(break_it: Callable[[], None]) -> Callable[[], None]:
    left = [break_it]
    return lambda: left.pop()() if left else None


def break_before_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection ends when everything is locked and nothing written."""
    break_once = once(end_own_connection)

    def broken(**arguments: Any) -> Planned | None:
        break_once()
        return plan_move(**arguments)

    monkeypatch.setattr(batch, "plan_move", broken)


def break_after_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit succeeds, and its answer does not arrive."""

    def lose() -> None:
        status = raw_connection().info.transaction_status
        assert status == TransactionStatus.IDLE, "the batch has committed"
        connection.close()
        raise OperationalError("server closed the connection unexpectedly")

    run, break_once = Batch.run, once(lose)

    def broken(self: Batch) -> None:
        run(self)
        break_once()

    monkeypatch.setattr(Batch, "run", broken)


def end_idle_connections() -> None:
    """PostgreSQL ends the connections that threads keep, and none of them has noticed yet."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend'"
            " AND pid <> pg_backend_pid()"
        )
        pids = [pid for pid, _ in cursor.fetchall()]
        give_up_at = time.monotonic() + 60
        while cursor.execute("SELECT FROM pg_stat_activity WHERE pid = ANY(%s)", [pids]).fetchall():
            assert time.monotonic() < give_up_at, "a connection did not end"
            time.sleep(0.01)


def reserve(api: Caller) -> Answer:
    return api.post("/v1/reservations", {"amount_usd": "1"})


def settle(api: Caller, reservation: Answer) -> Answer:
    path = f"/v1/reservations/{reservation.body['id']}/settle"
    return api.post(path, {"id": "call", "cost_usd": "1.25"})


BREAKS = [break_before_writing, break_after_commit]


@pytest.mark.parametrize("break_connection", BREAKS)
def test_a_call_whose_connection_breaks_is_held_once(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    break_connection: Callable[[pytest.MonkeyPatch], None],
) -> None:
    budget = make_budget(account, cost_usd=10)
    break_connection(monkeypatch)

    answer = reserve(caller(account))

    assert (answer.status, answer.body["reserved_usd"]) == (201, "1")
    with account.scope():
        assert [str(each.id) for each in Reservation.objects.all()] == [answer.body["id"]]
    assert [each.reserved_nanos for each in windows_of(account, budget)] == [10**9]


@pytest.mark.parametrize("break_connection", BREAKS)
def test_a_call_whose_kept_connection_was_dead_before_the_next_breaks_is_held_once(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    break_connection: Callable[[pytest.MonkeyPatch], None],
) -> None:
    budget = make_budget(account, cost_usd=10)
    api = caller(account)
    reserve(api)
    end_idle_connections()
    break_connection(monkeypatch)

    answer = reserve(api)

    assert (answer.status, answer.body["reserved_usd"]) == (201, "1")
    assert [window.reserved_nanos for window in windows_of(account, budget)] == [2 * 10**9]


@pytest.mark.parametrize("break_connection", BREAKS)
def test_a_settle_whose_connection_breaks_is_booked_once(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    break_connection: Callable[[pytest.MonkeyPatch], None],
) -> None:
    budget = make_budget(account, cost_usd=10)
    api = caller(account)
    reservation = reserve(api)
    break_connection(monkeypatch)

    answer = settle(api, reservation)

    assert (answer.status, answer.body["cost_usd"]) == (200, "1.25")
    assert (answer.body["overrun_usd"], answer.body["late"]) == ("0.25", False)
    assert settle(api, reservation).body == answer.body
    with account.scope():
        assert UsageEvent.objects.count() == 1
    assert [
        (window.spent_nanos, window.reserved_nanos, window.overrun_nanos)
        for window in windows_of(account, budget)
    ] == [(1_250_000_000, 0, 250_000_000)]
