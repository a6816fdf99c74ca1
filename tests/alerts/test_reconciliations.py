"""Reconciliations that differ too much become incidents, and end with one that agrees."""

from datetime import UTC, date, datetime, timedelta

from alerts.models import DeliveryEvent, Incident, IncidentKind
from alerts.tasks import notify
from billing.models import Reconciliation
from billing.reconciliation import runs
from billing.tasks_reconciliation import reconcile
from tests.alerts.scene import make_channel
from tests.billing.bills import anthropic_bucket, anthropic_page, import_for
from tests.factories import NANOS, Account, make_event, send

DAY = datetime.now(UTC).date() - timedelta(days=2)


def bill(account: Account, cents: str) -> None:
    import_for(account, anthropic_page(anthropic_bucket(DAY, [("claude-sonnet-4-5", cents)])))


def compare(account: Account, first: date = DAY, last: date = DAY, *kinds: str) -> Reconciliation:
    """Let workers compare these days, and tell of what they found."""
    with account.scope():
        row = runs.start_reconciliation(
            tenant=account.tenant,
            actor="tests",
            first_day=first,
            last_day=last,
            kinds=kinds or ["providers"],
        )
    reconcile()
    notify()
    return row


def incidents(account: Account) -> list[Incident]:
    with account.scope():
        return list(Incident.objects.order_by("id"))


def use(account: Account) -> None:
    send(account, [make_event(time=f"{DAY}T12:00:00Z", input_tokens=1000, output_tokens=100)])


def test_beyond_the_threshold_is_one_incident_until_the_same_days_agree(account: Account) -> None:
    make_channel(account)
    use(account)
    bill(account, "200.45")
    row = compare(account)
    (incident,) = incidents(account)
    assert (incident.kind, incident.severity, incident.resolved_at) == (
        IncidentKind.RECONCILIATION,
        "warning",
        None,
    )
    assert incident.title == "Providers' bills differ from the cost of usage"
    assert incident.summary == (
        f"1 of 1 figures from {DAY} to {DAY} differ, by 2 USD together. The largest:"
        f" claude-sonnet-4-5 of anthropic on {DAY}, 2 USD more than expected."
        f" See /v1/reconciliations/{row.id}/drifts."
    )
    assert incident.excess_nanos == 2 * NANOS
    with account.scope():
        assert incident.delivery_set.get().event == DeliveryEvent.OPENED
    # Of more days, and not again of what was looked at.
    compare(account, DAY - timedelta(days=1))
    notify()
    (incident,) = incidents(account)
    assert (incident.observations, incident.facts["first_day"]) == (
        2,
        (DAY - timedelta(days=1)).isoformat(),
    )
    bill(account, "0.45")
    # That the last day agrees says nothing of the one before.
    compare(account)
    assert incidents(account)[0].resolved_at is None
    compare(account, DAY - timedelta(days=1))
    (incident,) = incidents(account)
    assert incident.resolved_at is not None


def test_what_is_let_pass_and_what_is_not_connected_is_no_incident(account: Account) -> None:
    use(account)
    bill(account, "100.45")
    compare(account, DAY, DAY, "providers", "stripe")
    assert incidents(account) == []
    with account.scope():
        settings = {"threshold_nanos": NANOS - 1}
        runs.change_settings(tenant=account.tenant, actor="tests", changes=settings)
        assert not Reconciliation.objects.filter(judged_at=None).exists()
    compare(account)
    assert len(incidents(account)) == 1
