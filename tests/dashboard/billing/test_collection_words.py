"""How Stripe's collection stands, on the pages of statements and customers."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from billing.collection.credentials import configure_collection, set_credentials
from billing.models import AccountState, Customer, InvoiceStep, StripeInvoice
from dashboard.billing.collection_words import describe
from tests.billing.credit_scene import charge, void
from tests.billing.scene import make_customer
from tests.dashboard.billing.reading import words
from tests.dashboard.test_enforcement_pages import page
from tests.factories import Account

NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


@pytest.mark.parametrize(
    ("fields", "state", "tone"),
    [
        ({"step": InvoiceStep.CREATE}, "Draft", "info"),
        ({"step": InvoiceStep.LINES, "problem": "No email."}, "Draft", "warning"),
        ({"status": "open"}, "Open", "info"),
        ({"status": "open", "due_at": NOW}, "Overdue", "critical"),
        ({"status": "open", "due_at": NOW + timedelta(1)}, "Open", "info"),
        ({"status": "open", "has_payment_failed": True}, "Payment failed", "critical"),
        ({"status": "paid", "has_payment_failed": True}, "Paid", "ok"),
        ({"status": "paid", "amount_refunded": 5}, "Refunded", "warning"),
        ({"status": "paid", "amount_disputed": 5}, "Disputed", "critical"),
        ({"status": "paid", "amount_lost": 5}, "Dispute lost", "critical"),
        ({"status": "uncollectible"}, "Uncollectible", "critical"),
        ({"status": "void", "step": InvoiceStep.VOIDED}, "Voided", "outline"),
    ],
)
def test_an_invoice_is_described_by_what_was_read_of_it(
    fields: dict[str, object], state: str, tone: str
) -> None:
    row = StripeInvoice(**{"step": InvoiceStep.DONE, "is_live": True, **fields})
    told = describe(row, NOW)
    assert (told.state, told.tone) == (state, tone)
    assert told.link == ""
    if row.problem:
        assert told.detail == row.problem


@pytest.mark.parametrize(
    ("is_live", "link"),
    [
        (True, "https://dashboard.stripe.com/invoices/in_1"),
        (False, "https://dashboard.stripe.com/test/invoices/in_1"),
    ],
)
def test_the_link_is_of_the_invoices_mode(is_live: bool, link: str) -> None:
    row = StripeInvoice(step=InvoiceStep.DONE, status="open", stripe_id="in_1", is_live=is_live)
    assert describe(row, NOW).link == link


def test_where_stripe_is_the_fake_one_every_page_that_names_it_says_so(
    account: Account, owner: Client, acme: Customer, settings: Settings
) -> None:
    statement = charge(account, acme, 500)
    pages = (
        *("/settings/billing", f"/statements/{statement.id}", "/customers/reconciliation"),
        *(f"/customers/{acme.id}/edit", "/customers/reconciliation/threshold"),
        f"/customers/{acme.id}",
    )
    with account.scope():
        own: dict[str, Any] = {"tenant": account.tenant, "actor": "tests"}
        set_credentials(api_key="sk_test_fake_1", webhook_secret="whsec_1", **own)
        acme.stripe_accounts.create(tenant=account.tenant, is_live=False)
    for base, is_said in ((None, False), ("http://127.0.0.1:1", True)):
        settings.STRIPE_FAKE_BASE = base
        said = ["Fake Stripe: not real money" in words(page(owner, each)) for each in pages]
        assert said == [is_said] * len(pages)


def test_an_invoice_of_the_fake_stripe_is_on_no_page_of_stripes() -> None:
    row = StripeInvoice(step=InvoiceStep.DONE, status="open", stripe_id="in_fake00000001")
    assert describe(row, NOW).link == ""


def test_a_statement_says_why_it_is_not_collected(
    account: Account, owner: Client, acme: Customer, settings: Settings
) -> None:
    early = charge(account, acme, 500)
    assert "Stripe is not connected." in words(page(owner, f"/statements/{early.id}"))
    settings.STRIPE_API_KEY = "sk_test_pages"
    own: dict[str, Any] = {"tenant": account.tenant, "actor": "tests"}
    with account.scope():
        configure_collection(**own, collects=False)
    assert "Collecting with Stripe is off." in words(page(owner, f"/statements/{early.id}"))
    with account.scope():
        configure_collection(**own, collects=True)
    told = words(page(owner, f"/statements/{early.id}"))
    assert "It became final before collecting was turned on." in told
    late = charge(account, acme, 500)
    assert "Its invoice is made within a minute." in words(page(owner, f"/statements/{late.id}"))
    with account.scope():
        configure_collection(**own, collection_method="none")
    told = words(page(owner, f"/statements/{late.id}"))
    assert "No invoice is made for this customer or plan." in told


def test_a_customer_who_is_overdue_is_called_so(
    account: Account, owner: Client, acme: Customer, settings: Settings
) -> None:
    settings.STRIPE_API_KEY = "sk_test_pages"
    with account.scope():
        for is_live, state in ((False, AccountState.OVERDUE), (True, AccountState.DISPUTED)):
            acme.stripe_accounts.create(
                tenant=account.tenant,
                is_live=is_live,
                state=state,
                halts=[{"id": 1, "match": {"customer": "acme"}}],
            )
    told = words(page(owner, f"/customers/{acme.id}"))
    assert "overdue since" in told
    assert "in test mode Its usage is halted until it pays." in told
    assert "disputed" not in told
    settings.STRIPE_API_KEY = None
    assert "overdue" not in words(page(owner, f"/customers/{acme.id}"))


def test_a_statement_that_was_paid_is_called_so_and_a_void_one_owes_nothing(
    account: Account, owner: Client, acme: Customer
) -> None:
    paid, voided, free = (charge(account, acme, amount) for amount in (500, 300, 0))
    with account.scope():
        StripeInvoice.objects.create(
            tenant=account.tenant,
            statement=paid,
            account=acme.stripe_accounts.create(tenant=account.tenant, is_live=False),
            is_live=False,
            step=InvoiceStep.DONE,
            status="paid",
        )
    void(account, voided)
    assert "Acme paid $5.00 for" in words(page(owner, f"/statements/{paid.id}"))
    assert "Acme owes nothing for" in words(page(owner, f"/statements/{free.id}"))
    link = re.search(r"/bill/[^<\s]+", page(owner, f"/statements/{paid.id}"))
    assert link is not None
    assert "$5.00 paid" in words(page(Client(), link[0]))
    for address in ("/statements", f"/customers/{acme.id}"):
        listed = words(page(owner, address))
        assert "final paid $5.00" in listed
        assert "void $3.00 void" in listed
