"""A wallet: agents never spend past a customer's credit, whatever happens to it meanwhile."""

import random
import threading
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from alerts.crossings import take_crossings
from alerts.models import Incident, Severity
from billing.credit_audit import credit_drifts
from billing.credits import available, void_credit
from billing.customers import archive_customer
from billing.models import (
    CreditCover,
    CreditEntry,
    CreditGrant,
    Customer,
    Plan,
    PlanVersion,
    Subscription,
    Wallet,
)
from billing.statements import void as finalized_void
from billing.tasks import move_credit
from billing.terms import ChargeModel, FlatCharge, Metric, Terms, UsageCharge
from billing.wallet_opening import NotProportional, change_levels, end_wallet, percent_of_terms
from common.errors import Conflict
from common.queries import fetch_row
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import archive_budget, update_budget
from metering.limits.limit_increases import Added, IncreaseAsk, ask_for_increase
from metering.models import Budget
from tests.billing.credit_scene import (
    balances,
    charge,
    entries,
    make_grant,
    make_wallet,
    void,
)
from tests.billing.scene import Billed, make_customer, make_plan, month_start, put_on
from tests.factories import NANOS, Account, make_event, send, windows_of
from tests.metering.api.caller import Answer, Caller, caller
from tests.seed import dice

COST_PLUS_20: Any = {
    "charges": [
        {
            "kind": "usage",
            "name": "Model usage",
            "metric": "cost",
            "model": "cost_plus",
            "percent": "20",
        }
    ]
}
MINOR_NANOS = NANOS // 100


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


def subscribe(account: Account, customer: Customer, terms: Any, **plan: Any) -> None:
    with account.scope():
        own: Any = {"tenant": account.tenant}
        row = Plan.objects.create(name=f"Plan {customer.key}", **own, **plan)
        PlanVersion.objects.create(plan=row, number=1, terms=terms, actor="tests", **own)
        began = timezone.now() - timedelta(days=1)
        Subscription.objects.create(customer=customer, plan=row, starts_at=began, **own)


def ask(api: Caller, usd: str, customer: str = "acme") -> Answer:
    return api.post("/v1/reservations", {"amount_usd": usd, "customer": customer})


def settle(api: Caller, answer: Answer, usd: str, customer: str = "acme") -> None:
    path = f"/v1/reservations/{answer.body['id']}/settle"
    body = {"id": f"call-{answer.body['id']}", "cost_usd": usd, "customer": customer}
    assert api.post(path, body).status // 100 == 2


def limit(account: Account, wallet: Wallet) -> int:
    """Return the limit of a wallet's budget, in thousandths of a dollar."""
    with account.scope():
        nanos = Budget.objects.get(id=wallet.budget_id).limit_cost_nanos
    assert nanos is not None
    return nanos // 10**6


def spent_and_reserved(account: Account, wallet: Wallet) -> tuple[int, int]:
    windows = windows_of(account, wallet.budget)
    return sum(w.spent_nanos for w in windows), sum(w.reserved_nanos for w in windows)


def left(account: Account, wallet: Wallet) -> int:
    """Return what is left of a wallet's limit, at one point in time."""
    with account.scope():
        (nanos,) = fetch_row(
            "SELECT b.limit_cost_nanos - coalesce(sum(w.spent_nanos + w.reserved_nanos), 0)"
            " FROM budget b LEFT JOIN budget_window w"
            " ON w.tenant_id = b.tenant_id AND w.budget_id = b.id WHERE b.id = %s"
            " GROUP BY b.limit_cost_nanos",
            [wallet.budget_id],
        )
    return int(nanos)


