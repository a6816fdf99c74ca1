"""Credit on pages: grants, wallets, coupons, credit notes, and who may change them."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from billing.models import Coupon, CreditGrant, CreditNote, Customer, Wallet
from metering.models import Budget
from tenants.roles import SCOPES_BY_ROLE, Role, Scope
from tests.billing.credit_scene import charge, make_grant, make_wallet
from tests.billing.scene import PER_REQUEST, make_customer, make_plan, month_start, put_on
from tests.cases import each_case
from tests.dashboard.billing.reading import words
from tests.dashboard.conftest import sign_in
from tests.dashboard.test_enforcement_pages import page
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account

BILLERS = frozenset(role for role in Role if Scope.BILLING in SCOPES_BY_ROLE[role])


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


def test_the_page_says_what_is_left_and_what_expires(
    account: Account, owner: Client, acme: Customer
) -> None:
    euro = make_customer(account, key="euro", currency="EUR")
    soon = datetime.now(UTC) + timedelta(days=10)
    make_grant(account, acme, 50_000, expires_at=soon, reference="Payment 7", priority=3)
    make_grant(account, euro, 1_005)
    text = page(owner, "/customers/credits")
    assert "Customers have €10.05 and $500.00 of prepaid credit" in words(text)
    figures = re.findall(r'<dd class="value">(.*?)</dd>', text)
    values = [re.findall(r'<data value="([^"]*)"', figure) for figure in figures]
    assert values[0] == ["10.05", "500.00"]
    assert values[1] == ["500.00"]
    assert "Payment 7" in words(text)
    result = page(owner, "/customers/credits?q=eur")
    assert "Payment 7" not in words(result)
    assert "Euro" in words(result)


def test_credit_is_granted_and_taken_back(account: Account, owner: Client, acme: Customer) -> None:
    assert 'value="acme"' in page(owner, "/customers/credits/new?customer=acme")
    sent = {"customer": "acme", "amount": "500.5", "kind": "paid", "priority": "50"}
    answer = owner.post("/customers/credits/new", sent)
    assert answer["Location"] == f"/customers/{acme.id}"
    with account.scope():
        grant = CreditGrant.objects.get(customer=acme)
    assert (grant.amount, grant.balance, grant.kind) == (50_050, 50_050, "paid")
    path = f"/customers/credits/{grant.id}/void"
    too_much = owner.post(path, {"amount": "600", "reason": "mistake"}).content.decode()
    assert "less to take back than that" in words(too_much)
    owner.post(path, {"amount": "100.5", "reason": "mistake"})
    with account.scope():
        assert CreditGrant.objects.get(id=grant.id).balance == 40_000
    owner.post(path, {"amount": "", "reason": "mistake"})
    with account.scope():
        assert CreditGrant.objects.get(id=grant.id).balance == 0


@each_case(
    ("change", "fault"),
    [
        ({"amount": "1.005"}, "Must have at most 2 decimals in USD."),
        ({"amount": "1,000"}, "commas could mean thousands"),
        ({"customer": "nobody"}, "There is no customer with this key."),
        ({"expires_at": "2020-01-01T00:00"}, "Must be after the credit takes effect."),
        ({"rollover_percent": "50"}, "Only credit that expires is rolled over."),
    ],
)
def test_a_grant_that_cannot_be_stands_at_its_field(
    account: Account, owner: Client, acme: Customer, change: dict[str, str], fault: str
) -> None:
    sent = {"customer": "acme", "amount": "5", "kind": "paid", "priority": "50", **change}
    assert fault in words(owner.post("/customers/credits/new", sent).content.decode())
    with account.scope():
        assert not CreditGrant.objects.exists()


def test_a_wallet_is_opened_shown_and_ended(
    account: Account, owner: Client, acme: Customer
) -> None:
    make_grant(account, acme, 10_000)
    owner.post("/customers/wallets/new", {"customer": "acme"})
    with account.scope():
        wallet = Wallet.objects.select_related("budget").get()
    assert wallet.budget.limit_cost_nanos == 100 * 10**9
    again = owner.post("/customers/wallets/new", {"customer": "acme"}).content.decode()
    assert "The customer has a wallet already." in words(again)
    listed = words(page(owner, "/customers/credits?show=wallets"))
    assert "0% used $0.00 of $100.00 at cost" in listed
    own = words(page(owner, f"/customers/{acme.id}"))
    assert "calls are held to it" in own
    assert "0% used" in own
    budget = page(owner, f"/budgets/{wallet.budget_id}")
    assert "Managed by Acme" in words(budget)
    assert f'href="/customers/{acme.id}"' in budget
    for verb in ("Raise limit", "Archive budget"):
        assert verb not in words(budget)
    assert owner.get(f"/budgets/{wallet.budget_id}/edit").status_code == 404
    assert owner.get(f"/enforcement/requests/new?budget={wallet.budget_id}").status_code == 404
    owner.post(f"/customers/wallets/{wallet.id}/end")
    with account.scope():
        assert Wallet.objects.get(id=wallet.id).ended_at is not None
        assert Budget.objects.get(id=wallet.budget_id).archived_at is not None
    assert "ended" in words(page(owner, "/customers/credits?show=wallets"))


def test_the_levels_of_a_wallet_are_changed(
    account: Account, owner: Client, acme: Customer
) -> None:
    wallet = make_wallet(account, acme)
    path = f"/customers/wallets/{wallet.id}/levels"
    assert f'href="{path}"' in page(owner, f"/customers/{acme.id}")
    shown = re.search(r"<textarea[^>]*>(.*?)</textarea>", page(owner, path), re.S)
    assert shown is not None
    assert shown[1].split() == ["80", "100"]
    for wrong, reason in (
        ("50\n50%", "Write each percentage once."),
        ("finance 50", "Begin with a percentage from 1 to 100: “finance 50”."),
        ("101", "Begin with a percentage"),
        ("\N{FULLWIDTH DIGIT FIVE}", "Begin with a percentage"),
    ):
        assert reason in words(owner.post(path, {"levels": wrong}).content.decode())
    answer = owner.post(path, {"levels": "50 finance, team_lead\r\n\r\n100% finance"})
    assert answer["Location"] == f"/customers/{acme.id}"
    with account.scope():
        levels = wallet.budget.levels.order_by("percent")
        assert [(each.percent, each.action, each.notify) for each in levels] == [
            (50, "none", ["finance", "team_lead"]),
            (100, "block", ["finance"]),
        ]
    owner.post(f"/customers/wallets/{wallet.id}/end")
    assert owner.get(path).status_code == 404


def test_a_wallet_that_cannot_be_says_why(account: Account, owner: Client, acme: Customer) -> None:
    put_on(account, acme, make_plan(account, PER_REQUEST), month_start(0))
    refused = owner.post("/customers/wallets/new", {"customer": "acme"}).content.decode()
    assert "“Requests” is not charged as cost-plus" in words(refused)
    with account.scope():
        assert not Wallet.objects.exists()


def test_a_coupon_is_given_and_ended(account: Account, owner: Client, acme: Customer) -> None:
    both = {"customer": "acme", "name": "Launch", "percent": "10", "amount": "5"}
    refused = words(owner.post("/customers/coupons/new", both).content.decode())
    assert "Give a percentage or an amount, and not both." in refused
    owner.post("/customers/coupons/new", {**both, "amount": "", "statements_max": "3"})
    with account.scope():
        coupon = Coupon.objects.get()
    assert (str(coupon.percent), coupon.amount, coupon.statements_max) == ("10.0000", None, 3)
    listed = words(page(owner, "/customers/credits?show=coupons"))
    assert "10% off, 0 of 3 statements used" in listed
    owner.post(f"/customers/coupons/{coupon.id}/end")
    with account.scope():
        assert Coupon.objects.get(id=coupon.id).ends_at is not None
    assert "End this coupon?" not in words(page(owner, f"/customers/{acme.id}"))


def test_a_credit_note_gives_back_an_amount_and_then_the_rest(
    account: Account, owner: Client, acme: Customer
) -> None:
    statement = charge(account, acme, 11_900, taxes=(("VAT", "19", 1_900),))
    shown = page(owner, f"/statements/{statement.id}")
    path = f"/customers/credit-notes/new/{statement.id}"
    assert f'href="{path}"' in shown
    assert "Void statement" in words(shown)
    assert "$100.00 before tax are left" in words(page(owner, path))
    refused = owner.post(path, {"amount": "100.01", "reason": "outage"}).content.decode()
    assert "no more than is left of the statement" in words(refused)
    zero = owner.post(path, {"amount": "0", "reason": "outage"}).content.decode()
    assert "Give more than 0" in words(zero)
    owner.post(path, {"amount": "30", "reason": "outage"})
    owner.post(path, {"amount": "", "reason": "the rest"})
    with account.scope():
        notes = CreditNote.objects.filter(statement=statement).order_by("id")
        assert [(note.net, note.total) for note in notes] == [(3_000, 3_570), (7_000, 8_330)]
    shown = words(page(owner, f"/statements/{statement.id}"))
    assert "CN-000002" in shown
    assert "Write a credit note" not in shown
    assert "Void statement" not in shown
    assert "Unused credit notes $119.00" in words(page(owner, "/customers/credits?show=notes"))


@pytest.mark.parametrize("role", list(Role))
def test_who_may_change_credit(
    account: Account, as_role: Callable[[Role], Client], acme: Customer, role: Role
) -> None:
    grant = make_grant(account, acme, 1_000)
    wallet = make_wallet(account, acme)
    client = as_role(role)
    text = page(client, "/customers/credits")
    assert ("Grant credit" in words(text)) is (role in BILLERS)
    forms = ("/customers/credits/new", "/customers/wallets/new", "/customers/coupons/new")
    own = (f"/customers/credits/{grant.id}/void", f"/customers/wallets/{wallet.id}/levels")
    for path in (*forms, *own):
        assert client.get(path).status_code == (200 if role in BILLERS else 403), path
    ended = client.post(f"/customers/wallets/{wallet.id}/end").status_code
    assert ended == (302 if role in BILLERS else 403)


def test_credit_is_not_for_members_of_teams_or_other_tenants(
    account: Account, stranger: Account, acme: Customer
) -> None:
    grant = make_grant(account, acme, 1_000)
    wallet = make_wallet(account, acme)
    statement = charge(account, acme, 500)
    client = sign_in(make_team_member(account, Role.ENGINEER, "own"))
    assert client.get("/customers/credits").status_code == 403
    other = sign_in(stranger.email)
    assert "No customer has prepaid credit" in words(page(other, "/customers/credits"))
    for path in (
        f"credits/{grant.id}/void",
        f"wallets/{wallet.id}/levels",
        f"credit-notes/new/{statement.id}",
    ):
        assert other.get(f"/customers/{path}").status_code == 404
    assert other.post(f"/customers/wallets/{wallet.id}/end").status_code == 404
    sent = {"customer": "acme", "amount": "5", "kind": "paid", "priority": "50"}
    refused = other.post("/customers/credits/new", sent).content.decode()
    assert "There is no customer with this key." in words(refused)
