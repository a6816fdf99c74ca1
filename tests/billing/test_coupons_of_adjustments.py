"""What an adjustment gives back where coupons came or went since."""

from datetime import timedelta
from decimal import Decimal

import pytest

from billing.coupons import create_coupon
from billing.customers import update_customer
from billing.margins import read_margins
from billing.statement_views import StatementView
from billing.statements import void
from tenants.scope import tenant_scope
from tests.billing.scene import PER_REQUEST, Billed, month_start
from tests.factories import Account

HOUR = timedelta(hours=1)
MONTHS = FIRST, SECOND, THIRD = month_start(2), month_start(1), month_start(0)


@pytest.fixture
def billed(account: Account) -> Billed:
    """A customer who used 10 calls in the first month, 4 of them by a link, and 4 in the second."""
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    _link_team(billed, is_linked=True)
    billed.use(6, at=FIRST + HOUR)
    billed.use(4, at=FIRST + HOUR, customer=..., team="blue")
    billed.use(4, at=SECOND + HOUR)
    return billed


def _link_team(billed: Billed, *, is_linked: bool) -> None:
    links = [{"dimension": "team", "value": "blue"}] if is_linked else []
    with billed.account.scope():
        update_customer(billed.customer, actor="tests", changes={"links": links})


def _coupon(billed: Billed, percent: int, *, month: int) -> None:
    """Give a coupon for one month's statement."""
    with billed.account.scope():
        create_coupon(
            tenant=billed.account.tenant,
            actor="tests",
            customer=billed.customer,
            name=f"{percent}% off",
            percent=Decimal(percent),
            starts_at=MONTHS[month],
            ends_at=MONTHS[month + 1],
        )


def _sums(view: StatementView) -> tuple[int, int, int]:
    return view.totals.subtotal, view.totals.coupon_amount, view.totals.taxable


def _revenue(billed: Billed) -> dict[str | None, int]:
    tenant_id = billed.account.tenant.id
    with tenant_scope(tenant_id, is_snapshot=True):
        margins = read_margins(tenant_id, FIRST.date(), SECOND.date(), group_by="month")
    return {row.key: row.margin.revenue for row in margins.rows if row.key}


def test_a_coupon_cuts_nothing_of_what_is_given_back_of_a_statement_without_one(
    billed: Billed,
) -> None:
    assert _sums(billed.finalize(FIRST)) == (1000, 0, 1000)
    _coupon(billed, 50, month=1)
    _link_team(billed, is_linked=False)
    # 4 calls at half the price, and 4 are given back as they were charged.
    assert _sums(billed.view(SECOND)) == (0, 200, -200)
    by_month = {f"{FIRST:%Y-%m}": 600, f"{SECOND:%Y-%m}": 200}
    assert _revenue(billed) == by_month
    assert _sums(billed.finalize(SECOND)) == (0, 200, -200)
    assert _revenue(billed) == by_month


def test_what_a_coupon_took_off_then_is_not_given_back(billed: Billed) -> None:
    _coupon(billed, 25, month=0)
    assert _sums(billed.finalize(FIRST)) == (1000, 250, 750)
    _link_team(billed, is_linked=False)
    # The coupon is over, and $3.00 had been charged for the 4 calls.
    assert _sums(billed.finalize(SECOND)) == (0, -100, 100)
    # Further calls of then are as dear as they would have been.
    billed.use(8, at=FIRST + HOUR)
    assert _sums(billed.view(THIRD)) == (800, 200, 600)


def test_a_void_takes_back_exactly_what_it_had_given(billed: Billed) -> None:
    _coupon(billed, 25, month=0)
    voided = billed.finalize(FIRST).statement
    _link_team(billed, is_linked=False)
    billed.finalize(SECOND)
    void(billed.account.tenant.id, voided.id, actor="tests")
    # $3.00 were given back of what is charged no more.
    assert _sums(billed.view(THIRD)) == (400, 100, 300)
    assert _sums(billed.view(FIRST)) == (600, 150, 450)


@pytest.mark.parametrize(
    ("coupon", "taken_off"), [({"percent": Decimal(33)}, 5_00), ({"amount": 8_00}, 8_00)]
)
def test_a_void_adjustment_leaves_coupons_at_what_they_take_off_of_the_whole(
    account: Account, coupon: dict[str, Decimal | int], taken_off: int
) -> None:
    first, second, third, fourth = (month_start(back) for back in (3, 2, 1, 0))
    billed = Billed.on(account, {**PER_REQUEST, "unit_amount": "1.01"}, since=first)
    with account.scope():
        create_coupon(
            tenant=account.tenant,
            actor="tests",
            customer=billed.customer,
            name="Welcome",
            starts_at=first,
            ends_at=second,
            **coupon,
        )
    statements = []
    for month in (first, second, third):
        # Each adds to the first month, so the later ones adjust it.
        billed.use(5, at=first + HOUR)
        statements.append(billed.finalize(month))
    void(account.tenant.id, statements[1].statement.id, actor="tests")
    views = [statements[0], statements[2], billed.view(second), billed.view(fourth)]
    assert sum(view.totals.subtotal for view in views) == 15_15
    assert sum(view.totals.coupon_amount for view in views) == taken_off
