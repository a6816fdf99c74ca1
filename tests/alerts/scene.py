"""What the tests of alerts share: channels and observations, made by the domain's functions."""

from collections.abc import Sequence
from typing import Any, Final

from alerts.channel_settings import create_channel
from alerts.incidents import Observation
from alerts.models import Channel, Delivery, Incident, IncidentKind, Severity
from common.json_bodies import JsonObject
from tests.factories import Account

FIELDS: Final[dict[str, JsonObject]] = {
    "webhook": {"url": "https://hooks.example.com/spendgate"},
    "slack": {
        "url": "https://hooks.slack.com/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx"
    },
    "pagerduty": {"routing_key": "0123456789abcdef0123456789abcdef"},
}


def make_channel(account: Account, kind: str = "webhook", **fields: Any) -> Channel:
    """A channel that takes what its kind takes, unless told otherwise."""
    with account.scope():
        return create_channel(
            tenant=account.tenant,
            actor="tests",
            kind=kind,
            name=fields.pop("name", f"{kind} channel"),
            fields=fields.pop("fields", FIELDS.get(kind)),
            **fields,
        )


def seen(cause: str = "anomaly:agent=a", **fields: Any) -> Observation:
    """A warning about agent a, unless told otherwise."""
    values: JsonObject = {
        "kind": IncidentKind.ANOMALY,
        "cause": cause,
        "severity": Severity.WARNING,
        "title": "Agent 'a' costs 12 times the usual",
        "summary": "It cost $12 in a quarter of an hour; $1 was expected.",
        "match": {"agent": "a"},
        "facts": {"actual_nanos": 12_000_000_000},
        **fields,
    }
    return Observation(**values)


def timeline(incident: Incident) -> list[str]:
    """The kinds of an incident's entries, in order."""
    return [str(kind) for kind in incident.entries.order_by("id").values_list("kind", flat=True)]


def told(account: Account) -> Sequence[tuple[str, str, str, str]]:
    """All deliveries in order: channel (or the recipients), event, state, and what holds it."""
    rows = Delivery.objects.filter(tenant=account.tenant).order_by("id").select_related("channel")
    return [
        (
            row.channel.name if row.channel else ",".join(row.recipients),
            row.event,
            row.state,
            row.held_by,
        )
        for row in rows
    ]
