"""Customers with wallets, their calls, and what is left for them."""

import threading
from datetime import timedelta
from typing import Any

from django.utils import timezone

from billing.models import (
    CreditGrant,
    Customer,
    Plan,
    PlanVersion,
    Subscription,
    Wallet,
)
from billing.tasks import move_credit
from common.queries import fetch_row
from metering.models import Budget
from tests.factories import NANOS, Account, windows_of
from tests.metering.api.caller import Answer, Caller

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


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
