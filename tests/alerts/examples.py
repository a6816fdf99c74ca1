"""Incidents to look at, made by the domain's own functions."""

from datetime import UTC, datetime
from typing import Any

from alerts.incidents import observe
from alerts.models import Anomaly, Incident
from tests.alerts.scene import seen
from tests.factories import NANOS, Account


def make_incident(account: Account, **fields: Any) -> Incident:
    """An agent that costs more than usual, unless told otherwise."""
    observation = seen(
        **{
            "title": "Agent 'researcher' costs 12 times the usual",
            "match": {"agent": "researcher"},
            "facts": {"cost_nanos": 12_500_000_000, "usual": {"hour_nanos": NANOS}, "requests": 40},
            "excess_nanos": 11_500_000_001,
            **fields,
        }
    )
    with account.scope():
        return observe(tenant_id=account.tenant.id, observation=observation)


def make_anomaly(account: Account, incident: Incident, **fields: object) -> Anomaly:
    """What the scans leave for an incident to show."""
    now = datetime.now(UTC)
    with account.scope():
        return Anomaly.objects.create(
            **{
                "tenant": account.tenant,
                "incident": incident,
                "dimension": "agent",
                "value": "researcher",
                "measure": "cost",
                "is_above": True,
                "began_at": now,
                "seen_at": now,
                "score": 8.5,
                "actual": 12.5 * NANOS,
                "expected": 1.0 * NANOS,
                "excess_nanos": 11_500_000_001,
                **fields,
            }
        )
