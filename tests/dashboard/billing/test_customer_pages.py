"""Customers: what is earned on each, whose usage is whose, and who may see and change it."""

import csv
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from billing.models import Customer, CustomerLink, Subscription
from tenants.roles import SCOPES_BY_ROLE, Role, Scope
from tests.billing.scene import (
    PER_REQUEST,
    Billed,
    make_customer,
    make_plan,
    month_start,
    put_on,
)
from tests.dashboard.billing.reading import words
from tests.dashboard.conftest import sign_in
from tests.dashboard.test_enforcement_pages import page
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account, make_event, send

BILLERS = frozenset(role for role in Role if Scope.BILLING in SCOPES_BY_ROLE[role])


def fee(amount: str) -> dict[str, str]:
    return {"name": "Fee", "kind": "flat", "amount": amount, "when": "advance"}


def use(account: Account, cost_usd: str, **dimensions: str) -> None:
    # A moment ago may be last month.
    at = max(month_start(0), datetime.now(UTC) - timedelta(minutes=1))
    send(account, [make_event(time=at.isoformat(), cost_usd=cost_usd, **dimensions)])


@pytest.fixture
def shop(account: Account) -> dict[str, Customer]:
    """One customer earns $60, one loses $15, one is on no plan; $4 are nobody's."""
    made = {key: make_customer(account, key=key) for key in ("acme", "borealis", "cumulus")}
    put_on(account, made["acme"], make_plan(account, fee("100")), month_start(0))
    put_on(account, made["borealis"], make_plan(account, fee("10")), month_start(0))
    use(account, "40", customer="acme")
    use(account, "25", customer="borealis")
    use(account, "6", customer="cumulus")
    use(account, "4", feature="review")
    return made


def test_the_headline_is_the_margin_and_who_loses(owner: Client, shop: dict[str, Customer]) -> None:
    text = page(owner, "/customers")
    # 110 less 75: what is not billed and what is nobody's costs too.
    assert "Gross margin is 32% this month. 1 customer costs more than it pays." in words(text)
    figures = re.findall(r'<dd class="value[^"]*">(?:<a[^>]*>)?<data value="([^"]*)"', text)
    assert figures == ["35", "110", "75", "23.666666666", "4"]
    assert "Borealis loses $15" in words(text)
    assert f"/customers/{shop['borealis'].id}/plan" in text
    assert "start=customer&amp;customer=borealis" in text


def test_the_file_adds_up_to_the_page(owner: Client, shop: dict[str, Customer]) -> None:
    rows = list(csv.DictReader(io.StringIO(owner.get("/customers.csv").content.decode())))
    assert [
        (row["customer"], row["revenue"], row["cost_usd"], row["margin_usd"]) for row in rows
    ] == [
        ("acme", "100", "40", "60"),
        ("borealis", "10", "25", "-15"),
        ("cumulus", "0", "6", "-6"),
        ("", "0", "4", "-4"),
    ]


def test_a_customer_in_another_currency_has_no_margin(account: Account, owner: Client) -> None:
    customer = make_customer(account, key="euro", currency="EUR")
    put_on(account, customer, make_plan(account, fee("50"), currency="EUR"), month_start(0))
    use(account, "3", customer="euro")
    text = words(page(owner, "/customers"))
    assert "€50.00" in text
    assert "other currency" in text
    assert "without 1 in other currencies" in text


