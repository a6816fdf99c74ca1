"""What is charged for a period after a statement that adjusted it is void."""

from datetime import timedelta

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