def expire(account: Account, grant: CreditGrant) -> None:
    """Let a grant's time be over, and a worker come by."""
    with account.scope():
        CreditGrant.objects.filter(id=grant.id).update(expires_at=timezone.now())
    move_credit()


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


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_64_agents_never_spend_past_the_credit(account: Account, acme: Customer) -> None:
    subscribe(account, acme, COST_PLUS_20)
    make_grant(account, acme, 3600)
    wallet = make_wallet(account, acme)
    answers: list[int] = []
    paid: list[Decimal] = []
    granted = threading.Event()

    def work(number: int) -> None:
        """Call until a call is refused although all credit was granted before it."""
        api, chances, is_refused = caller(account), dice("agents", number), False
        while not is_refused:
            all_is_granted = granted.wait(0.01)
            answer = ask(api, "0.5")
            answers.append(answer.status)
            if answer.status == 201:
                usd = Decimal(chances.randint(1, 500)) / 1000
                settle(api, answer, str(usd))
                paid.append(usd)
            is_refused = all_is_granted and answer.status != 201
        connection.close()

    def grant() -> None:
        for _ in range(5):
            make_grant(account, acme, 120)
        granted.set()
        connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    run_all([*threads, threading.Thread(target=grant)])
    assert set(answers) == {201, 402}, Counter(answers)
    assert limit(account, wallet) == 35_000
    spent, reserved = spent_and_reserved(account, wallet)
    assert (spent, reserved) == (int(sum(paid) * NANOS), 0)
    assert 0 < spent <= 35 * NANOS
    # A statement takes what the wallet has counted: 1.2 times that, in whole cents.
    with account.scope():
        counted = -(-spent * 12 // (10 * MINOR_NANOS))
        assert available(acme.id, at=timezone.now()) == counted
    assert charge(account, acme, 1_000_000).credit_applied == counted
    assert limit(account, wallet) == 35_000


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


def usage(**fields: Any) -> UsageCharge:
    fields = {"metric": Metric.COST, "model": ChargeModel.COST_PLUS, **fields}
    return UsageCharge(name="Usage", **fields)


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        (Terms(charges=[]), "no charges for usage"),
        (Terms(charges=[usage(), usage()]), "2 charges for usage"),
        (Terms(charges=[usage(model=ChargeModel.PER_UNIT)]), "not charged as cost-plus"),
        (Terms(charges=[usage(included_units=Decimal(5))]), "allowance"),
        (Terms(charges=[usage(filter={"model": "m"})]), "a part of the usage"),
        (Terms(charges=[usage()], minimum_amount=Decimal(5)), "a minimum or a cap"),
    ],
)
def test_a_plan_that_does_not_follow_cost_is_refused_with_the_reason(
    terms: Terms, reason: str
) -> None:
    with pytest.raises(NotProportional, match=reason):
        percent_of_terms(terms)


def test_fees_beside_the_usage_do_not_matter_to_a_wallet() -> None:
    fee = FlatCharge(name="Platform", amount=Decimal(100))
    assert percent_of_terms(Terms(charges=[fee, usage(percent=Decimal("17.5"))])) == Decimal("17.5")


def test_customers_that_a_budget_cannot_follow_are_refused(account: Account) -> None:
    euro = make_customer(account, key="euro", currency="EUR")
    with pytest.raises(NotProportional, match="pays in EUR"):
        make_wallet(account, euro)
    linked = make_customer(account, key="linked")
    with account.scope():
        linked.links.create(tenant=account.tenant, dimension="customer", value="linked-2")
    wallet = make_wallet(account, linked)
    assert wallet.budget.match == {"customer": ["linked", "linked-2"]}
    teams = make_customer(account, key="teams")
    with account.scope():
        teams.links.create(tenant=account.tenant, dimension="team", value="growth")
    with pytest.raises(Conflict, match="team 'growth'"):
        make_wallet(account, teams)


