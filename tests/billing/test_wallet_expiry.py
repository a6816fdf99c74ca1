"""Credit of a wallet that expires or is taken back while calls run."""

import pytest

from billing.credits import void_credit
from billing.models import (
    CreditCover,
    CreditEntry,
    Customer,
    Statement,
)
from billing.statement_periods import open_drafts
from billing.statements import finalize
from billing.tasks import move_credit
from common.errors import Conflict
from tests.billing.credit_scene import (
    balances,
    charge,
    entries,
    make_grant,
    make_wallet,
)
from tests.billing.scene import make_customer
from tests.billing.wallet_scene import COST_PLUS_20, ask, expire, limit, settle, subscribe
from tests.factories import Account
from tests.metering.api.caller import caller


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


def test_a_grant_that_expires_in_mid_call_keeps_what_is_reserved_and_no_more(
    account: Account, acme: Customer
) -> None:
    api = caller(account)
    grant = make_grant(account, acme, 1000)
    wallet = make_wallet(account, acme)
    settle(api, ask(api, "2"), "1")
    first, second = ask(api, "3"), ask(api, "2")
    expire(account, grant)
    # 1 is spent and on no statement yet, 5 are reserved, 4 are gone.
    assert entries(account, acme) == [("granted", 1000), ("expired", -400)]
    with account.scope():
        note = CreditEntry.objects.get(kind="expired").note
    assert note == "$6.00 stays for usage that is not charged yet and for 2 calls in flight."
    assert limit(account, wallet) == 6000
    assert ask(api, "0.01").status == 402
    # What is not spent yet is on no statement.
    statement = charge(account, acme, 500)
    assert (statement.credit_applied, balances(account, acme)) == (100, [500])
    settle(api, first, "2")
    move_credit()
    assert entries(account, acme)[-1] == ("expired", -100)
    assert limit(account, wallet) == 5000
    assert api.post(f"/v1/reservations/{second.body['id']}/release").status == 200
    move_credit()
    assert entries(account, acme)[-1] == ("expired", -200)
    assert limit(account, wallet) == 3000
    assert balances(account, acme) == [200]
    assert ask(api, "0.01").status == 402
    assert charge(account, acme, 500).credit_applied == 200
    assert balances(account, acme) == [0]
    assert limit(account, wallet) == 3000
    with account.scope():
        assert not CreditCover.objects.exists()
    assert move_credit() == 0


def test_calls_after_the_expiry_count_to_other_credit(account: Account, acme: Customer) -> None:
    api = caller(account)
    ending = make_grant(account, acme, 300, priority=1)
    wallet = make_wallet(account, acme)
    during = ask(api, "2")
    expire(account, ending)
    make_grant(account, acme, 1000)
    settle(api, ask(api, "4"), "4")
    # Of the 2 that the first keeps, nothing is spent yet: all is drawn from the second.
    charge(account, acme, 400)
    assert balances(account, acme) == [200, 600]
    settle(api, during, "1.5")
    move_credit()
    assert balances(account, acme) == [150, 600]
    assert limit(account, wallet) == 11_500
    charge(account, acme, 150)
    assert balances(account, acme) == [0, 600]


def test_a_refund_may_take_what_a_call_no_longer_needs(account: Account, acme: Customer) -> None:
    api = caller(account)
    grant = make_grant(account, acme, 300)
    make_wallet(account, acme)
    during = ask(api, "2")
    expire(account, grant)
    settle(api, during, "0.5")
    with account.scope():
        void_credit(grant, actor="tests", reason="refund")
    assert balances(account, acme) == [50]
    # Until a worker sees that the call has ended, all that is left stays for it.
    assert charge(account, acme, 50).credit_applied == 0
    move_credit()
    assert charge(account, acme, 50).credit_applied == 50
    assert balances(account, acme) == [0]


def test_a_promise_is_not_taken_back(account: Account, acme: Customer) -> None:
    api = caller(account)
    grant = make_grant(account, acme, 1000)
    wallet = make_wallet(account, acme)
    settle(api, ask(api, "3"), "3")
    assert ask(api, "2").status == 201
    with account.scope():
        with pytest.raises(Conflict, match="usage that is not charged yet"):
            void_credit(grant, actor="tests", reason="refund", amount=501)
        void_credit(grant, actor="tests", reason="refund")
    assert balances(account, acme) == [500]
    assert limit(account, wallet) == 5000


def test_a_statement_draws_what_an_expired_grant_kept_for_a_call_that_has_just_ended(
    account: Account, acme: Customer
) -> None:
    api = caller(account)
    subscribe(account, acme, COST_PLUS_20)
    grant = make_grant(account, acme, 1200)
    make_wallet(account, acme)
    first, second = ask(api, "5"), ask(api, "1")
    expire(account, grant)
    # 6 at cost plus 20% are reserved.
    assert balances(account, acme) == [720]
    settle(api, first, "3")
    with account.scope():
        open_drafts(acme)
        draft = Statement.objects.filter(customer=acme).latest("period_start")
    # No worker has looked since.
    final = finalize(account.tenant.id, draft.id, actor="tests")
    assert (final.total, final.credit_applied, final.amount_due) == (360, 360, 0)
    # What the other call keeps.
    assert balances(account, acme) == [120]
    assert api.post(f"/v1/reservations/{second.body['id']}/release").status == 200
    move_credit()
    assert balances(account, acme) == [0]
