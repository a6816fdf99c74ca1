"""The part of `/settings/billing` about Stripe: keys are kept sealed, and how things stand."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.test import Client
from pytest_django import Settings

from billing.collection.credentials import credentials_of
from billing.models import StripeAccount, StripeInvoice, StripeSettings
from tenants.models import AuditEntry
from tenants.roles import Role
from tests.billing.credit_scene import charge
from tests.billing.scene import make_customer
from tests.cases import each_case
from tests.dashboard.billing.reading import words
from tests.dashboard.test_enforcement_pages import page
from tests.factories import Account

KEY, SECRET = "sk_test_of_the_page", "whsec_of_the_page"
SENT = {
    "api_key": KEY,
    "webhook_secret": SECRET,
    "collects": "on",
    "collection_method": "charge_automatically",
}


def test_a_key_is_kept_sealed_and_never_shown(account: Account, owner: Client) -> None:
    assert "not connected" in page(owner, "/settings/billing")
    assert owner.post("/settings/billing/stripe", SENT).status_code == 302
    text = page(owner, "/settings/billing")
    assert "Final statements are collected with your own key, in test mode." in words(text)
    assert f"http://testserver/webhooks/stripe/{account.tenant.id}" in text
    assert KEY not in text
    assert SECRET not in text
    with account.scope():
        row = StripeSettings.objects.get()
        credentials = credentials_of(row)
    assert credentials is not None
    assert (credentials.api_key, credentials.webhook_secret) == (KEY, SECRET)
    assert (row.collects, row.collection_method, row.halts_overdue) == (
        True,
        "charge_automatically",
        False,
    )
    # Without a key the one that is there stays.
    owner.post("/settings/billing/stripe", {"collection_method": "manual", "halts_overdue": "on"})
    with account.scope():
        changed = StripeSettings.objects.get()
    assert bytes(changed.secrets or b"") == bytes(row.secrets or b"")
    assert (changed.collects, changed.collection_method, changed.halts_overdue) == (
        False,
        "manual",
        True,
    )
    assert "A key of test mode is here; collecting is off." in words(
        page(owner, "/settings/billing")
    )


@each_case(
    ("change", "fault"),
    [
        ({"api_key": "pk_test_public"}, "must be a secret or restricted key"),
        ({"webhook_secret": "of_the_page"}, "A signing secret begins with whsec_."),
        ({"webhook_secret": ""}, "Give the signing secret of the same account, too."),
        ({"api_key": ""}, "Give the key of the same account, too."),
        ({"api_key": "", "webhook_secret": ""}, "Collecting needs a key."),
    ],
)
def test_what_cannot_be_a_key_is_refused(
    account: Account, owner: Client, change: dict[str, str], fault: str
) -> None:
    text = owner.post("/settings/billing/stripe", {**SENT, **change}).content.decode()
    assert fault in words(text)
    assert 'value="sk_' not in text
    assert 'value="whsec_' not in text
    with account.scope():
        assert not StripeSettings.objects.exclude(secrets=None).exists()


def test_the_last_error_and_the_last_word_are_said(
    account: Account, owner: Client, settings: Settings
) -> None:
    settings.STRIPE_API_KEY = KEY
    settings.STRIPE_WEBHOOK_SECRET = SECRET
    customer = make_customer(account)
    statement = charge(account, customer, 500)
    with account.scope():
        StripeSettings.objects.create(
            tenant=account.tenant,
            collects=True,
            collects_from=datetime(2026, 1, 1, tzinfo=UTC),
            events_stored_until=1_793_000_000,
            problem="Stripe refused the key.",
        )
        stripe = customer.stripe_accounts.create(tenant=account.tenant, is_live=False)
        StripeInvoice.objects.create(
            tenant=account.tenant,
            statement=statement,
            account=stripe,
            is_live=False,
            problem="The customer has no email.",
        )
    text = page(owner, "/settings/billing")
    assert "key, in test mode" in words(text)
    assert "your own key" not in text
    assert "Stripe refused the key." in text
    assert "The customer has no email." in text
    assert "2026-10-26" in text


@pytest.mark.parametrize("role", [Role.ENGINEER, Role.VIEWER])
def test_who_may_not_bill_sees_no_form(as_role: Callable[[Role], Client], role: Role) -> None:
    client = as_role(role)
    text = page(client, "/settings/billing")
    assert "not connected" in text
    assert "api_key" not in text
    assert "/webhooks/stripe/" not in text
    assert client.post("/settings/billing/stripe", SENT).status_code == 403
    assert client.get("/settings/billing/stripe").status_code == 403


def test_a_key_is_removed_and_nothing_is_collected_with_another(
    account: Account, owner: Client, as_role: Callable[[Role], Client], settings: Settings
) -> None:
    owner.post("/settings/billing/stripe", SENT)
    assert "Remove key…" in page(owner, "/settings/billing")
    viewer = as_role(Role.VIEWER)
    assert "Remove key…" not in page(viewer, "/settings/billing")
    assert viewer.post("/settings/billing/stripe/remove-key").status_code == 403
    settings.STRIPE_API_KEY = "sk_test_of_the_installation"
    assert owner.post("/settings/billing/stripe/remove-key").status_code == 302
    with account.scope():
        row = StripeSettings.objects.get()
        assert (row.secrets, row.collects) == (None, False)
        removed = AuditEntry.objects.get(action="remove_key")
    assert removed.actor == account.email
    text = page(owner, "/settings/billing")
    assert "A key of test mode is here; collecting is off." in words(text)
    assert "Remove key…" not in text


def test_a_customers_statements_are_collected_in_its_own_way(
    account: Account, owner: Client
) -> None:
    acme = make_customer(account)
    path = f"/customers/{acme.id}/edit"
    sent = {"name": "Acme", "timezone": "UTC", "payment_terms_days": "30"}
    # Without a key there is nothing to choose.
    assert "How its statements are collected" not in page(owner, path)
    owner.post("/settings/billing/stripe", SENT)
    assert "How its statements are collected" in page(owner, path)
    assert owner.post(path, {**sent, "collection_method": "barter"}).status_code == 200
    assert owner.post(path, {**sent, "collection_method": "manual"}).status_code == 302
    with account.scope():
        chosen = StripeAccount.objects.get(customer=acme)
    assert (chosen.collection_method, chosen.is_live) == ("manual", False)
    shown = words(page(owner, f"/customers/{acme.id}"))
    assert "The invoice is left open for you to send." in shown
    owner.post(path, {**sent, "collection_method": ""})
    with account.scope():
        assert StripeAccount.objects.get(customer=acme).collection_method == ""
