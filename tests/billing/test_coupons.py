"""Which coupon a statement gets."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from billing.coupons import Discount, create_coupon, discount_facts, discounts_of, mark_used
from billing.models import Coupon, Customer, Statement
from tests.billing.credit_scene import charge, void
from tests.billing.scene import make_customer
from tests.cases import each_case
from tests.factories import Account

START = datetime(2026, 10, 1, tzinfo=UTC)
END = datetime(2026, 11, 1, tzinfo=UTC)
FOREVER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


def make_coupon(account: Account, customer: Customer, **fields: Any) -> Coupon:
    fields = {"name": "Launch", "starts_at": START, **fields}
    with account.scope():
        return create_coupon(tenant=account.tenant, actor="tests", customer=customer, **fields)


def found(
    account: Account, customer: Customer, period_end: datetime = END, *, at: datetime = FOREVER
) -> Discount | None:
    statement = Statement(id=1, customer=customer, period_end=period_end)
    with account.scope():
        return discounts_of([statement], at=at).get(1)


def test_a_coupon_is_for_periods_that_end_while_it_lasts(account: Account, acme: Customer) -> None:
    coupon = make_coupon(account, acme, percent=Decimal(10), ends_at=END)
    assert found(account, acme) == Discount(coupon.id, "Launch", Decimal(10), None)
    assert found(account, acme, START) is None
    assert found(account, acme, END + timedelta(seconds=1)) is None
    assert found(account, acme, at=coupon.created_at - timedelta(seconds=1)) is None


def test_the_oldest_is_used_until_it_is_used_up(account: Account, acme: Customer) -> None:
    newer = make_coupon(account, acme, amount=500, starts_at=START + timedelta(days=1))
    older = make_coupon(account, acme, percent=Decimal("12.50"), statements_max=1)
    first = found(account, acme)
    assert first is not None
    assert first.coupon_id == older.id
    assert discount_facts(first) == {"name": "Launch", "percent": "12.5"}
    statement = charge(account, acme, 100)
    with account.scope():
        mark_used(first, statement)
    assert found(account, acme) == Discount(newer.id, "Launch", None, 500)
    # The void gives its use back.
    void(account, statement)
    assert found(account, acme) == first


def test_coupons_are_a_customers_own(account: Account, acme: Customer) -> None:
    make_coupon(account, acme, amount=500)
    assert found(account, make_customer(account, key="other")) is None


@each_case(
    ("fields", "wrong"),
    [
        ({}, "percent"),
        ({"percent": Decimal(5), "amount": 5}, "percent"),
        ({"percent": Decimal(101)}, "percent"),
        ({"percent": Decimal(0)}, "percent"),
        ({"amount": 0}, "amount"),
        ({"amount": 5, "ends_at": START}, "ends_at"),
        ({"amount": 5, "statements_max": 0}, "statements_max"),
    ],
)
def test_a_coupon_that_makes_no_sense_is_refused(
    account: Account, acme: Customer, fields: Any, wrong: str
) -> None:
    with pytest.raises(ValidationError) as refusal:
        make_coupon(account, acme, **fields)
    assert set(refusal.value.message_dict) == {wrong}
