"""`manage.py configure_stripe` sets how a tenant collects, and says how that stands."""

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from billing.models import StripeMeter, StripeSettings
from tests.billing.scene import PER_REQUEST, make_customer, make_plan
from tests.billing.stripe.scene import API_KEY, SECRET
from tests.factories import Account

pytestmark = pytest.mark.django_db(transaction=True)


def configure(account: Account, *arguments: str) -> str:
    out = StringIO()
    call_command("configure_stripe", account.tenant.name, *arguments, stdout=out)
    return out.getvalue()


def test_keys_come_from_files_and_are_not_shown(account: Account, tmp_path: Path) -> None:
    assert "Key         none" in configure(account)
    key, secret = tmp_path / "key", tmp_path / "secret"
    key.write_text(f"{API_KEY}\n")
    secret.write_text(SECRET)
    said = configure(
        account,
        *("--key-file", str(key), "--webhook-secret-file", str(secret)),
        *("--collect", "--halt-overdue", "--method", "charge_automatically"),
    )
    assert "test mode, the tenant's own" in said
    assert f"POST /webhooks/stripe/{account.tenant.id}" in said
    assert API_KEY not in said
    with account.scope():
        row = StripeSettings.objects.get()
    assert (row.collects, row.halts_overdue, row.collection_method) == (
        True,
        True,
        "charge_automatically",
    )
    assert row.collects_from is not None
    assert "Collects    no" in configure(account, "--no-collect")
    with pytest.raises(CommandError, match="of the same account"):
        configure(account, "--key-file", str(key))
    key.write_text("pk_test_public")
    with pytest.raises(CommandError, match="must be a secret or restricted key"):
        configure(account, "--key-file", str(key), "--webhook-secret-file", str(secret))


def test_a_plan_is_metered_or_the_reason_is_said(account: Account, settings: Settings) -> None:
    settings.STRIPE_API_KEY = API_KEY
    make_plan(account, PER_REQUEST, name="Usage")
    make_plan(account, {"name": "Fee", "kind": "flat", "amount": "1"}, name="Fees")
    configure(account, "--meter-plan", "Usage")
    with account.scope():
        assert [meter.charge for meter in StripeMeter.objects.all()] == ["Requests"]
    for name, reason in (("Fees", "a flat fee is not metered"), ("None", "There is no plan")):
        with pytest.raises(CommandError, match=reason):
            configure(account, "--meter-plan", name)


def test_a_customer_is_collected_from_in_its_own_way(account: Account, settings: Settings) -> None:
    customer = make_customer(account)
    with pytest.raises(CommandError, match="There is no key yet"):
        configure(account, "--customer", "acme", "--customer-method", "none")
    settings.STRIPE_API_KEY = API_KEY
    configure(account, "--customer", "acme", "--customer-method", "none")
    with account.scope():
        assert customer.stripe_accounts.get().collection_method == "none"
    with pytest.raises(CommandError, match="There is no customer 'other'"):
        configure(account, "--customer", "other")
