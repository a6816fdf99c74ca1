"""Holds whose time is over while their call may have run: shown, summed, and ended by a settle."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from metering.jobs.tasks import expire_reservations
from metering.models import Reservation
from metering.reporting import unknown_holds
from metering.reporting.unknown_holds import (
    UnknownHold,
    UnknownQuestion,
    UnknownSum,
    list_unknown,
    sum_unknown,
)
from tests.factories import NANOS, Account, make_budget, make_event, windows_of
from tests.metering.api.caller import Answer, Caller, caller
from tests.metering.reservations.test_reservations import ask, balances, expire, settle


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def outcome(api: Caller, asked: Answer) -> tuple[str, Any]:
    result = api.get(f"/v1/reservations/{asked.body['id']}").body
    return result["status"], result["outcome"]


def unknown(api: Caller, **dimensions: str) -> list[str | None]:
    """What balances say of calls of an unknown outcome, by budget."""
    result = api.get("/v1/balances", **dimensions).body["budgets"]
    return [each.get("unknown_usd") for each in result]


def last_day(account: Account) -> UnknownQuestion:
    now = timezone.now()
    return UnknownQuestion(
        tenant_id=account.tenant.id,
        starts_at=now - timedelta(days=1),
        ends_at=now + timedelta(days=1),
        now=now,
    )


def listed(account: Account, limit: int = 9, **fields: Any) -> list[UnknownHold]:
    with account.scope():
        return list_unknown(last_day(account), limit=limit, **fields)


def total(account: Account) -> UnknownSum:
    with account.scope():
        return sum_unknown(last_day(account))


@pytest.mark.parametrize("is_swept", [False, True])
def test_an_expired_hold_is_unknown_until_its_call_is_told(
    account: Account, api: Caller, is_swept: bool
) -> None:
    tenant = make_budget(account)
    make_budget(account, per=["agent"])
    path = f"/v1/budgets/{tenant.id}/windows"
    killed, other = ask(api, "1.5", agent="a"), ask(api, "0.25", agent="b")
    assert outcome(api, killed) == ("open", None)
    assert unknown(api, agent="a") == [None, None]
    for each in (killed, other):
        expire(account, each)
    if is_swept:
        expire_reservations()
    assert outcome(api, killed) == ("expired", "unknown")
    assert unknown(api, agent="a") == ["1.75", "1.5"]
    assert unknown(api, agent="b") == ["1.75", "0.25"]
    assert unknown(api, agent="c") == ["1.75", None]
    assert [row["unknown_usd"] for row in api.get(path).body["data"]] == ["1.75"]
    rows = listed(account)
    assert [(row.dimensions["agent"], row.reserved_nanos) for row in rows] == [
        ("b", NANOS // 4),
        ("a", NANOS * 3 // 2),
    ]
    assert total(account) == UnknownSum(2, NANOS * 7 // 4)
    assert settle(api, killed, "0.75").body["late"] is True
    assert outcome(api, killed) == ("settled", "known")
    assert unknown(api, agent="a") == ["0.25", None]
    assert total(account) == UnknownSum(1, NANOS // 4)
    assert balances(account, tenant) == [(750, 0, 750)]


def test_an_event_that_names_its_reservation_ends_it_too(account: Account, api: Caller) -> None:
    make_budget(account)
    killed = ask(api, "1")
    expire(account, killed)
    expire_reservations()
    assert unknown(api) == ["1"]
    event = make_event(reservation=killed.body["id"], cost_usd="0.5")
    assert api.post("/v1/events", event).body["accepted"] == 1
    assert outcome(api, killed) == ("settled", "known")
    assert unknown(api) == [None]


def test_what_was_released_or_settled_in_time_is_not_unknown(account: Account, api: Caller) -> None:
    make_budget(account)
    released, settled = ask(api, "1"), ask(api, "1")
    assert api.post(f"/v1/reservations/{released.body['id']}/release").status == 200
    settle(api, settled, "0.5")
    assert outcome(api, released) == ("released", "not_run")
    assert outcome(api, settled) == ("settled", "known")
    assert unknown(api) == [None]
    assert total(account) == UnknownSum(0, 0)


def test_a_window_counts_its_own_time_alone(account: Account, api: Caller) -> None:
    make_budget(account, period="day")
    make_budget(account, period="day", is_rolling=True)
    make_budget(account, period="lifetime")
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0) + timedelta(days=1)
    for hours, asked_usd, expected in (
        (0, "1", [None, None, None]),
        (1, "0", ["1", "1", "1"]),
        (23, "0", [None, "1", "1"]),
        (24, "2", [None, "1", "1"]),
        (25, "0", ["2", "2", "3"]),
        (73, "0", [None, None, "3"]),
    ):
        with time_machine.travel(noon + timedelta(hours=hours), tick=False):
            assert unknown(api) == expected, hours
            ask(api, asked_usd)


def test_pages_of_holds_follow_each_other(account: Account, api: Caller) -> None:
    for number in range(5):
        expire(account, ask(api, f"0.{number + 1}"))
    expire_reservations()
    at = timezone.now() - timedelta(minutes=1)
    with account.scope():
        Reservation.objects.update(expires_at=at)
    first = listed(account, 3)
    rest = listed(account, 3, before=(at, first[-1].id))
    assert len(first) == 3
    assert {row.reserved_nanos for row in first + rest} == {NANOS // 10 * n for n in range(1, 6)}
    assert listed(account, 3, before=(at, rest[-1].id)) == []


def test_a_count_is_capped_and_says_so(
    account: Account, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown_holds, "HOLDS_MAX", 2)
    for _ in range(2):
        expire(account, ask(api, "0.5"))
    assert total(account).is_capped is True
    expire(account, ask(api, "0.5"))
    assert total(account).holds == 2


def test_a_stranger_sees_nothing(account: Account, stranger: Account, api: Caller) -> None:
    budget = make_budget(account)
    killed = ask(api, "1")
    expire(account, killed)
    expire_reservations()
    assert len(windows_of(account, budget)) == 1
    assert total(stranger) == UnknownSum(0, 0)
    assert listed(stranger) == []
    refused = caller(stranger).get(f"/v1/reservations/{killed.body['id']}")
    assert (refused.status, refused.code) == (404, "not_found")
