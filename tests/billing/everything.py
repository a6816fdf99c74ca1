"""A row in every table of billing."""

from datetime import UTC, datetime
from typing import Any

from billing.models import (
    BillingSettings,
    Plan,
    Statement,
    StripeAccount,
    StripeEvent,
    StripeInvoice,
    StripeMeter,
    StripeMeterValue,
    StripeSettings,
)
from tests.billing.scene import PER_REQUEST, Billed, month_start
from tests.factories import Account
from tests.metering.api.caller import caller


def bill(account: Account) -> None:
    """Bill a customer for last month, and keep the statement's file."""
    since = month_start(1)
    billed = Billed.on(account, PER_REQUEST, since=since)
    statement = billed.finalize(since).statement
    assert caller(account).get(f"/v1/statements/{statement.id}.csv").status == 200
    with account.scope():
        BillingSettings.objects.create(tenant=account.tenant)
        _collect(account, Statement.objects.get(id=statement.id))


def _collect(account: Account, statement: Statement) -> None:
    """What is known of Stripe."""
    own: dict[str, Any] = {"tenant": account.tenant}
    StripeSettings.objects.create(**own)
    payer = StripeAccount.objects.create(customer=statement.customer, is_live=False, **own)
    StripeInvoice.objects.create(statement=statement, account=payer, is_live=False, **own)
    StripeEvent.objects.create(event_id="evt_1", type="invoice.paid", is_live=False, **own)
    plan = Plan.objects.all()[0]
    meter = StripeMeter.objects.create(plan=plan, is_live=False, charge="Requests", **own)
    hour = datetime.now(UTC)
    StripeMeterValue.objects.create(meter=meter, account=payer, hour=hour, value=1, **own)
