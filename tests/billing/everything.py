"""A row in every table of billing."""

from billing.models import BillingSettings
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
