"""Agents that call side by side never spend past a wallet, whatever happens to it meanwhile."""

import random
import threading
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from billing.credit_audit import credit_drifts
from billing.credits import available, void_credit
from billing.models import (
    CreditCover,
    CreditEntry,
    CreditGrant,
    Customer,
)
from billing.tasks import move_credit
from common.errors import Conflict
from metering.models import Budget
from tests.billing.credit_scene import (
    charge,
    make_grant,
    make_wallet,
    void,
)
from tests.billing.scene import make_customer
from tests.billing.wallet_scene import (
    COST_PLUS_20,
    MINOR_NANOS,
    ask,
    expire,
    left,
    limit,
    run_all,
    settle,
    spent_and_reserved,
    subscribe,
)
from tests.factories import NANOS, Account, make_event, send
from tests.metering.api.caller import Answer, caller
from tests.seed import dice


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


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
