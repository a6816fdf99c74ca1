"""A row in every table of billing."""

from datetime import UTC, datetime, timedelta
from typing import Any

from billing.models import (
    BillingSettings,
    Coupon,
    CouponUse,
    CreditCover,
    CreditGrant,
    CreditNote,
    CreditNoteApplication,
    CreditNoteLine,
    Plan,
    Statement,
    StripeAccount,
    StripeEvent,
    StripeInvoice,
    StripeMeter,
    StripeMeterValue,
    StripeSettings,
    Wallet,
)
from billing.tasks_reconciliation import reconcile
from tests.billing.bills import anthropic_bucket, anthropic_page, import_for
from tests.billing.scene import PER_REQUEST, Billed, make_customer, month_start
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
    give_credit(account, statement)
    _reconcile(account)


def give_credit(account: Account, statement: Statement) -> None:
    """Give a customer credit in all its forms."""
    # Of a customer without a plan: a wallet follows cost.
    customer = make_customer(account, key="prepaid").key
    api = caller(account)
    answers = [
        api.post("/v1/coupons", {"customer": customer, "name": "growth", "percent": "5"}),
        api.post("/v1/credits", {"customer": customer, "amount": "9", "kind": "paid"}),
        api.post("/v1/wallets", {"customer": customer}),
    ]
    own: Any = {"tenant": account.tenant}
    with account.scope():
        CouponUse.objects.create(coupon=Coupon.objects.get(), statement=statement, **own)
        cover = {"kept": 0, "paid_before": 0, "spent_nanos": 0, "in_flight": []}
        wallet, grant = Wallet.objects.get(), CreditGrant.objects.get()
        CreditCover.objects.create(grant=grant, wallet=wallet, **cover, **own)
    make_credit_note(account, statement)
    assert {answer.status for answer in answers} == {201}, answers


def make_credit_note(account: Account, statement: Statement) -> None:
    """Write a credit note that another statement has used and given back."""
    with account.scope():
        note = CreditNote.objects.create(
            tenant=account.tenant,
            statement=statement,
            sequence=1,
            number="CN-1",
            reason="growth",
            net=1,
            total=1,
            unused=1,
            actor="tests",
        )
        CreditNoteLine.objects.create(tenant=account.tenant, credit_note=note, position=1, amount=1)
        for amount in (1, -1):
            CreditNoteApplication.objects.create(
                tenant=account.tenant, credit_note=note, statement=statement, amount=amount
            )


def _reconcile(account: Account) -> None:
    """Compare a provider's bill that differs with usage, by a threshold of one's own."""
    day = datetime.now(UTC).date() - timedelta(days=1)
    import_for(account, anthropic_page(anthropic_bucket(day, [("growth", "1")])))
    api = caller(account)
    answers = [
        api.patch("/v1/reconciliation-settings", {"daily": False}),
        api.post("/v1/reconciliations", {"kinds": ["providers"]}),
    ]
    assert [answer.status for answer in answers] == [200, 202]
    reconcile()


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
