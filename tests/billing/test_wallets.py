"""A wallet: what its budget counts, what statements take, who may change it."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from alerts.crossings import take_crossings
from alerts.models import Incident, Severity
from billing.credits import available, void_credit
from billing.customers import archive_customer
from billing.models import (
    Customer,
    Wallet,
)
from billing.statements import void as finalized_void
from billing.wallet_opening import change_levels, end_wallet
from common.errors import Conflict
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import archive_budget, update_budget
from metering.limits.limit_increases import Added, IncreaseAsk, ask_for_increase
from metering.models import Budget
from tests.billing.credit_scene import (
    balances,
    charge,
    make_grant,
    make_wallet,
    void,
)
from tests.billing.scene import Billed, make_customer, make_plan, month_start, put_on
from tests.billing.wallet_scene import (
    COST_PLUS_20,
    ask,
    limit,
    settle,
    spent_and_reserved,
    subscribe,
)
from tests.factories import NANOS, Account, make_event, send
from tests.metering.api.caller import caller


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


def test_the_limit_is_what_credit_covers_at_cost_plus_the_percentage(
    account: Account, acme: Customer
) -> None:
    subscribe(account, acme, COST_PLUS_20)
    # Usage from before the wallet is not its to pay.
    send(account, [make_event(customer="acme", cost_usd="7")])
    first = make_grant(account, acme, 1000)
    wallet = make_wallet(account, acme)
    assert wallet.percent == 20
    assert wallet.budget.name == "Acme's prepaid credit"
    # 10 / 1.2, cut to a nano-dollar.
    assert wallet.budget.limit_cost_nanos == 8_333_333_333
    make_grant(account, acme, 200)
    assert limit(account, wallet) == 10_000
    with account.scope():
        void_credit(first, actor="tests", reason="refunded", amount=600)
    assert limit(account, wallet) == 5000
    make_grant(account, acme, 500, effective_at=timezone.now() + timedelta(days=1))
    assert limit(account, wallet) == 5000
    send(account, [make_event(customer="acme", cost_usd="1")])
    assert spent_and_reserved(account, wallet) == (NANOS, 0)


def test_credit_of_a_wallet_pays_for_usage_and_not_for_fees(
    account: Account, acme: Customer
) -> None:
    api = caller(account)
    make_grant(account, acme, 1000)
    wallet = make_wallet(account, acme)
    settle(api, ask(api, "3"), "3")
    statement = charge(account, acme, 5000)
    assert (statement.credit_applied, statement.amount_due) == (300, 4700)
    assert limit(account, wallet) == 10_000
    # The void gives it back, and the limit stays: the usage is still there.
    void(account, statement)
    assert balances(account, acme) == [1000]
    assert limit(account, wallet) == 10_000
    # What came back from before the wallet is new to it.
    with account.scope():
        end_wallet(wallet, actor="tests")
    old = charge(account, acme, 400)
    wallet = make_wallet(account, acme)
    assert limit(account, wallet) == 6000
    void(account, old)
    assert limit(account, wallet) == 10_000


def test_a_statement_takes_what_the_wallet_counted(account: Account, acme: Customer) -> None:
    api, since = caller(account), month_start()
    charge_20 = COST_PLUS_20["charges"][0]
    fee = {"kind": "flat", "name": "Fee", "amount": "10", "when": "advance", "proration": "none"}
    put_on(account, acme, make_plan(account, charge_20, fee), since)
    make_grant(account, acme, 5000)
    wallet = make_wallet(account, acme)
    for usd in ("3.333333333", "0.000000001", "5.1"):
        settle(api, ask(api, "6"), usd)
    billed = Billed(account, acme)
    statement = billed.finalize(since).statement
    # 8.433333334 at 1.2 is 10.12; the fee is due in money.
    assert statement.total == 1012 + 1000
    assert 1012 <= statement.credit_applied <= 1013
    assert statement.amount_due == statement.total - statement.credit_applied
    assert balances(account, acme) == [5000 - statement.credit_applied]
    assert limit(account, wallet) == 41_666
    finalized_void(account.tenant.id, statement.id, actor="tests")
    assert balances(account, acme) == [5000]
    assert limit(account, wallet) == 41_666


def test_low_credit_is_an_incident_in_words_of_a_wallet(account: Account, acme: Customer) -> None:
    make_grant(account, acme, 1000)
    make_wallet(account, acme)
    send(account, [make_event(customer="acme", cost_usd="8.5")])
    with account.scope():
        assert take_crossings(tenant_id=account.tenant.id) == 1
        (incident,) = Incident.objects.all()
        assert incident.title == "Acme's prepaid credit is 80% used"
        assert incident.severity == Severity.WARNING
        assert incident.summary == "85% of the credit used: $8.50 of $10.00. Calls continue."
    make_grant(account, acme, 1000)
    with account.scope():
        wallet = Wallet.objects.get()
        change_levels(wallet, actor="tests", levels=[LevelRule(40, "none", ("finance",))])
        assert take_crossings(tenant_id=account.tenant.id) == 1
        incident = Incident.objects.get(resolved_at=None)
        assert incident.title == "Acme's prepaid credit is 40% used"


def test_only_the_wallet_changes_its_budget(account: Account, acme: Customer) -> None:
    make_grant(account, acme, 1000)
    wallet = make_wallet(account, acme)
    budget = wallet.budget
    ends_at = datetime.now(UTC) + timedelta(days=1)
    ask_more = IncreaseAsk(Added(cost_nanos=1), "more", ends_at)
    with account.scope():
        with pytest.raises(Conflict, match="belongs to a wallet"):
            update_budget(budget, actor="tests", changes={"limit_cost_nanos": 10**12})
        with pytest.raises(Conflict, match="belongs to a wallet"):
            archive_budget(budget, actor="tests")
        with pytest.raises(Conflict, match="that of a wallet"):
            ask_for_increase(budget=budget, actor="tests", ask=ask_more)
    api = caller(account)
    assert api.delete(f"/v1/budgets/{budget.id}").code == "conflict"
    assert api.patch(f"/v1/budgets/{budget.id}", {"mode": "warn"}).code == "conflict"
    assert limit(account, wallet) == 10_000


def test_a_wallet_is_opened_once_and_ends(account: Account, acme: Customer) -> None:
    make_grant(account, acme, 100)
    wallet = make_wallet(account, acme)
    with pytest.raises(Conflict, match="a wallet already"):
        make_wallet(account, acme)
    api = caller(account)
    assert ask(api, "2").status == 402
    with account.scope():
        end_wallet(wallet, actor="tests")
        end_wallet(wallet, actor="tests")
    assert ask(api, "2").status == 201
    with account.scope():
        assert available(acme.id, at=timezone.now()) == 100


def test_a_wallet_ends_with_its_customer(account: Account, acme: Customer) -> None:
    wallet = make_wallet(account, acme)
    with account.scope():
        archive_customer(acme, actor="tests")
        assert Wallet.objects.get(id=wallet.id).ended_at is not None
        assert Budget.objects.get(id=wallet.budget_id).archived_at is not None
