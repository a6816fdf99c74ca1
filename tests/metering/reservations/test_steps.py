"""Turns that take everything at once, and those that find that they may not."""

from typing import Any

import pytest
from psycopg.generators import send

from metering.limits.halt_watch import forget_halts
from metering.models import Reservation, UsageEvent
from metering.reservations import steps, transaction
from metering.reservations.steps import Way
from tests.factories import Account, make_budget, windows_of
from tests.metering.api.caller import Answer, Caller, caller


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[Way]:
    """The ways that turns tried, in order."""
    tried: list[Way] = []

    class Noted(steps.Turn):
        def __init__(self, *arguments: Any, way: Way) -> None:
            tried.append(way)
            super().__init__(*arguments, way=way)

    monkeypatch.setattr(transaction, "Turn", Noted)
    return tried


def reserve(api: Caller, **more: Any) -> Answer:
    return api.post("/v1/reservations", {"amount_usd": "1", **more})


def settle(api: Caller, reservation: Answer, **more: Any) -> Answer:
    path = f"/v1/reservations/{reservation.body['id']}/settle"
    return api.post(path, {"id": "call", "cost_usd": "1.25", **more})


def test_a_plain_turn_takes_two_round_trips(
    account: Account, ways: list[Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_budget(account, cost_usd=10)
    api = caller(account)
    settle(api, reserve(api), id="first")
    ways.clear()
    made: list[None] = []

    def counted(raw: Any) -> Any:
        made.append(None)
        return send(raw)

    monkeypatch.setattr("tenants.pipeline.send", counted)

    reservation = reserve(api)
    assert (reservation.status, len(made)) == (201, 2)
    assert settle(api, reservation).status == 200
    assert len(made) == 4
    assert ways == [Way.AT_ONCE] * 2


def test_a_halt_that_this_process_has_not_heard_of_stops_a_turn_at_once(
    account: Account, ways: list[Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_budget(account, cost_usd=10)
    api = caller(account)
    api.post("/v1/halts", {"match": {"agent": "a"}, "reason": "r"})
    forget_halts()
    # Its watcher may hear of it meanwhile.
    monkeypatch.setattr(steps, "remembered_halts", lambda _: None)

    refused = reserve(api, agent="a")

    assert (refused.status, ways) == (423, [Way.AT_ONCE, Way.STEPWISE])
    with account.scope():
        assert not Reservation.objects.exists()


def test_what_others_hold_too_long_is_given_back_before_anybody_is_refused(
    account: Account, ways: list[Way]
) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    reserve(api)
    with account.scope():
        Reservation.objects.update(expires_at="2020-01-01T00:00:00Z")
    ways.clear()

    assert reserve(api).status == 201
    assert ways == [Way.AT_ONCE, Way.STEPWISE]
    assert [one.reserved_nanos for one in windows_of(account, budget)] == [10**9]


@pytest.mark.parametrize("is_other", [False, True])
def test_a_settle_that_was_done_stores_nothing_more(
    account: Account, ways: list[Way], is_other: bool
) -> None:
    budget = make_budget(account, cost_usd=10)
    api = caller(account)
    reservation = reserve(api)
    first = settle(api, reservation)
    ways.clear()

    again = settle(api, reservation, **({"id": "other"} if is_other else {}))

    assert again.body == first.body if not is_other else again.status == 409
    assert ways == [Way.AT_ONCE, Way.STEPWISE]
    with account.scope():
        assert UsageEvent.objects.count() == 1
    assert [(one.spent_nanos, one.reserved_nanos) for one in windows_of(account, budget)] == [
        (1_250_000_000, 0)
    ]


def test_a_call_that_was_reported_before_is_booked_once(account: Account, ways: list[Way]) -> None:
    budget = make_budget(account, cost_usd=10)
    api = caller(account)
    reservation = reserve(api)
    api.post("/v1/events", [{"id": "sdk", "cost_usd": "1.25", "response_id": "r-1"}])
    ways.clear()

    assert settle(api, reservation, response_id="r-1").status == 200
    assert ways == [Way.AT_ONCE, Way.CAREFUL]
    assert [(one.spent_nanos, one.reserved_nanos) for one in windows_of(account, budget)] == [
        (1_250_000_000, 0)
    ]
