"""A tenant that collects with the stand-in for Stripe, and final statements to collect."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
import time_machine
from django.db.models import F
from django.utils import timezone

from billing.collection.credentials import configure_collection, set_credentials
from billing.collection.run import collect
from billing.models import (
    AccountState,
    Customer,
    InvoiceStep,
    LineKind,
    Plan,
    Statement,
    StatementLine,
    StatementState,
    StripeAccount,
    StripeEvent,
    StripeInvoice,
    StripeMeterValue,
    Subscription,
)
from billing.stripe_gateway import Event
from fake_stripe.objects import Object
from fake_stripe.server import StripeServer
from tenants.scope import tenant_scope
from tests.factories import Account

API_KEY = "sk_test_stand_in"
SECRET = "whsec_stand_in"
STARTS_AT = datetime(2026, 10, 1, tzinfo=UTC)
ENDS_AT = datetime(2026, 11, 1, tzinfo=UTC)
# Longer than any row waits for its next attempt.
LONG = timedelta(hours=7)


@dataclass
class Scene:
    """The tenant and its Stripe."""

    account: Account
    server: StripeServer
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    @property
    def tenant_id(self) -> int:
        return self.account.tenant.id

    def customer(self, key: str = "acme", **fields: object) -> Customer:
        fields = {"name": key.title(), "email": f"{key}@example.com", **fields}
        with self.account.scope():
            return Customer.objects.create(tenant=self.account.tenant, key=key, **fields)

    def statement(  # noqa: PLR0913 - what a statement is made of
        self,
        customer: Customer,
        amounts: Sequence[int] = (1000,),
        *,
        coupon: int = 0,
        tax: int = 0,
        credit_notes: int = 0,
        credit: int = 0,
        due_in_days: int = 30,
        number: str = "",
    ) -> Statement:
        """A final statement with lines of these amounts, as finalization writes them."""
        sequence = next(self._numbers)
        own: dict[str, Any] = {"tenant": self.account.tenant}
        subtotal = sum(amounts)
        total = subtotal - coupon + tax
        now = timezone.now()
        with self.account.scope():
            plan, _ = Plan.objects.get_or_create(
                name=f"Plan {customer.currency}", currency=customer.currency, **own
            )
            subscription = Subscription.objects.create(
                customer=customer, plan=plan, starts_at=STARTS_AT, **own
            )
            statement = Statement.objects.create(
                customer=customer,
                period_start=STARTS_AT + timedelta(seconds=sequence),
                period_end=ENDS_AT + timedelta(seconds=sequence),
                timezone="UTC",
                currency=customer.currency,
                **own,
            )
            StatementLine.objects.bulk_create(
                StatementLine(
                    statement=statement,
                    position=position,
                    kind=LineKind.USAGE,
                    name=f"Line {position}",
                    subscription=subscription,
                    key=f"v1:{position}",
                    starts_at=STARTS_AT,
                    ends_at=ENDS_AT,
                    quantity="1",
                    exact_amount="1",
                    amount=amount,
                    **own,
                )
                for position, amount in enumerate(amounts, 1)
            )
            final = {
                "state": StatementState.FINAL,
                "sequence": sequence,
                "number": number or f"S-{sequence:04d}",
                "finalized_at": now,
                "due_on": now.date() + timedelta(days=due_in_days),
                "subtotal": subtotal,
                "coupon": {"name": "Launch", "amount": str(coupon)} if coupon else None,
                "coupon_amount": coupon,
                "taxable": subtotal - coupon,
                "taxes": [{"name": "VAT", "percent": "19", "amount": tax}] if tax else [],
                "total": total,
                "credit_notes_applied": credit_notes,
                "credit_applied": credit,
                "amount_due": total - credit_notes - credit,
            }
            for name, value in final.items():
                setattr(statement, name, value)
            statement.save()
        return statement

    def collect(self) -> int:
        """What a worker does until nothing is due; returns how much that was."""
        total = 0
        while done := collect(tenant_id=self.tenant_id):
            total += done
        return total

    def collect_later(self, *, turns: int = 1) -> None:
        """What a worker does once every row's wait is over."""
        for _ in range(turns):
            past = timezone.now() - timedelta(seconds=1)
            with self.account.scope():
                StripeInvoice.objects.update(next_attempt_at=past)
                StripeEvent.objects.update(next_attempt_at=past)
            self.collect()

    @property
    def now(self) -> datetime:
        return timezone.now()

    def send_values_later(self) -> None:
        """Send metered values, once every wait is over."""
        with self.account.scope():
            StripeMeterValue.objects.update(next_attempt_at=self.now - timedelta(seconds=1))
        self.collect()

    def release_claims(self) -> None:
        """Let the claims of workers that were killed run out."""
        with self.account.scope():
            StripeInvoice.objects.update(claimed_until=None)

    def is_done(self, statement: Statement) -> bool:
        with self.account.scope():
            return StripeInvoice.objects.filter(statement=statement, step=InvoiceStep.DONE).exists()

    def row(self, statement: Statement) -> StripeInvoice:
        with self.account.scope():
            return StripeInvoice.objects.select_related("account").get(statement=statement)

    def account_of(self, customer: Customer) -> StripeAccount:
        with self.account.scope():
            return StripeAccount.objects.get(customer=customer)

    def invoices(self) -> list[Object]:
        """Stripe's invoices as it would answer them, oldest first."""
        return [self.server.world.shown(each) for each in self.server.world.invoices.values()]

    def events(self) -> list[Event]:
        """What happened at Stripe, as it would tell."""
        return msgspec.convert(self.server.world.events, list[Event])

    def forget_payments(self) -> None:
        """Know of invoices what was known when they were finalized."""
        with self.account.scope():
            StripeInvoice.objects.update(
                status="open",
                amount_paid=0,
                amount_refunded=0,
                amount_disputed=0,
                has_payment_failed=False,
                reads_done=F("reads_wanted"),
            )
            StripeAccount.objects.update(state=AccountState.CURRENT)

    def exclude(self, statement: Statement) -> None:
        """Collect only what became final after a statement did."""
        assert statement.finalized_at is not None
        configure_collection(
            tenant=self.account.tenant,
            actor="tests",
            collects_from=statement.finalized_at + timedelta(seconds=1),
        )

    def void(self, statement: Statement) -> None:
        with tenant_scope(self.tenant_id):
            Statement.objects.filter(id=statement.id).update(
                state=StatementState.VOID, voided_at=timezone.now()
            )


def make_scene(account: Account, server: StripeServer, **settings: Any) -> Scene:
    with account.scope():
        own: dict[str, Any] = {"tenant": account.tenant, "actor": "tests"}
        set_credentials(api_key=API_KEY, webhook_secret=SECRET, **own)
        given = {"collects": True, "collects_from": datetime(2026, 1, 1, tzinfo=UTC), **settings}
        configure_collection(**own, **given)
    return Scene(account, server)


def travel(**later: float) -> Any:
    """This machine's clock, later by this much."""
    return time_machine.travel(datetime.now(UTC) + timedelta(**later))
