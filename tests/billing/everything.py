"""A row in every table of billing."""

from datetime import UTC, datetime, timedelta

from billing.models import BillingSettings
from billing.tasks_reconciliation import reconcile
from tests.billing.bills import anthropic_bucket, anthropic_page, import_for
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
    _reconcile(account)


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
