"""The admin of customers, plans and subscriptions."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.test import Client

from billing.models import Customer, Plan, Subscription
from tenants.models import AuditEntry
from tenants.roles import Role
from tests.billing.credit_scene import make_wallet
from tests.billing.scene import PER_REQUEST, make_customer, make_plan
from tests.dashboard.billing.reading import words
from tests.factories import Account

CUSTOMERS = "/admin/billing/customer"
PLANS = "/admin/billing/plan"
SUBSCRIPTIONS = "/admin/billing/subscription"


def customer_form(**fields: object) -> dict[str, object]:
    return {
        "form_token": uuid.uuid4().hex,
        "key": "acme",
        "currency": "usd",
        "name": "Acme",
        "timezone": "Europe/Berlin",
        "country": "de",
        "payment_terms_days": "14",
        "tax_rates": "VAT 19",
        **fields,
    }


def subscription_form(plan: Plan, **fields: object) -> dict[str, object]:
    return {
        "form_token": uuid.uuid4().hex,
        "customer": "acme",
        "plan": str(plan.id),
        "starts_at_0": "2026-01-01",
        "starts_at_1": "00:00:00",
        **fields,
    }


def test_a_customer_is_added_changed_and_archived(account: Account, owner: Client) -> None:
    assert owner.post(f"{CUSTOMERS}/add/", customer_form()).status_code == 302
    with account.scope():
        acme = Customer.objects.get()
        assert [link.value for link in acme.links.all()] == ["acme"]
    assert (acme.currency, acme.country, acme.timezone) == ("USD", "DE", "Europe/Berlin")
    assert acme.tax_rates == [{"name": "VAT", "percent": "19"}]
    path = f"{CUSTOMERS}/{acme.id}/change/"
    # Its key and currency never change, whatever is sent.
    rows = {"links-TOTAL_FORMS": "1", "links-INITIAL_FORMS": "1"}
    changed = customer_form(name="Acme Inc", key="other", currency="EUR", **rows)
    assert owner.post(path, changed).status_code == 302
    with account.scope():
        acme = Customer.objects.get()
    assert (acme.name, acme.key, acme.currency) == ("Acme Inc", "acme", "USD")
    assert owner.post(f"{CUSTOMERS}/{acme.id}/delete/", {"post": "yes"}).status_code == 302
    with account.scope():
        acme = Customer.objects.get()
        actions = AuditEntry.objects.filter(object_type="customer").order_by("id")
        assert [entry.action for entry in actions] == ["create", "update", "archive"]
    assert acme.archived_at is not None
    assert owner.post(path, changed).status_code == 403


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"currency": "XXY"}, "as in USD or EUR"),
        ({"country": "12"}, "two letters, as in DE"),
        ({"tax_rates": "VAT"}, "as in VAT 19"),
        ({"tax_rates": "VAT 19\nVAT 7"}, "A rate is named twice."),
        ({"timezone": "Mars"}, "not one of the available choices"),
    ],
)
def test_wrong_customers_are_refused_at_their_fields(
    account: Account, owner: Client, fields: dict[str, str], reason: str
) -> None:
    answer = owner.post(f"{CUSTOMERS}/add/", customer_form(**fields))
    assert answer.status_code == 200
    assert reason in words(answer.content.decode())
    with account.scope():
        assert not Customer.objects.exists()


def test_a_plan_is_renamed_and_archived_and_its_terms_stay(account: Account, owner: Client) -> None:
    plan = make_plan(account, PER_REQUEST)
    path = f"{PLANS}/{plan.id}/change/"
    assert "per_unit" in owner.get(path).content.decode()
    rows = {"versions-TOTAL_FORMS": "1", "versions-INITIAL_FORMS": "1"}
    assert owner.post(path, {"name": "Scale", "trial_days": "9", **rows}).status_code == 302
    with account.scope():
        stored = Plan.objects.get()
        assert (stored.name, stored.trial_days) == ("Scale", 0)
        assert stored.versions.count() == 1
    assert owner.get(f"{PLANS}/add/").status_code == 403
    assert owner.post(f"{PLANS}/{plan.id}/delete/", {"post": "yes"}).status_code == 302
    with account.scope():
        assert Plan.objects.get().archived_at is not None


def test_a_customer_is_put_on_a_plan_and_the_domain_judges_it(
    account: Account, owner: Client
) -> None:
    acme, plan = make_customer(account), make_plan(account, PER_REQUEST)
    form = subscription_form(plan)
    assert owner.post(f"{SUBSCRIPTIONS}/add/", form).status_code == 302
    with account.scope():
        made = Subscription.objects.get()
    assert (made.customer_id, made.plan_id) == (acme.id, plan.id)
    assert made.starts_at == datetime(2026, 1, 1, tzinfo=UTC)
    path = f"{SUBSCRIPTIONS}/{made.id}/change/"
    ends = {"ends_at_0": "2026-02-01", "ends_at_1": "00:00:00"}
    assert owner.post(path, ends).status_code == 302
    with account.scope():
        ended = Subscription.objects.get().ends_at
    assert ended == datetime(2026, 2, 1, tzinfo=UTC)
    # A second that overlaps, one of no known time, and one that a wallet could not follow.
    again = subscription_form(plan, starts_at_0="2025-12-01")
    told = owner.post(f"{SUBSCRIPTIONS}/add/", again, follow=True).content.decode()
    assert "end or remove that subscription first" in words(told)
    late = owner.post(f"{SUBSCRIPTIONS}/add/", subscription_form(plan, starts_at_0="9999-12-31"))
    assert "Must lie in the years 1970 to 2200." in words(late.content.decode())
    make_wallet(account, acme)
    after = subscription_form(plan, starts_at_0="2026-03-01")
    told = owner.post(f"{SUBSCRIPTIONS}/add/", after, follow=True).content.decode()
    assert "wallet could not follow this change" in words(told)
    assert owner.post(f"{SUBSCRIPTIONS}/{made.id}/delete/", {"post": "yes"}).status_code == 302
    with account.scope():
        assert not Subscription.objects.exists()


def test_who_may_not_bill_changes_nothing(
    account: Account, as_role: Callable[[Role], Client]
) -> None:
    acme, viewer = make_customer(account), as_role(Role.VIEWER)
    assert viewer.post(f"{CUSTOMERS}/add/", customer_form(key="b")).status_code == 403
    assert viewer.post(f"{CUSTOMERS}/{acme.id}/change/", customer_form()).status_code == 403
    assert viewer.post(f"{CUSTOMERS}/{acme.id}/delete/", {"post": "yes"}).status_code == 403