class Walk:
    """Random calls, grants, expiries, refunds, statements and voids of one customer."""

    def __init__(self, account: Account, chances: random.Random, *, reports: bool) -> None:
        self.reports = reports
        self.account, self.dice = account, chances
        self.customer = make_customer(account)
        self.api = caller(account)
        self.open: list[tuple[Answer, Decimal]] = []
        self.statements: list[Any] = []
        subscribe(account, self.customer, COST_PLUS_20)
        make_grant(account, self.customer, 500)
        self.wallet = make_wallet(account, self.customer)

    def step(self) -> None:
        actions = [self.ask, self.ask, self.ask, self.end, self.end, self.grant]
        further = [self.expire, self.charge, self.void, self.refund]
        reports = [self.report] if self.reports else []
        self.dice.choice([*actions, *further, *reports])()
        self.check()

    def ask(self) -> None:
        most = Decimal(self.dice.randint(1, 3000)) / 1000
        answer = ask(self.api, str(most))
        if answer.status == 201:
            self.open.append((answer, most))

    def end(self) -> None:
        if not self.open:
            return
        answer, most = self.open.pop(self.dice.randrange(len(self.open)))
        if self.dice.random() < 0.2:
            self.api.post(f"/v1/reservations/{answer.body['id']}/release")
            return
        settle(self.api, answer, str(most * self.dice.randint(0, 10) / 10))

    def report(self) -> None:
        """A call that no one asked for: what it costs may pass the credit."""
        send(self.account, [make_event(customer="acme", cost_usd="0.123456789")])

    def grant(self) -> None:
        make_grant(
            self.account,
            self.customer,
            self.dice.randint(1, 500),
            kind=self.dice.choice(["paid", "promotional"]),
            priority=self.dice.randint(0, 3),
        )

    def expire(self) -> None:
        with self.account.scope():
            grants = list(CreditGrant.objects.filter(state="active", balance__gt=0).order_by("id"))
        if grants:
            expire(self.account, self.dice.choice(grants))

    def charge(self) -> None:
        total = self.dice.randint(1, 800)
        self.statements.append(charge(self.account, self.customer, total))

    def void(self) -> None:
        if self.statements:
            void(self.account, self.dice.choice(self.statements))

    def refund(self) -> None:
        with self.account.scope():
            grants = list(CreditGrant.objects.filter(balance__gt=0).order_by("id"))
            if grants:
                # Some of it is promised.
                with suppress(Conflict):
                    void_credit(self.dice.choice(grants), actor="tests", reason="refund")

    def check(self) -> None:
        assert credit_drifts(self.account.tenant.id) == []
        assert self.reports or left(self.account, self.wallet) >= 0
        with self.account.scope():
            assert not CreditGrant.objects.filter(balance__lt=0).exists()
            budget = Budget.objects.get(id=self.wallet.budget_id)
            held = sum(CreditGrant.objects.values_list("balance", flat=True))
            taken = -sum(
                CreditEntry.objects.filter(wallet=self.wallet).values_list("amount", flat=True)
            )
            assert budget.limit_cost_nanos == (held + taken) * MINOR_NANOS * 10 // 12


@pytest.mark.parametrize("number", range(4))
def test_whatever_happens_to_a_wallet_its_sums_are_right(account: Account, number: int) -> None:
    walk = Walk(account, dice("wallet", number), reports=number % 2 == 1)
    for _ in range(50):
        walk.step()
    call_command("audit_ledger", verbosity=0)


def call_until(stop: threading.Event, account: Account, number: int) -> None:
    api, chances = caller(account), dice("calls of an agent", number)
    while not stop.is_set():
        answer = ask(api, "0.3")
        if answer.status == 201:
            settle(api, answer, str(Decimal(chances.randint(0, 300)) / 1000))
    connection.close()


def test_calls_stay_within_credit_that_expires_while_they_run(
    account: Account, acme: Customer
) -> None:
    """What calls give back while an expired grant waits for them may be used, but not twice."""
    wallet = make_wallet(account, acme)
    stop, least = threading.Event(), list[int]()

    def watch() -> None:
        while not stop.is_set():
            least.append(left(account, wallet))
        connection.close()

    threads = [
        threading.Thread(target=call_until, args=(stop, account, number)) for number in range(16)
    ]
    threads.append(threading.Thread(target=watch))
    for thread in threads:
        thread.start()
    try:
        for _ in range(12):
            grant = make_grant(account, acme, 200)
            charge(account, acme, 50)
            expire(account, grant)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    move_credit()
    assert min(*least, left(account, wallet)) >= 0
    assert spent_and_reserved(account, wallet)[0] > 0
    with account.scope():
        assert not CreditCover.objects.exists()
