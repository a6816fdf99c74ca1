"""Batches that combine all their locks, and those that find that they may not."""

from typing import Any

import pytest
from psycopg.generators import send

from metering.limits.halt_watch import forget_halts
from metering.models import IngestBatch, Reservation, UsageEvent
from metering.reservations import batch, transaction
from metering.reservations.batch import Strategy
from metering.reservations.committer import PROCESS_ENFORCER
from tests.factories import Account, make_budget, windows_of
from tests.metering.api.caller import Answer, Caller, caller


@pytest.fixture
def strategies(monkeypatch: pytest.MonkeyPatch) -> list[Strategy]:
    """The strategies that batches tried, in order."""
    # A connection that another test lost would make each thread try once more.
    PROCESS_ENFORCER.stop()
    tried: list[Strategy] = []

    class Noted(batch.Batch):
        def __init__(self, *arguments: Any, strategy: Strategy) -> None:
            tried.append(strategy)
            super().__init__(*arguments, strategy=strategy)

    monkeypatch.setattr(transaction, "Batch", Noted)
    return tried


def reserve(api: Caller, **more: object) -> Answer:
    return api.post("/v1/reservations", {"amount_usd": "1", **more})


def settle(api: Caller, reservation: Answer, **more: object) -> Answer:
    path = f"/v1/reservations/{reservation.body['id']}/settle"
    return api.post(path, {"id": "call", "cost_usd": "1.25", **more})


def test_a_plain_batch_takes_two_round_trips(
    account: Account, strategies: list[Strategy], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_budget(account, cost_usd=10)
    api = caller(account)
    settle(api, reserve(api), id="first")
    strategies.clear()
    made: list[None] = []

    def counted(raw: object) -> object:
        made.append(None)
        return send(raw)

    monkeypatch.setattr("tenants.pipeline.send", counted)

    reservation = reserve(api)
    assert (reservation.status, len(made)) == (201, 2)
    assert settle(api, reservation).status == 200
    assert len(made) == 4
    assert strategies == [Strategy.COMBINED] * 2


def test_a_halt_that_this_process_has_not_heard_of_stops_a_batch_that_combines(
    account: Account, strategies: list[Strategy], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_budget(account, cost_usd=10)
    api = caller(account)
    api.post("/v1/halts", {"match": {"agent": "a"}, "reason": "r"})
    forget_halts()
    # Its watcher may hear of it meanwhile.
    monkeypatch.setattr(batch, "remembered_halts", lambda _: None)

    refused = reserve(api, agent="a")

    assert (refused.status, strategies) == (423, [Strategy.COMBINED, Strategy.STEPWISE])
    with account.scope():
        assert not Reservation.objects.exists()


def test_what_others_hold_too_long_is_given_back_before_anybody_is_refused(
    account: Account, strategies: list[Strategy]
) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    reserve(api)
    with account.scope():
        Reservation.objects.update(expires_at="2020-01-01T00:00:00Z")
    strategies.clear()

    assert reserve(api).status == 201
    assert strategies == [Strategy.COMBINED, Strategy.STEPWISE]
    assert [window.reserved_nanos for window in windows_of(account, budget)] == [10**9]


@pytest.mark.parametrize("is_other", [False, True])
def test_a_settle_that_was_done_stores_nothing_more(
    account: Account, strategies: list[Strategy], is_other: bool
) -> None:
    budget = make_budget(account, cost_usd=10)
    api = caller(account)
    reservation = reserve(api)
    first = settle(api, reservation)
    strategies.clear()

    again = settle(api, reservation, **({"id": "other"} if is_other else {}))

    assert again.body == first.body if not is_other else again.status == 409
    assert strategies == [Strategy.COMBINED, Strategy.STEPWISE]
    with account.scope():
        assert UsageEvent.objects.count() == 1
    assert [
        (window.spent_nanos, window.reserved_nanos) for window in windows_of(account, budget)
    ] == [(1_250_000_000, 0)]


def test_a_call_that_was_reported_before_is_booked_once(
    account: Account, strategies: list[Strategy]
) -> None:
    budget = make_budget(account, cost_usd=10)
    api = caller(account)
    reservation = reserve(api)
    api.post("/v1/events", [{"id": "sdk", "cost_usd": "1.25", "response_id": "r-1"}])
    strategies.clear()

    assert settle(api, reservation, response_id="r-1").status == 200
    assert strategies == [Strategy.COMBINED, Strategy.CAREFUL]
    assert [
        (window.spent_nanos, window.reserved_nanos) for window in windows_of(account, budget)
    ] == [(1_250_000_000, 0)]


def test_a_settle_without_a_session_has_none_to_check_for_loops(account: Account) -> None:
    api = caller(account)
    for more in ({"id": "plain"}, {"id": "of a session", "session": "s"}):
        assert settle(api, reserve(api), **more).status == 200
    with account.scope():
        checked = IngestBatch.objects.order_by("id").values_list("sessions_checked_at", flat=True)
        assert [at is None for at in checked] == [False, True]
