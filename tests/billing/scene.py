"""Customers on plans, and their usage."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import time_machine

from billing.customers import create_customer
from billing.models import Customer, Plan, Statement, StatementState, Subscription
from billing.plans import create_plan
from billing.statement_views import StatementView, views_of
from billing.statements import finalize
from billing.subscriptions import subscribe
from billing.terms import Terms
from common.json_bodies import JsonObject
from tenants.scope import tenant_scope
from tests.factories import Account, make_event, send

PER_REQUEST: JsonObject = {
    "name": "Requests",
    "kind": "usage",
    "metric": "requests",
    "model": "per_unit",
    "unit_amount": "1",
}


def month_start(months_ago: int = 0) -> datetime:
    """The first moment, in UTC, of the month that lies this far back."""
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(months_ago):
        first = (first - timedelta(days=1)).replace(day=1)
    return first


def make_customer(account: Account, key: str = "acme", **fields: Any) -> Customer:
    with account.scope():
        return create_customer(
            tenant=account.tenant, actor="tests", **{"key": key, "name": key.title(), **fields}
        )


def make_plan(
    account: Account, *charges: JsonObject, bounds: JsonObject | None = None, **fields: object
) -> Plan:
    terms = msgspec.convert({"charges": list(charges), **(bounds or {})}, Terms)
    with account.scope():
        number = Plan.objects.filter(tenant=account.tenant).count() + 1
        return create_plan(
            tenant=account.tenant,
            actor="tests",
            terms=terms,
            **{"name": f"Plan {number}", **fields},
        )


def put_on(
    account: Account, customer: Customer, plan: Plan, starts_at: datetime, **fields: Any
) -> Subscription:
    with account.scope():
        return subscribe(
            tenant=account.tenant,
            actor="tests",
            customer=customer,
            plan=plan,
            starts_at=starts_at,
            **fields,
        )


@dataclass
class Billed:
    """A customer on a plan since a moment, and what happens to it."""

    account: Account
    customer: Customer

    @classmethod
    def on(cls, account: Account, *charges: JsonObject, since: datetime, **plan: Any) -> "Billed":
        customer = make_customer(account)
        put_on(account, customer, make_plan(account, *charges, **plan), since)
        return cls(account, customer)

    def use(self, count: int, *, at: datetime, **fields: object) -> None:
        """Report this many calls at a moment."""
        events = [
            make_event(**{"time": at.isoformat(), "customer": self.customer.key, **fields})
            for _ in range(count)
        ]
        # Ingest refuses what is more than 35 days old.
        with time_machine.travel(at + timedelta(days=1), tick=False):
            answer = send(self.account, events)
        assert answer["accepted"] == count, answer

    def view(self, starts_at: datetime) -> StatementView:
        """Return the statement, not void, of the period that begins at a moment."""
        with tenant_scope(self.account.tenant.id, is_snapshot=True):
            statement = self._statement(starts_at)
            return views_of([statement])[0]

    def finalize(self, starts_at: datetime) -> StatementView:
        with self.account.scope():
            statement = self._statement(starts_at)
        finalize(self.account.tenant.id, statement.id, actor="tests")
        return self.view(starts_at)

    def _statement(self, starts_at: datetime) -> Statement:
        return (
            Statement.objects.exclude(state=StatementState.VOID)
            .select_related("customer")
            .get(customer=self.customer, period_start=starts_at)
        )


def amounts(view: StatementView) -> Sequence[tuple[str, str, int]]:
    """Kind, name and amount of each line."""
    return [(line.kind, line.name, line.amount) for line in view.lines]
