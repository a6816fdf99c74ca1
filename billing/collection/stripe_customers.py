"""A customer's counterpart at Stripe: the one that is named, or one that is made."""

from datetime import timedelta
from typing import Final

from django.utils import timezone

from billing.collection.claims import ClaimedInvoice
from billing.models import StripeAccount
from billing.stripe_gateway import Rejected, StripeGateway
from common.json_bodies import JsonObject
from tenants.scope import tenant_scope

CUSTOMER_MARK: Final = "spendgate_customer"
# By so much Stripe's clock may differ from this machine's, should that be set wrongly.
CLOCKS_APART: Final = timedelta(days=2)


def ensure_customer(claimed: ClaimedInvoice, gateway: StripeGateway) -> str:
    """Return the id of the account's customer at Stripe; make one if there is none.

    Where making one had no answer, it is looked for first. Should it not be found, as after the
    customer's mail address was changed, one without invoices is left behind.
    """
    account = claimed.account
    named = account.customer.stripe_customer
    if named:
        return named
    if account.stripe_customer:
        return account.stripe_customer
    stripe_id = None if account.asked_at is None else _find(account, gateway)
    if stripe_id is None:
        _keep(account, asked_at=account.asked_at or timezone.now())
        given = _given(account)
        stripe_id = gateway.create_customer(given, key=claimed.key("customer")).id
    _keep(account, stripe_customer=stripe_id)
    return stripe_id


def _mark(account: StripeAccount) -> str:
    return f"{account.tenant_id}:{account.customer_id}"


def _find(account: StripeAccount, gateway: StripeGateway) -> str | None:
    assert account.asked_at is not None, "Stripe was asked before"
    since = int((account.asked_at - CLOCKS_APART).timestamp())
    try:
        listed = gateway.list_customers(since=since, email=account.customer.email)
        for customer in listed:
            if (customer.metadata or {}).get(CUSTOMER_MARK) == _mark(account):
                return customer.id
    except Rejected:
        return None  # there are more customers than can be searched
    return None


def _given(account: StripeAccount) -> JsonObject:
    customer = account.customer
    given: JsonObject = {
        "name": customer.name,
        "metadata": {CUSTOMER_MARK: _mark(account), "spendgate_key": customer.key},
    }
    if customer.email:
        given["email"] = customer.email
    return given


def _keep(account: StripeAccount, **changes: object) -> None:
    with tenant_scope(account.tenant_id):
        StripeAccount.objects.filter(id=account.id).update(**changes)
    for name, value in changes.items():
        setattr(account, name, value)
