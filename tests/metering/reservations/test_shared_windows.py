"""Reservations of the same windows share what was found out of them, as long as it holds."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from django.utils import timezone

from metering.budgets.index import BudgetIndex
from metering.budgets.rules import BudgetRule
from metering.configuration.budgets import archive_budget
from metering.core.dimensions import MATCHABLE
from metering.ledger.holds import find_held
from metering.models import Budget
from metering.reservations.commands import Reserve
from metering.reservations.request import ReservationRequest, decode_reservation
from metering.reservations.transaction import run_batch
from tests.factories import Account, make_budget, windows_of
from tests.metering.api.caller import caller

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
NO_VALUES = ("",) * len(MATCHABLE)


def reserve_together(account: Account, *bodies: bytes) -> list[Reserve]:
    commands = [
        Reserve(
            account.tenant.id,
            ReservationRequest(decode_reservation(body), key_prefix="", at=timezone.now()),
            ttl_seconds=60,
        )
        for body in bodies
    ]
    run_batch(account.tenant.id, commands)
    return commands


@pytest.mark.django_db(transaction=True)
def test_each_answer_of_a_batch_says_what_is_reserved_by_then(account: Account) -> None:
    make_budget(account, cost_usd=10)
    make_budget(account, cost_usd=2, per=["agent"])

    commands = reserve_together(
        account,
        b'{"amount_usd": "1", "agent": "a"}',
        b'{"amount_usd": "0.5", "agent": "b"}',
        b'{"amount_usd": "0.75", "agent": "a"}',
        b'{"amount_usd": "0.5", "agent": "a"}',
    )

    *granted, refused = commands
    assert refused.error is not None
    said = [msgspec.to_builtins(command.answer)["budgets"] for command in granted]
    said.append(msgspec.to_builtins(refused.error.members["budgets"]))
    assert [[(row["reserved_usd"], row["remaining_usd"]) for row in rows] for rows in said] == [
        [("1", "9"), ("1", "1")],
        [("1.5", "8.5"), ("0.5", "1.5")],
        [("2.25", "7.75"), ("1.75", "0.25")],
        # Refused: what it asked for is not held.
        [("2.25", "7.75"), ("1.75", "0.25")],
    ]
    assert [row["refused"] for row in said[3]] == [False, True]
    assert all("refused" not in row for rows in said[:3] for row in rows)


@pytest.mark.django_db(transaction=True)
def test_reservations_of_the_same_windows_share_them(account: Account) -> None:
    make_budget(account, per=["agent"])
    commands = reserve_together(
        account,
        *[b'{"amount_usd": "1", "agent": "%s"}' % name for name in (b"a", b"a", b"b")],
    )
    held = find_held(account.tenant.id, [command.id for command in commands])
    first, second, other = [held[command.id].windows for command in commands]
    assert first is second
    assert set(first.ids).isdisjoint(other.ids)


@pytest.mark.django_db(transaction=True)
def test_an_archived_budget_is_not_settled_in_though_it_was_before(account: Account) -> None:
    kept, archived = make_budget(account, cost_usd=10), make_budget(account, cost_usd=10)
    api = caller(account)
    first, second = [api.post("/v1/reservations", {"amount_usd": "1"}).body["id"] for _ in range(2)]
    assert api.post(f"/v1/reservations/{first}/settle", {"cost_usd": "1"}).status == 200
    with account.scope():
        archive_budget(budget=archived, actor="a person")
    assert api.post(f"/v1/reservations/{second}/settle", {"cost_usd": "3"}).status == 200

    assert [window.spent_nanos for window in windows_of(account, kept)] == [4 * 10**9]
    assert [window.spent_nanos for window in windows_of(account, archived)] == [10**9]
    for budget in (kept, archived):
        assert [window.reserved_nanos for window in windows_of(account, budget)] == [0]


@pytest.mark.parametrize("is_of_body", [True, False])
@pytest.mark.parametrize("is_later_first", [True, False])
def test_a_budget_counts_from_within_a_quarter_of_an_hour(
    is_later_first: bool, is_of_body: bool
) -> None:
    """Calls of the same quarter before and after it are in different windows."""
    rules = [
        BudgetRule(
            Budget(id=id_, period="day", timezone="UTC", counts_from=counts_from, per=[], match={}),
            [],
        )
        for id_, counts_from in ((1, NOON), (2, NOON + timedelta(minutes=7)))
    ]
    book = BudgetIndex(tenant_id=1, version=1, rules=rules)
    windows_of = book.finder() if is_of_body else book.windows_of
    moments = [NOON + timedelta(minutes=minutes) for minutes in (6, 7, 8)]
    result = {
        at: [key.budget_id for key in windows_of(NO_VALUES, at)]
        for at in sorted(moments, reverse=is_later_first)
    }
    assert [result[at] for at in moments] == [[1], [1, 2], [1, 2]]
    assert windows_of(NO_VALUES, moments[1]) is windows_of(NO_VALUES, moments[2])
    assert windows_of(NO_VALUES, NOON - timedelta(minutes=1)) == ()


def test_what_is_found_for_a_body_is_what_is_found_for_each_of_its_calls() -> None:
    budgets = [
        Budget(id=id_, period=period, timezone=zone, counts_from=NOON, per=per, match=match)
        for id_, (period, zone, per, match) in enumerate(
            (
                ("month", "UTC", [], {}),
                ("hour", "UTC", ["agent"], {}),
                ("day", "Asia/Kathmandu", ["team", "agent"], {}),
                ("day", "UTC", ["agent"], {"team": "a"}),
            )
        )
    ]
    book = BudgetIndex(tenant_id=1, version=1, rules=[BudgetRule(each, []) for each in budgets])
    find = book.finder()
    calls = [
        ((team, "", agent, *NO_VALUES[3:]), NOON + timedelta(minutes=minutes))
        for minutes in (-1, 0, 14, 15, 400, 3, 16, 2_000)
        for team in ("a", "b", "")
        for agent in ("x", "y")
    ]
    results = [find(values, at) for values, at in calls]
    assert results == [book.windows_of(values, at) for values, at in calls]
    assert {len(keys) for keys in results} == {0, 3, 4}
