"""Who is notified of an incident, and when: deliveries are rows, written in its transaction.

A level's contacts are notified of its crossing whatever its severity; everything else goes by
severity. What is critical is sent immediately; the rest waits for the end of quiet hours and of
maintenance.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import urljoin

from django.conf import settings as django_settings
from django.db.models import QuerySet
from django.utils import timezone

from alerts.channels import KINDS
from alerts.messages import Message, encode, format_timestamp, outside
from alerts.models import (
    SERVICE,
    Channel,
    ChannelKind,
    Delivery,
    DeliveryEvent,
    DeliveryState,
    EntryKind,
    HeldBy,
    Incident,
    IncidentKind,
    MaintenanceWindow,
    Severity,
)
from alerts.people import mail_of_contacts
from alerts.quiet import paused_until, quiet_until
from alerts.settings import settings_of
from common.formats import format_time
from common.money import exact_money
from tenants.models import Tenant

# More than this on one channel within the time, and the rest is sent together afterwards.
BURST_DELIVERIES: Final = 20
BURST_SPAN: Final = timedelta(minutes=5)
# Machines on the other side sort it out themselves, and must miss nothing.
NEVER_GATHERED: Final = frozenset({ChannelKind.WEBHOOK, ChannelKind.PAGERDUTY})
# Events that report a new or worsened incident. Other events go only to targets that were
# notified of one of these.
NEWS: Final = frozenset({DeliveryEvent.OPENED, DeliveryEvent.UPDATED, DeliveryEvent.ESCALATED})
# Email gets one message when the incident ends; an acknowledgement need not fill a mailbox.
NOT_ACKNOWLEDGED_TO: Final = frozenset({ChannelKind.EMAIL})

EXCESS_LABELS: Final[dict[str, str]] = {
    IncidentKind.CROSSING: "Over the limit",
    IncidentKind.LOOP: "Wasted",
    IncidentKind.RECONCILIATION: "More than expected",
}


class Target(NamedTuple):
    """Where one message goes: a channel, or mail to people."""

    channel: Channel | None
    recipients: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        if self.channel is None:
            return ", ".join(self.recipients)
        return f"{self.channel.name} ({KINDS[self.channel.kind].label})"


class Deferral(NamedTuple):
    """Until when a message waits, and why; `by` is empty if it leaves immediately."""

    until: datetime
    by: str = ""


def notify(
    *, incident: Incident, event: DeliveryEvent, contacts: tuple[str, ...] | None = None
) -> None:
    """Write the deliveries of an event, and a line of the timeline that says to whom.

    Runs in the transaction that changed the incident, whose row is locked. While it is snoozed
    nothing is sent, unless it became critical.
    """
    if not _is_snoozed(incident, event, timezone.now()):
        is_news = event in NEWS
        targets = _targets(incident, contacts) if is_news else _notified(incident, event)
        _notify(incident, event, targets)


def notify_again(*, incident: Incident) -> None:
    """Report that an incident is still ongoing: to the targets notified of it, and to the channels
    of its current severity. Contacts of a level are notified only when it is reached.
    """
    event = DeliveryEvent.UPDATED
    contacts = () if incident.kind == IncidentKind.CROSSING else None
    targets = [*_notified(incident, event), *_targets(incident, contacts)]
    _notify(incident, event, list(dict.fromkeys(targets)))


def _notify(incident: Incident, event: DeliveryEvent, targets: Sequence[Target]) -> None:
    now = timezone.now()
    deferral = _deferral(incident, event, now)
    # All targets get the same.
    message = message_of(incident, event, at=now)
    are_written = [_write(incident, message, target, deferral, now) for target in targets]
    if event in NEWS:
        _add_entry(incident, targets, deferral)
    if any(are_written) and not deferral.by:
        incident.notified_at = now
        incident.save(update_fields=["notified_at"])


def message_of(incident: Incident, event: DeliveryEvent, *, at: datetime) -> Message:
    """Return what channels are sent about an incident."""
    details = [("Since", format_time(incident.opened_at))]
    details += [(name.capitalize(), _label(value)) for name, value in incident.match.items()]
    if incident.excess_nanos:
        label = EXCESS_LABELS.get(incident.kind, "Beyond the expected")
        details.append((label, exact_money(incident.excess_nanos)))
    if incident.acknowledged_by:
        details.append(("Acknowledged by", incident.acknowledged_by))
    if incident.resolved_at is not None:
        details.append(("Resolved by", incident.resolved_by or "itself: it has ended"))
    return Message(
        event=event,
        severity=incident.severity,
        kind=incident.kind,
        title=incident.title,
        summary=incident.summary,
        tenant=Tenant.objects.get(id=incident.tenant_id).name,
        incident=incident.id,
        cause=f"spendgate-incident-{incident.id}",
        link=link_to(incident.id),
        opened_at=format_timestamp(incident.opened_at),
        at=format_timestamp(at),
        facts=details,
        match=incident.match,
        data=outside({**incident.facts, "excess_nanos": incident.excess_nanos}),
    )


def link_to(incident_id: int) -> str:
    """Return the address of an incident's page, for people elsewhere."""
    return f"{link_to_incidents()}/{incident_id}"


