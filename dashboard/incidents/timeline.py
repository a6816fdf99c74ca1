"""What happened to an incident: what the service saw, who did what, and who was told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from alerts.channels import KINDS
from alerts.models import Delivery, DeliveryState, EntryKind, HeldBy, Incident, IncidentEntry

ENTRY_WORDS: Final = {
    EntryKind.OPENED: "Opened",
    EntryKind.UPDATED: "Update",
    EntryKind.ESCALATED: "Became more severe",
    EntryKind.REOPENED: "Still ongoing",
    EntryKind.ACKNOWLEDGED: "Acknowledged",
    EntryKind.ASSIGNED: "Assigned",
    EntryKind.SNOOZED: "Snoozed",
    EntryKind.COMMENTED: "Comment",
    EntryKind.NOTIFIED: "Notified",
    EntryKind.NOT_NOTIFIED: "No one was notified",
    EntryKind.HALTED: "Halted",
    EntryKind.RESOLVED: "Resolved",
}
HELD_WORDS: Final = {
    HeldBy.QUIET_HOURS: "quiet hours",
    HeldBy.MAINTENANCE: "maintenance",
    HeldBy.COOL_DOWN: "notified a moment ago",
    HeldBy.BURST: "too many messages",
}
# The newest of them; an incident that lasts for months has more than anyone reads.
ENTRIES_MAX: Final = 300
DELIVERIES_MAX: Final = 200


@dataclass(frozen=True)
class DeliveryLine:
    """A delivery as pages show it."""

    row: Delivery

    @property
    def whom(self) -> str:
        if self.row.channel is not None:
            return f"{self.row.channel.name} ({KINDS[self.row.channel.kind].label})"
        return ", ".join(self.row.recipients)

    @property
    def is_waiting(self) -> bool:
        return self.row.state == DeliveryState.WAITING

    @property
    def is_dead(self) -> bool:
        return self.row.state == DeliveryState.DEAD

    @property
    def held_words(self) -> str:
        """Why it waits although nothing failed; empty where it is not held."""
        return HELD_WORDS[HeldBy(self.row.held_by)] if self.row.held_by else ""

    @property
    def state_words(self) -> str:
        """Where it stands."""
        if self.is_waiting:
            return "Held" if self.row.held_by else "Retrying" if self.row.attempts else "Sending"
        return {
            DeliveryState.SENT: "Delivered",
            DeliveryState.DEAD: "Failed",
            DeliveryState.SUPERSEDED: "No longer needed",
        }[DeliveryState(self.row.state)]


class TimelineLine(NamedTuple):
    """One line: an entry, or a delivery."""

    at: datetime
    words: str
    entry: IncidentEntry | None = None
    delivery: DeliveryLine | None = None


def timeline_of(incident: Incident) -> list[TimelineLine]:
    """What happened, the newest first."""
    deliveries = deliveries_of(incident)
    # An entry that says who was told follows its deliveries, which say more; it is all that is left
    # when these are forgotten, the oldest first.
    told_since = min((delivery.row.created_at for delivery in deliveries), default=None)
    entries = incident.entries.order_by("-id")[:ENTRIES_MAX]
    lines = [
        TimelineLine(entry.at, ENTRY_WORDS[EntryKind(entry.kind)], entry=entry)
        for entry in entries
        if entry.kind != EntryKind.NOTIFIED or told_since is None or entry.at < told_since
    ]
    lines += [
        TimelineLine(delivery.row.created_at, "Notified", delivery=delivery)
        for delivery in deliveries
    ]
    # Of one moment, what was seen comes before who was told of it.
    return sorted(lines, key=lambda line: (line.at, line.delivery is not None), reverse=True)


def deliveries_of(incident: Incident) -> Sequence[DeliveryLine]:
    """Messages about an incident, the newest first."""
    rows = Delivery.objects.filter(tenant_id=incident.tenant_id, incident=incident)
    return [
        DeliveryLine(row) for row in rows.select_related("channel").order_by("-id")[:DELIVERIES_MAX]
    ]
