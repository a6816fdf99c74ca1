"""Connections that break within a turn, or in its commit: what was asked for is done once."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection

from metering.models import Reservation, UsageEvent
from metering.reservations import steps, transaction
from tests.factories import Account, make_budget, windows_of
from tests.metering.api.caller import Answer, Caller, caller


def end_own_connection() -> None:
    """As the server does where it is stopped or loses its patience."""
    own: Any = connection.connection
    with type(own).connect(own.info.dsn, password=own.info.password) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [own.info.backend_pid])


def once(break_it: Callable[[], None]) -> Callable[[], None]:
    left = [break_it]
    return lambda: left.pop()() if left else None


def break_before_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection ends when everything is locked and nothing written."""
    write, break_once = steps.Turn._write, once(end_own_connection)

    def broken(self: steps.Turn, *arguments: Any) -> None:
        break_once()
        write(self, *arguments)

    monkeypatch.setattr(steps.Turn, "_write", broken)


def break_after_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit succeeds, and its answer does not arrive."""

    def lose() -> None:
        connection.close()
        raise OperationalError("server closed the connection unexpectedly")

    run, break_once = transaction._run, once(lose)

    def broken(*arguments: Any, **more: Any) -> Any:
        made = run(*arguments, **more)
        break_once()
        return made

    monkeypatch.setattr(transaction, "_run", broken)


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
        assert [str(one.id) for one in Reservation.objects.all()] == [answer.body["id"]]
    assert [one.reserved_nanos for one in windows_of(account, budget)] == [10**9]


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
        (one.spent_nanos, one.reserved_nanos, one.overrun_nanos)
        for one in windows_of(account, budget)
    ] == [(1_250_000_000, 0, 250_000_000)]