def link_to_incidents() -> str:
    """Return the address of the page of all incidents."""
    environment = django_settings.ENVIRONMENT
    return urljoin(environment.public_url or environment.url, "/incidents")


def _label(value: object) -> str:
    values = value if isinstance(value, list) else [value]
    return ", ".join("(none)" if item is None else str(item) for item in values)


def _is_snoozed(incident: Incident, event: DeliveryEvent, now: datetime) -> bool:
    if incident.snoozed_until is None or incident.snoozed_until <= now:
        return False
    is_urgent = event == DeliveryEvent.ESCALATED and incident.severity == Severity.CRITICAL
    return event in NEWS and not is_urgent


def _targets(incident: Incident, contacts: tuple[str, ...] | None) -> list[Target]:
    """Return whom to notify: channels by their contacts or by severity, and people by mail."""
    usable = Channel.objects.filter(tenant_id=incident.tenant_id, removed_at=None, is_paused=False)
    channels = list(usable.order_by("id"))
    targets = [Target(channel) for channel in channels if _is_notified(channel, incident, contacts)]
    reached = {name for channel in channels for name in channel.contacts}
    unreached = [name for name in contacts or () if name not in reached]
    mail = mail_of_contacts(tenant_id=incident.tenant_id, names=unreached, match=incident.match)
    return [*targets, *([Target(None, mail)] if mail else [])]


def _is_notified(channel: Channel, incident: Incident, contacts: tuple[str, ...] | None) -> bool:
    if contacts is not None and channel.contacts:
        return not set(channel.contacts).isdisjoint(contacts)
    return incident.severity in channel.severities


def _notified(incident: Incident, event: DeliveryEvent) -> list[Target]:
    """Return who was notified of it, or is about to be."""
    deliveries = (
        Delivery.objects.filter(incident=incident, event__in=NEWS)
        .exclude(state=DeliveryState.SUPERSEDED)
        .select_related("channel")
        .order_by("id")
    )
    targets: dict[object, Target] = {}
    for delivery in deliveries:
        channel = delivery.channel
        if channel is None:
            targets[tuple(delivery.recipients)] = Target(None, tuple(delivery.recipients))
        elif channel.removed_at is None and not channel.is_paused:
            targets[channel.id] = Target(channel)
    return [
        target
        for target in targets.values()
        if event != DeliveryEvent.ACKNOWLEDGED
        or (target.channel and target.channel.kind not in NOT_ACKNOWLEDGED_TO)
    ]


