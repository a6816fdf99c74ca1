"""Margins: exact, and their parts add up to what was charged and what usage cost."""

from datetime import UTC, date, datetime, timedelta
from unittest.mock import Mock

import pytest

from billing.credit_notes import LineAmount, create_credit_note
from billing.margin_months import month_begin, next_month, split, spread
from billing.margins import Margins, read_margins
from billing.models import Statement, StatementLine
from billing.rating import rate
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import total_usage
from metering.rollups import roll_up
from tenants.scope import tenant_scope
from tests.billing.scene import PER_REQUEST, Billed, make_customer, make_plan, month_start, put_on
from tests.factories import NANOS, Account

LAST_MONTH = month_start(1)
MONTH = LAST_MONTH.date()
FEE = {"name": "Fee", "kind": "flat", "amount": "10"}


def margins(account: Account, group_by: str, first: date = MONTH, **asked: bool) -> Margins:
    with tenant_scope(account.tenant.id, is_snapshot=True):
        return read_margins(account.tenant.id, first, MONTH, group_by=group_by, **asked)


def rows(result: Margins) -> list[tuple[str | None, int, int]]:
    """Key, revenue in cents and cost in cents of each row."""
    return [
        (row.key, row.margin.revenue, row.margin.cost_nanos * 100 // NANOS) for row in result.rows
    ]


def require_sums_of(account: Account, result: Margins) -> None:
    """The rows add up to the totals, and all costs to what usage cost."""
    for total in result.totals:
        own = [row.margin for row in result.rows if row.margin.currency == total.currency]
        assert sum(each.revenue for each in own) == total.revenue
        assert sum(each.cost_nanos for each in own) == total.cost_nanos
    question = UsageQuestion(
        tenant_id=account.tenant.id,
        starts_at=month_begin(MONTH),
        ends_at=month_begin(next_month(MONTH)),
    )
    with tenant_scope(account.tenant.id, is_snapshot=True):
        used = total_usage(question).cost_nanos
    assert sum(total.cost_nanos for total in result.totals) == used


@pytest.fixture
def billed(account: Account) -> Billed:
    """Acme, at a dollar a call: 3 calls of chat at $0.25 and 1 of search at $1.25.

    Globex, at $10 a month: a call at $12. And a call that is nobody's, at $0.05.
    """
    scene = Billed.on(account, PER_REQUEST, since=LAST_MONTH)
    at = LAST_MONTH + timedelta(days=5)
    scene.use(3, at=at, cost_usd="0.25", feature="chat")
    with account.scope():
        roll_up(tenant_id=account.tenant.id)
    scene.use(1, at=at, cost_usd="1.25", feature="search")
    scene.use(1, at=at, cost_usd="12", customer="globex")
    scene.use(1, at=at, cost_usd="0.05", customer=...)
    globex = make_customer(account, "globex")
    put_on(account, globex, make_plan(account, FEE), LAST_MONTH)
    return scene


def test_customers_at_a_loss_come_first_and_usage_of_nobody_has_a_row(billed: Billed) -> None:
    result = margins(billed.account, "customer")
    assert rows(result) == [("globex", 1000, 1200), (None, 0, 5), ("acme", 400, 200)]
    assert [row.margin.margin_nanos for row in result.rows] == [
        -2 * NANOS,
        -NANOS // 20,
        2 * NANOS,
    ]
    assert [str(row.margin.margin_share) for row in result.rows] == [
        "-0.200000",
        "None",
        "0.500000",
    ]
    assert all(row.margin.has_drafts for row in result.rows if row.key)
    require_sums_of(billed.account, result)


def test_what_is_final_is_as_it_was_in_the_draft(billed: Billed) -> None:
    before = rows(margins(billed.account, "customer"))
    billed.finalize(LAST_MONTH)
    result = margins(billed.account, "customer")
    assert rows(result) == before
    assert [row.margin.has_drafts for row in result.rows] == [True, False, False]
    # Without drafts, Globex has brought in nothing.
    assert rows(margins(billed.account, "customer", with_drafts=False)) == [
        ("globex", 0, 1200),
        (None, 0, 5),
        ("acme", 400, 200),
    ]


def test_a_late_call_counts_in_its_month_though_a_later_draft_charges_it(billed: Billed) -> None:
    billed.finalize(LAST_MONTH)
    billed.use(1, at=LAST_MONTH + timedelta(days=6), cost_usd="3")
    result = margins(billed.account, "customer")
    assert ("acme", 500, 500) in rows(result)
    require_sums_of(billed.account, result)


def test_by_plan(billed: Billed) -> None:
    result = margins(billed.account, "plan")
    assert [(row.name, row.margin.revenue) for row in result.rows] == [
        ("Plan 2", 1000),
        ("Usage without a customer", 0),
        ("Plan 1", 400),
    ]
    require_sums_of(billed.account, result)


def test_a_change_of_plans_within_a_month_parts_its_cost(billed: Billed) -> None:
    account = billed.account
    dear = make_plan(account, {**PER_REQUEST, "unit_amount": "2"})
    put_on(account, billed.customer, dear, LAST_MONTH + timedelta(days=10))
    billed.use(2, at=LAST_MONTH + timedelta(days=10), cost_usd="0.5")
    result = margins(account, "plan")
    assert [row[1:] for row in rows(result) if row[0] is not None] == [
        (1000, 1200),
        (400, 200),
        (400, 100),
    ]
    require_sums_of(account, result)


def test_by_month(billed: Billed) -> None:
    before = (MONTH - timedelta(days=1)).replace(day=1)
    result = margins(billed.account, "month", first=before)
    assert rows(result) == [(f"{MONTH:%Y-%m}", 1400, 1400), (None, 0, 5)]


def test_by_feature_what_names_none_is_shared_out_by_cost(billed: Billed) -> None:
    """Acme's 400 cents by 75 to 125; Globex's calls have no feature."""
    result = margins(billed.account, "feature")
    assert rows(result) == [("", 1000, 1200), (None, 0, 5), ("chat", 150, 75), ("search", 250, 125)]
    assert [row.margin.is_allocated for row in result.rows] == [True, False, True, True]
    require_sums_of(billed.account, result)


def test_by_feature_a_charge_that_names_one_counts_there(account: Account) -> None:
    of_chat = {**PER_REQUEST, "filter": {"feature": "chat"}}
    rest = {**PER_REQUEST, "name": "Others", "filter": {"feature": ["search", "write"]}}
    scene = Billed.on(account, of_chat, rest, since=LAST_MONTH)
    at = LAST_MONTH + timedelta(days=5)
    scene.use(1, at=at, cost_usd="9", feature="chat")
    scene.use(2, at=at, cost_usd="1", feature="search")
    scene.use(1, at=at, cost_usd="2", feature="write")
    for is_final in (False, True):
        if is_final:
            scene.finalize(LAST_MONTH)
        result = margins(account, "feature")
        assert rows(result) == [("chat", 100, 900), ("search", 150, 200), ("write", 150, 200)]
        assert {row.key: row.margin.is_allocated for row in result.rows} == {
            "chat": False,
            "search": True,
            "write": True,
        }
        require_sums_of(account, result)


def test_a_coupon_is_taken_off(billed: Billed) -> None:
    """As a final statement has it whose coupon took 150 cents off its 400."""
    final = billed.finalize(LAST_MONTH).statement
    with billed.account.scope():
        copy = Statement.objects.get(id=final.id)
        lines = list(StatementLine.objects.filter(statement=copy))
        # What is final cannot be changed, so another with the coupon takes its place.
        copy.pk, copy.sequence, copy.number = None, 77, "77"
        copy.period_end += timedelta(microseconds=1)
        copy.coupon, copy.coupon_amount, copy.taxable = {"name": "c", "amount": 150}, 150, 250
        copy.total = copy.amount_due = 250
        copy.save()
        for line in lines:
            line.pk, line.statement = None, copy
            line.save()
    result = margins(billed.account, "customer", with_drafts=False)
    assert ("acme", 400 + 250, 200) in rows(result)


def test_what_a_credit_note_gives_back_is_no_revenue(billed: Billed) -> None:
    final = billed.finalize(LAST_MONTH).statement
    with billed.account.scope():
        lines = [LineAmount(1, 100)]
        create_credit_note(final, actor="tests", reason="A slow day", lines=lines)
        create_credit_note(final, actor="tests", reason="Another", amount=50)
    result = margins(billed.account, "customer", with_drafts=False)
    assert ("acme", 400 - 150, 200) in rows(result)
    require_sums_of(billed.account, result)


def test_another_currency_has_no_margin_and_a_sum_of_its_own(account: Account) -> None:
    customer = make_customer(account, currency="EUR")
    put_on(account, customer, make_plan(account, FEE, currency="EUR"), LAST_MONTH)
    Billed(account, customer).use(1, at=LAST_MONTH + timedelta(days=1), cost_usd="2")
    result = margins(account, "customer")
    (row,) = result.rows
    assert (row.margin.currency, row.margin.revenue, row.margin.cost_nanos) == (
        "EUR",
        1000,
        2 * NANOS,
    )
    assert (row.margin.margin_nanos, row.margin.margin_share) == (None, None)
    require_sums_of(account, result)


def test_an_amount_is_spread_over_the_months_that_it_covers() -> None:
    def parts(amount: int, begin: datetime, end: datetime, zone: str = "UTC") -> list[int]:
        return [part for _, part in spread(amount, begin, end, zone)]

    quarter = (datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 4, 1, tzinfo=UTC))
    assert parts(9000, *quarter) == [3100, 2800, 3100]
    assert sum(parts(-9001, *quarter)) == -9001
    # A month in the statement's zone is one, whatever it is in UTC, and in spring an hour shorter.
    new_york = (
        month_begin(date(2027, 3, 1), "America/New_York"),
        month_begin(date(2027, 4, 1), "America/New_York"),
    )
    assert parts(500, *new_york, "America/New_York") == [500]
    assert len(parts(500, *new_york)) == 2
    at = quarter[0]
    assert list(spread(7, at, at, "UTC")) == [(date(2027, 1, 1), 7)]
    assert split(100, [1, 1, 1]) == [34, 33, 33]


def test_usage_of_a_customer_without_a_plan_has_no_plan(account: Account) -> None:
    scene = Billed(account, make_customer(account))
    scene.use(1, at=LAST_MONTH + timedelta(days=5), cost_usd="1")
    assert rows(margins(account, "plan")) == [("", 0, 100)]


def test_a_draft_is_rated_again_only_after_further_usage(
    billed: Billed, monkeypatch: pytest.MonkeyPatch
) -> None:
    rated = Mock(wraps=rate)
    monkeypatch.setattr("billing.statement_lines.rate", rated)
    before = rows(margins(billed.account, "customer"))
    calls = rated.call_count
    assert calls
    assert rows(margins(billed.account, "feature")) != before
    assert rows(margins(billed.account, "customer")) == before
    assert rated.call_count == calls
    billed.use(1, at=LAST_MONTH + timedelta(days=6), cost_usd="0.25", feature="chat")
    after = {key: revenue for key, revenue, _ in rows(margins(billed.account, "customer"))}
    assert after == {**{key: revenue for key, revenue, _ in before}, "acme": 500}
    assert rated.call_count == calls + 1
