"""The admin of prepaid credit and coupons."""

import uuid
from collections.abc import Callable

import pytest
from django.test import Client

from billing.models import Coupon, CreditEntry, CreditGrant, Customer
from tenants.roles import Role
from tests.billing.credit_scene import make_grant
from tests.billing.scene import make_customer
from tests.dashboard.test_admin import errors_of
from tests.factories import Account

GRANTS = "/admin/billing/creditgrant"
COUPONS = "/admin/billing/coupon"


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


def grant_form(**fields: object) -> dict[str, object]:
    return {
        "form_token": uuid.uuid4().hex,
        "customer": "acme",
        "amount": "100.50",
        "kind": "paid",
        "priority": "50",
        "expires_at_0": "2100-01-01",
        "expires_at_1": "00:00:00",
        "rollover_percent": "50",
        "rollover_max": "20",
        "rollover_months": "1",
        "reference": "INV-7",
        **fields,
    }


def test_credit_is_granted_shown_and_taken_back(
    account: Account, owner: Client, acme: Customer
) -> None:
    assert owner.post(f"{GRANTS}/add/", grant_form()).status_code == 302
    with account.scope():
        grant = CreditGrant.objects.get(customer=acme)
    assert (grant.amount, grant.balance, grant.rollover_max) == (10050, 10050, 2000)
    assert "$100.50" in owner.get(f"{GRANTS}/").content.decode()
    page = owner.get(f"{GRANTS}/{grant.id}/change/").content.decode()
    assert "Granted $100.50" in page
    assert "Take credit back" in page
    assert owner.post(f"{GRANTS}/{grant.id}/delete/", {"post": "yes"}).status_code == 302
    with account.scope():
        assert list(CreditEntry.objects.values_list("kind", "amount")) == [
            ("granted", 10050),
            ("voided", -10050),
        ]
    assert "Take credit back" not in owner.get(f"{GRANTS}/{grant.id}/change/").content.decode()


@pytest.mark.parametrize(
    "fields",
    [{"customer": "nobody"}, {"amount": "1.005"}, {"amount": "0"}, {"expires_at_0": "2000-01-01"}],
)
def test_wrong_credit_is_refused_at_its_field(
    account: Account, owner: Client, acme: Customer, fields: dict[str, str]
) -> None:
    answer = owner.post(f"{GRANTS}/add/", grant_form(**fields))
    assert answer.status_code == 200
    assert errors_of(answer)
    with account.scope():
        assert not CreditGrant.objects.exists()


def test_a_coupon_is_given_and_ended(account: Account, owner: Client, acme: Customer) -> None:
    form = {"form_token": uuid.uuid4().hex, "customer": "acme", "name": "Launch"}
    both = {**form, "percent": "10", "amount": "5"}
    assert owner.post(f"{COUPONS}/add/", both).status_code == 200
    assert owner.post(f"{COUPONS}/add/", {**form, "percent": "10"}).status_code == 302
    with account.scope():
        coupon = Coupon.objects.get()
    assert "10%" in owner.get(f"{COUPONS}/").content.decode()
    assert owner.post(f"{COUPONS}/{coupon.id}/delete/", {"post": "yes"}).status_code == 302
    with account.scope():
        assert Coupon.objects.get().ends_at is not None


def test_members_who_do_not_bill_see_no_credit(
    account: Account, acme: Customer, as_role: Callable[[Role], Client]
) -> None:
    viewer = as_role(Role.VIEWER)
    grant = make_grant(account, acme, 500)
    assert viewer.get(f"{GRANTS}/{grant.id}/change/").status_code == 403
    assert viewer.post(f"{GRANTS}/add/", grant_form()).status_code == 403
    assert viewer.post(f"{GRANTS}/{grant.id}/delete/", {"post": "yes"}).status_code == 403
