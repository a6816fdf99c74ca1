"""What is charged for a period after a statement that adjusted it is void."""

from datetime import timedelta

from billing.customers import update_customer
from billing.statements import void
from tests.billing.scene import PER_REQUEST, Billed, amounts, month_start
from tests.factories import Account

HOUR = timedelta(hours=1)
MONTHS = [month_start(3), month_start(2), month_start(1), month_start(0)]


def test_a_void_adjustment_is_charged_again_beside_a_later_one(account: Account) -> None:
    first, second, third, _ = MONTHS
    billed = Billed.on(account, PER_REQUEST, since=first)
    billed.use(10, at=first + HOUR)
    billed.finalize(first)
    billed.use(5, at=first + HOUR)
    adjusting = billed.finalize(second).statement
    billed.use(3, at=first + HOUR)
    billed.finalize(third)
    void(account.tenant.id, adjusting.id, actor="tests")
    # 18 are owed for the first month; 10 and 3 of them are on final statements.
    assert amounts(billed.view(second)) == [
        ("usage", "Requests", 0),
        ("adjustment", "Requests", 500),
    ]


def test_what_was_given_back_of_a_void_statement_is_charged_again(account: Account) -> None:
    first, second, third, _ = MONTHS
    billed = Billed.on(account, PER_REQUEST, since=first)
    _link_team(billed, is_linked=True)
    billed.use(10, at=first + HOUR, customer=..., team="blue")
    voided = billed.finalize(first).statement
    _link_team(billed, is_linked=False)
    assert amounts(billed.finalize(second))[1:] == [("adjustment", "Requests", -1000)]
    void(account.tenant.id, voided.id, actor="tests")
    assert amounts(billed.view(first)) == [("usage", "Requests", 0)]
    assert amounts(billed.view(third))[1:] == [("adjustment", "Requests", 1000)]


def _link_team(billed: Billed, *, is_linked: bool) -> None:
    links = [{"dimension": "team", "value": "blue"}] if is_linked else []
    with billed.account.scope():
        update_customer(billed.customer, actor="tests", changes={"links": links})