def test_many_customers_are_rated_after_the_page(
    account: Account, owner: Client, shop: dict[str, Customer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.billing.customers.AT_ONCE_MAX", 2)
    shell = page(owner, "/customers")
    assert "3 customers cost $75" in words(shell)
    assert 'hx-get="/customers/costliest?"' in shell
    first = page(owner, "/customers/costliest")
    assert 'hx-get="/customers/figures?page=1"' in first
    found = re.findall(r'class="name" href="/customers/(\d+)"', first)
    assert found == [str(shop[key].id) for key in ("acme", "borealis", "cumulus")]
    # Revenue, cost and margin of each.
    assert "$100.00 $40.00 $60.00 60%" in words(first)
    assert "$10.00 $25.00" in words(first)
    assert 'hx-get="/customers/figures?order=margin&amp;page=1"' in page(
        owner, "/customers?order=margin"
    )
    part = page(owner, "/customers/figures?page=1")
    assert "Gross margin is 32% this month." in words(part)
    assert 'hx-swap-oob="true"' in part
    monkeypatch.setattr("dashboard.billing.customers.RATED_MAX", 2)
    assert "/v1/margins" in words(page(owner, "/customers/figures?page=1"))
    assert owner.get("/customers.csv").status_code == 302


def test_search_order_and_pages(owner: Client, shop: dict[str, Customer]) -> None:
    result = page(owner, "/customers?q=CUM&order=margin")
    assert re.findall(r'href="/customers/(\d+)"', result) == [str(shop["cumulus"].id)]
    by_margin = page(owner, "/customers?order=margin")
    table = by_margin[by_margin.index("table-title") :]
    ids = [int(each) for each in re.findall(r'class="name" href="/customers/(\d+)"', table)]
    assert ids == [shop[key].id for key in ("borealis", "cumulus", "acme")]


def test_a_customers_page_shows_charges_and_statements(
    owner: Client, shop: dict[str, Customer]
) -> None:
    text = words(page(owner, f"/customers/{shop['acme'].id}"))
    assert "Acme pays $100.00 and costs $40.00 this month: 60% margin" in text
    assert "$100.00, in advance" in text
    assert "draft" in text


@pytest.mark.parametrize("role", list(Role))
def test_who_may_change_customers(
    account: Account, as_role: Callable[[Role], Client], shop: dict[str, Customer], role: Role
) -> None:
    client, customer = as_role(role), shop["acme"]
    assert client.get("/customers").status_code == 200
    expected = 200 if role in BILLERS else 403
    for path in ("/customers/new", f"/customers/{customer.id}/edit", "/plans/new"):
        assert client.get(path).status_code == expected, path
    assert client.post(f"/customers/{customer.id}/archive").status_code == (
        302 if role in BILLERS else 403
    )
    with account.scope():
        assert (Customer.objects.get(id=customer.id).archived_at is not None) is (role in BILLERS)


def test_a_member_of_a_team_sees_no_customers(account: Account, shop: dict[str, Customer]) -> None:
    client = sign_in(make_team_member(account, Role.ENGINEER, "own"))
    for path in ("/customers", "/customers.csv", "/customers/unassigned", "/plans"):
        assert client.get(path).status_code == 403, path
    assert client.get(f"/customers/{shop['acme'].id}").status_code == 403
    assert "/customers" not in page(client, "/")


def test_customers_of_another_tenant_are_not_found(
    stranger: Account, shop: dict[str, Customer]
) -> None:
    client = sign_in(stranger.email)
    for path in ("", "/edit", "/plan", "/links/new"):
        assert client.get(f"/customers/{shop['acme'].id}{path}").status_code == 404
    assert "No customers yet" in words(page(client, "/customers"))


def test_a_customer_is_added_and_changed(account: Account, owner: Client) -> None:
    sent = {
        "name": "Delta",
        "key": "delta",
        "currency": "usd",
        "timezone": "UTC",
        "country": "de",
        "payment_terms_days": "14",
        "tax_rates": "VAT 19\nCity tax 0.5",
    }
    answer = owner.post("/customers/new", sent)
    with account.scope():
        customer = Customer.objects.get(key="delta")
    assert answer["Location"] == f"/customers/{customer.id}"
    assert (customer.currency, customer.country) == ("USD", "DE")
    assert customer.tax_rates == [
        {"name": "VAT", "percent": "19"},
        {"name": "City tax", "percent": "0.5"},
    ]
    refused = owner.post(f"/customers/{customer.id}/edit", {**sent, "tax_rates": "VAT"})
    assert "as in VAT 19" in refused.content.decode()


@pytest.mark.parametrize("year", ["9999", "2201", "1969", "0001"])
def test_a_time_that_nothing_can_be_reckoned_with_is_refused(
    account: Account, owner: Client, year: str
) -> None:
    acme = make_customer(account, timezone="Asia/Kathmandu")
    sent = {"dimension": "team", "value": "blue", "starts_at": f"{year}-06-30T00:00"}
    refused = owner.post(f"/customers/{acme.id}/links/new", sent)
    assert "Must lie in the years 1970 to 2200." in words(refused.content.decode())
    with account.scope():
        assert acme.links.count() == 1


def test_usage_of_nobody_is_assigned_in_one_step(
    account: Account, owner: Client, shop: dict[str, Customer]
) -> None:
    text = words(page(owner, "/customers/unassigned?by=feature"))
    assert "$4.00 this month has no customer" in text
    sent = {"dimension": "feature", "value": "review", "customer": "cumulus"}
    owner.post("/customers/unassigned/assign", sent)
    with account.scope():
        link = CustomerLink.objects.get(customer=shop["cumulus"], dimension="feature")
    assert (link.value, link.starts_at) == ("review", None)
    assert "All usage this month has a customer" in words(page(owner, "/customers/unassigned"))
    owner.post(f"/customers/{shop['cumulus'].id}/links/{link.id}/end")
    with account.scope():
        ended = CustomerLink.objects.get(customer=shop["cumulus"], dimension="feature")
    assert ended.ends_at is not None


def test_a_plan_is_changed_from_a_moment_on(
    account: Account, owner: Client, shop: dict[str, Customer]
) -> None:
    plan = make_plan(account, fee("30"), name="Better")
    path = f"/customers/{shop['borealis'].id}/plan"
    preview = owner.post(f"{path}/preview", {"plan": str(plan.id)}).content.decode()
    assert "This plan would have billed $30.00" in words(preview)
    owner.post(path, {"plan": str(plan.id), "starts_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M}"})
    with account.scope():
        names = Subscription.objects.filter(customer=shop["borealis"]).order_by("starts_at")
        assert [each.plan.name for each in names][-1] == "Better"
        running = names.last()
    assert running is not None
    owner.post(f"/customers/{shop['borealis'].id}/subscriptions/{running.id}/end")
    with account.scope():
        assert Subscription.objects.get(id=running.id).ends_at is not None


def test_a_limit_for_a_customer_begins_with_its_match(owner: Client) -> None:
    text = page(owner, "/budgets/new?start=customer&customer=acme")
    assert 'value="acme, monthly"' in text
    assert re.search(r"<textarea[^>]*>\s*acme</textarea>", text)


def test_no_page_of_billing_is_for_members_of_a_team(account: Account) -> None:
    billed = Billed.on(account, PER_REQUEST, since=month_start(1))
    final = billed.finalize(month_start(1)).statement
    client = sign_in(make_team_member(account, Role.VIEWER, "own"))
    for path in (
        *("/statements", f"/statements/{final.id}", f"/statements/{final.id}/print"),
        *(f"/statements/{final.id}.csv", "/customers/figures", "/plans/figures"),
    ):
        assert client.get(path).status_code == 403, path


def test_a_form_says_once_in_which_zone_its_times_are(
    shop: dict[str, Customer], owner: Client
) -> None:
    told = words(page(owner, f"/customers/{shop['borealis'].id}/plan"))
    assert told.count("Time in UTC.") == 1
