"""Prepaid credit without a wallet: it is drawn, expires, rolls over and comes back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, transaction
from django.utils import timezone

from billing.credit_expiry import move_due_credit
from billing.credit_order import in_order, share_out
from billing.credits import available, void_credit
from billing.models import CreditEntry, CreditGrant, CreditState, Customer
from billing.tasks import move_credit
from common.errors import Conflict
from tests.billing.credit_scene import balances, charge, entries, make_grant, void
from tests.billing.scene import make_customer
from tests.cases import each_case
from tests.factories import Account

NOW = datetime(2026, 11, 15, 12, tzinfo=UTC)
MONTHS_END = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


def held(account: Account, customer: Customer) -> int:
    with account.scope():
        return available(customer.id, at=timezone.now())


def unsaved(number: int, **fields: object) -> CreditGrant:
    fields = {"effective_at": NOW, "state": CreditState.ACTIVE, **fields}
    return CreditGrant(id=number, **fields)


def test_the_order_is_priority_expiry_promotional_first_then_beginning() -> None:
    # bw162: https://docs.stigg.io/documentation/modeling-your-pricing-in-stigg/credits/
    # credit-consumption-logic.md; the order is stated there, the amount of 170 is not.
    september, august = datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 8, 15, tzinfo=UTC)
    a = unsaved(1, priority=1, expires_at=september, kind="paid", balance=50)
    b = unsaved(2, priority=1, expires_at=september, kind="promotional", balance=20)
    c = unsaved(3, priority=2, expires_at=august, kind="promotional", balance=100)
    ordered = [(grant, grant.balance) for grant in in_order([a, b, c])]
    assert share_out(170, ordered) == [(b, 20), (a, 50), (c, 100)]
    assert share_out(60, ordered) == [(b, 20), (a, 40)]


def test_of_equal_grants_the_one_that_began_first_is_drawn_and_no_end_comes_last() -> None:
    later = unsaved(1, kind="paid", effective_at=NOW + timedelta(days=1))
    first, second = unsaved(3, kind="paid"), unsaved(4, kind="paid")
    ending = unsaved(5, kind="paid", expires_at=MONTHS_END)
    assert in_order([later, second, first, ending]) == [ending, first, second, later]


def test_credit_pays_a_statement_and_the_rest_is_due(account: Account, acme: Customer) -> None:
    # bw161: https://developer.konghq.com/metering-and-billing/credits/consumption-and-expiration/
    make_grant(account, acme, 4000)
    statement = charge(account, acme, 10000)
    assert (statement.credit_applied, statement.amount_due) == (4000, 6000)
    assert entries(account, acme) == [("granted", 4000), ("applied", -4000)]
    assert balances(account, acme) == [0]
    assert charge(account, acme, 500).credit_applied == 0


def test_what_is_void_comes_back_once_also_to_what_has_expired(
    account: Account, acme: Customer
) -> None:
    with time_machine.travel(NOW):
        make_grant(account, acme, 300, expires_at=MONTHS_END)
        make_grant(account, acme, 500)
        statement = charge(account, acme, 600)
        assert balances(account, acme) == [0, 200]
    with time_machine.travel(MONTHS_END):
        move_credit()
        void(account, statement)
        void(account, statement)
        assert balances(account, acme) == [300, 500]
        # It does not expire again, and goes first.
        assert move_credit() == 0
        assert charge(account, acme, 400).credit_applied == 400
        assert balances(account, acme) == [0, 400]


def test_credit_counts_from_its_beginning_to_its_expiry(account: Account, acme: Customer) -> None:
    with time_machine.travel(NOW) as clock:
        begins = NOW + timedelta(days=1)
        make_grant(account, acme, 100, effective_at=begins, expires_at=MONTHS_END)
        assert held(account, acme) == 0
        clock.move_to(begins)
        # Whether or not a worker has come by.
        assert held(account, acme) == 100
        assert move_credit() == 1
        clock.move_to(MONTHS_END)
        assert held(account, acme) == 0
        assert move_credit() == 1
        assert move_credit() == 0
    assert entries(account, acme) == [("granted", 100), ("expired", -100)]


@pytest.mark.parametrize(
    ("granted", "used", "rule", "after_reset"),
    [
        # bw157: useautumn/autumn@187c0a7fd server/tests/balances/track/rollovers/
        # track-rollover1.test.ts
        (400, 250, (500, 1), 550),
        # bw158: the same, track-rollover3.test.ts
        (400, 150, (500, 1), 650),
        # bw159: https://docs.useautumn.com/documentation/modelling-pricing/rollovers
        (1000, 600, (2000, None), 1400),
    ],
)
def test_unused_credit_rolls_over(
    account: Account,
    acme: Customer,
    granted: int,
    used: int,
    rule: tuple[int, int | None],
    after_reset: int,
) -> None:
    maximum, months = rule
    rolled = after_reset - granted
    rollover: Any = {
        "rollover_percent": 100,
        "rollover_max": maximum,
        "rollover_months": months,
    }
    with time_machine.travel(NOW) as clock:
        make_grant(account, acme, granted, expires_at=MONTHS_END, **rollover)
        charge(account, acme, used)
        clock.move_to(MONTHS_END)
        make_grant(account, acme, granted)
        move_credit()
        assert held(account, acme) == after_reset
        assert entries(account, acme)[-2:] == [("rolled_over", -rolled), ("rolled_over", rolled)]
        with account.scope():
            rest = CreditGrant.objects.get(rolled_from__isnull=False)
        january = datetime(2027, 1, 1, tzinfo=UTC)
        assert (rest.effective_at, rest.expires_at) == (MONTHS_END, january if months else None)


def test_rolled_over_credit_never_holds_more_than_its_maximum(
    account: Account, acme: Customer
) -> None:
    rule: Any = {"rollover_percent": 50, "rollover_max": 100}
    with time_machine.travel(NOW) as clock:
        make_grant(account, acme, 151, expires_at=MONTHS_END, **rule)
        make_grant(account, acme, 60, expires_at=MONTHS_END, **rule)
        make_grant(account, acme, 60, expires_at=MONTHS_END, **rule)
        clock.move_to(MONTHS_END)
        assert move_credit() == 3
        # 75 of 151, then 25 of 30, then nothing.
        assert held(account, acme) == 100
    assert [amount for kind, amount in entries(account, acme) if kind == "rolled_over"] == [
        *(-75, 75),
        *(-25, 25),
    ]


def test_credit_is_taken_back_with_a_reason_and_no_more_than_is_left(
    account: Account, acme: Customer
) -> None:
    grant = make_grant(account, acme, 100)
    with account.scope():
        void_credit(grant, actor="tests", reason="paid twice", amount=40)
        with pytest.raises(Conflict, match="less to take back"):
            void_credit(grant, actor="tests", reason="paid twice", amount=61)
        void_credit(grant, actor="tests", reason="paid twice")
        with pytest.raises(Conflict, match="less to take back"):
            void_credit(grant, actor="tests", reason="paid twice")
        assert list(CreditEntry.objects.values_list("kind", "amount", "note")) == [
            ("granted", 100, ""),
            ("voided", -40, "paid twice"),
            ("voided", -60, "paid twice"),
        ]


def test_entries_never_change_and_a_balance_never_falls_below_zero(
    account: Account, acme: Customer
) -> None:
    grant = make_grant(account, acme, 100)
    with account.scope():
        with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
            CreditEntry.objects.update(amount=200)
        with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
            CreditEntry.objects.all().delete()
        with pytest.raises(IntegrityError, match="credit_grant_balance"), transaction.atomic():
            CreditGrant.objects.filter(id=grant.id).update(balance=-1)


@each_case(
    ("fields", "wrong"),
    [
        ({"expires_at": NOW}, "expires_at"),
        ({"effective_at": MONTHS_END, "expires_at": MONTHS_END}, "expires_at"),
        ({"rollover_percent": 50}, "rollover_percent"),
        ({"rollover_max": 50, "expires_at": MONTHS_END}, "rollover_percent"),
        ({"rollover_percent": 101, "expires_at": MONTHS_END}, "rollover_percent"),
        ({"priority": 101}, "priority"),
        ({"amount": 0}, "amount"),
        ({"kind": "free"}, "kind"),
    ],
)
def test_a_grant_that_makes_no_sense_is_refused(
    account: Account, acme: Customer, fields: Any, wrong: str
) -> None:
    with time_machine.travel(NOW), pytest.raises(ValidationError) as refusal:
        make_grant(account, acme, **{"amount": 1, **fields})
    assert set(refusal.value.message_dict) == {wrong}
    assert balances(account, acme) == []


def test_a_customer_that_another_worker_has_is_left_to_it(account: Account, acme: Customer) -> None:
    with time_machine.travel(NOW) as clock:
        make_grant(account, acme, 100, expires_at=MONTHS_END)
        clock.move_to(MONTHS_END)
        with account.scope():
            assert move_due_credit(tenant_id=account.tenant.id) == 1
            assert move_due_credit(tenant_id=account.tenant.id) == 0