def _deferral(incident: Incident, event: DeliveryEvent, now: datetime) -> Deferral:
    """Return how long people are left in peace. What is critical, or turned critical, is sent."""
    tenant_id, settings = incident.tenant_id, settings_of(incident.tenant_id)
    if event == DeliveryEvent.OPENED and incident.notified_at is not None:
        # The same cause again: it is sent after the cool-down if it is still ongoing then.
        cooled_at = incident.notified_at + timedelta(seconds=settings.cool_down_seconds)
        if cooled_at > now:
            return Deferral(cooled_at, HeldBy.COOL_DOWN)
    if incident.severity == Severity.CRITICAL:
        return Deferral(now)
    windows = MaintenanceWindow.objects.filter(tenant_id=tenant_id, ends_at__gt=now)
    until = paused_until(now, windows, incident.match)
    if until is not None:
        return Deferral(until, HeldBy.MAINTENANCE)
    if settings.quiet_from is not None and settings.quiet_until is not None:
        zone = Tenant.objects.get(id=tenant_id).timezone
        begins, ends = settings.quiet_from, settings.quiet_until
        until = quiet_until(now, begins=begins, ends=ends, timezone=zone)
    return Deferral(now) if until is None else Deferral(until, HeldBy.QUIET_HOURS)


def _write(
    incident: Incident, message: Message, target: Target, deferral: Deferral, now: datetime
) -> bool:
    """Write one delivery, in place of what was held of the same incident. False: there is nothing
    to say any more.
    """
    earlier = _to(target).filter(incident=incident).exclude(state=DeliveryState.SUPERSEDED)
    earlier.filter(state=DeliveryState.WAITING, attempts=0, claimed_until=None).exclude(
        held_by=""
    ).update(state=DeliveryState.SUPERSEDED)
    if message.event == DeliveryEvent.RESOLVED and not _is_awaited(target, earlier.last()):
        return False
    if not deferral.by and _is_bursting(target, now):
        deferral = Deferral(now + BURST_SPAN, HeldBy.BURST)
    Delivery.objects.create(
        tenant_id=incident.tenant_id,
        channel=target.channel,
        recipients=list(target.recipients),
        incident=incident,
        event=message.event,
        severity=message.severity,
        message=encode(message),
        due_at=deferral.until,
        held_by=deferral.by,
    )
    return True


def _is_awaited(target: Target, last: Delivery | None) -> bool:
    """Return whether the target that was last sent `last` should be told of the end.

    A person who was sent nothing, in quiet hours say, still learns of an incident that has ended.
    A pager that was sent nothing has nothing to close. A target already sent a resolution needs no
    second one: the incident returned too briefly to be reported.
    """
    if last is None:
        return target.channel is None or target.channel.kind != ChannelKind.PAGERDUTY
    return last.event != DeliveryEvent.RESOLVED


def _is_bursting(target: Target, now: datetime) -> bool:
    """Whether so much was just sent to this channel that more would be noise."""
    if target.channel is not None and target.channel.kind in NEVER_GATHERED:
        return False
    recent = (
        _to(target)
        .filter(created_at__gt=now - BURST_SPAN, incident__isnull=False)
        .exclude(state=DeliveryState.SUPERSEDED)
    )
    return recent.count() >= BURST_DELIVERIES


def _to(target: Target) -> QuerySet[Delivery]:
    if target.channel is not None:
        return Delivery.objects.filter(channel=target.channel).order_by("id")
    recipients = list(target.recipients)
    return Delivery.objects.filter(channel=None, recipients=recipients).order_by("id")


def _add_entry(incident: Incident, targets: Sequence[Target], deferral: Deferral) -> None:
    """Write into the timeline who was notified, or why no one was."""
    kind, text = EntryKind.NOTIFIED, "; ".join(target.label for target in targets)
    if not targets:
        kind = EntryKind.NOT_NOTIFIED
        text = f"No channel takes what is {incident.severity}, and no contact can be reached."
    elif deferral.by:
        text = f"{text} (held until {format_time(deferral.until)}: {deferral.by})"
    incident.add_entry(kind, SERVICE, text)
