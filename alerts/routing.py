"""Who hears of an incident, and when: what is told becomes rows, in the transaction that caused it.

A level's contacts hear of its crossing whatever its severity; everything else goes by severity.
What is critical is told at once; the rest waits for the end of quiet hours and of maintenance.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import urljoin

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from alerts.channels import KINDS
from alerts.messages import Message, encode, moment_text, outside
from alerts.models import (
    Channel,
    ChannelKind,
    Delivery,
    DeliveryEvent,
    DeliveryState,
    EntryKind,
    HeldBy,
    Incident,
    IncidentEntry,
    IncidentKind,
    MaintenanceWindow,
    Severity,
)
from alerts.people import mail_of_contacts
from alerts.quiet import Pause, paused_until, quiet_until
from alerts.settings import settings_of
from common.money import exact_money
from tenants.models import Tenant

# More than this on one channel within the time, and the rest is told together afterwards.
BURST_DELIVERIES: Final = 20
BURST_SPAN: Final = timedelta(minutes=5)
# Machines on the other side sort it out themselves, and must miss nothing.
NEVER_GATHERED: Final = frozenset({ChannelKind.WEBHOOK, ChannelKind.PAGERDUTY})
# What tells of a beginning or a change for the worse; the others go to whoever heard of one.
NEWS: Final = frozenset({DeliveryEvent.OPENED, DeliveryEvent.UPDATED, DeliveryEvent.ESCALATED})
# What came of it is one message; that somebody looks at it need not fill a mailbox.
NOT_ACKNOWLEDGED_TO: Final = frozenset({ChannelKind.EMAIL})

EXCESS_WORDS: Final[dict[str, str]] = {
    IncidentKind.CROSSING: "Over the limit",
    IncidentKind.LOOP: "Wasted",
}

# Who acts when the service does.
BY_ITSELF: Final = "spendgate"


class Target(NamedTuple):
    """Where one message goes: a channel, or mail to people."""

    channel: Channel | None
    recipients: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        if self.channel is None:
            return ", ".join(self.recipients)
        return f"{self.channel.name} ({KINDS[self.channel.kind].words})"


class Hold(NamedTuple):
    """Until when a message waits, and why; `by` is empty where it leaves at once."""

    until: datetime
    by: str = ""


def tell(
    *, incident: Incident, event: DeliveryEvent, contacts: tuple[str, ...] | None = None
) -> list[Delivery]:
    """Write what is to be told of an incident now, and a line of its timeline that says to whom.

    Runs in the transaction that changed the incident, whose row is locked. While it is snoozed
    nothing leaves, unless it became critical.
    """
    if _is_snoozed(incident, event, timezone.now()):
        return []
    targets = _targets(incident, contacts) if event in NEWS else _told(incident, event)
    return _tell(incident, event, targets)


def tell_again(*, incident: Incident) -> list[Delivery]:
    """Say that an incident still goes on: to whoever has heard of it, and whom its severity now
    concerns. Contacts of a level that was reached hear of that alone.
    """
    event = DeliveryEvent.UPDATED
    named = () if incident.kind == IncidentKind.CROSSING else None
    heard = _told(incident, event)
    return _tell(incident, event, list(dict.fromkeys([*heard, *_targets(incident, named)])))


def _tell(incident: Incident, event: DeliveryEvent, targets: Sequence[Target]) -> list[Delivery]:
    now = timezone.now()
    hold = _hold(incident, event, now)
    # All targets are told the same.
    message = message_of(incident, event, at=now)
    deliveries = [
        delivery
        for target in targets
        if (delivery := _write(incident, message, target, hold, now)) is not None
    ]
    if event in NEWS:
        _note(incident, targets, hold)
    if deliveries and not hold.by:
        incident.notified_at = now
        incident.save(update_fields=["notified_at"])
    return deliveries


def message_of(incident: Incident, event: DeliveryEvent, *, at: datetime) -> Message:
    """What is told of an incident."""
    facts = [("Since", f"{incident.opened_at:%Y-%m-%d %H:%M} UTC")]
    facts += [(name.capitalize(), _words_of(value)) for name, value in incident.match.items()]
    if incident.excess_nanos:
        facts.append((_excess_words(incident), exact_money(incident.excess_nanos)))
    if incident.acknowledged_by:
        facts.append(("Acknowledged by", incident.acknowledged_by))
    if incident.resolved_at is not None:
        facts.append(("Resolved by", incident.resolved_by or "itself: it has ended"))
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
        opened_at=moment_text(incident.opened_at),
        at=moment_text(at),
        facts=facts,
        match=incident.match,
        data=outside({**incident.facts, "excess_nanos": incident.excess_nanos}),
    )


def link_to(incident_id: int) -> str:
    """The address of an incident's page, for people elsewhere."""
    return f"{link_to_incidents()}/{incident_id}"


def link_to_incidents() -> str:
    """The address of the page of all incidents."""
    environment = settings.ENVIRONMENT
    return urljoin(environment.public_url or environment.url, "/incidents")


def _excess_words(incident: Incident) -> str:
    """What the money of an incident is."""
    return EXCESS_WORDS.get(incident.kind, "Beyond what was expected")


def _words_of(value: object) -> str:
    values = value if isinstance(value, list) else [value]
    return ", ".join("(none)" if one is None else str(one) for one in values)


def _is_snoozed(incident: Incident, event: DeliveryEvent, now: datetime) -> bool:
    if incident.snoozed_until is None or incident.snoozed_until <= now:
        return False
    is_urgent = event == DeliveryEvent.ESCALATED and incident.severity == Severity.CRITICAL
    return event in NEWS and not is_urgent


def _targets(incident: Incident, contacts: tuple[str, ...] | None) -> list[Target]:
    """Who hears of it: channels by the contacts they reach or by severity, and people by mail."""
    channels = list(
        Channel.objects.filter(
            tenant_id=incident.tenant_id, removed_at=None, is_paused=False
        ).order_by("id")
    )
    targets = [Target(one) for one in channels if _hears(one, incident, contacts)]
    reached = {name for one in channels for name in one.contacts}
    unreached = [name for name in contacts or () if name not in reached]
    mail = mail_of_contacts(tenant_id=incident.tenant_id, names=unreached, match=incident.match)
    return [*targets, *([Target(None, mail)] if mail else [])]


def _hears(channel: Channel, incident: Incident, contacts: tuple[str, ...] | None) -> bool:
    if contacts is not None and channel.contacts:
        return not set(channel.contacts).isdisjoint(contacts)
    return incident.severity in channel.severities


def _told(incident: Incident, event: DeliveryEvent) -> list[Target]:
    """Who has heard of it, or is about to."""
    heard = (
        Delivery.objects.filter(incident=incident, event__in=NEWS)
        .exclude(state=DeliveryState.SUPERSEDED)
        .select_related("channel")
        .order_by("id")
    )
    targets: dict[object, Target] = {}
    for delivery in heard:
        channel = delivery.channel
        if channel is None:
            targets[tuple(delivery.recipients)] = Target(None, tuple(delivery.recipients))
        elif channel.removed_at is None and not channel.is_paused:
            targets[channel.id] = Target(channel)
    found = list(targets.values())
    if event != DeliveryEvent.ACKNOWLEDGED:
        return found
    return [one for one in found if one.channel and one.channel.kind not in NOT_ACKNOWLEDGED_TO]


def _hold(incident: Incident, event: DeliveryEvent, now: datetime) -> Hold:
    """Whether people are left in peace now. What is critical, or turned critical, is told."""
    wishes = settings_of(incident.tenant_id)
    if event == DeliveryEvent.OPENED and incident.notified_at is not None:
        # The same cause again: it is told once the cool-down is over, if it goes on until then.
        cooled_at = incident.notified_at + timedelta(seconds=wishes.cool_down_seconds)
        if cooled_at > now:
            return Hold(cooled_at, HeldBy.COOL_DOWN)
    if incident.severity == Severity.CRITICAL:
        return Hold(now)
    until = paused_until(now, _pauses(incident.tenant_id, now), incident.match)
    if until is not None:
        return Hold(until, HeldBy.MAINTENANCE)
    if wishes.quiet_from is not None and wishes.quiet_until is not None:
        zone = Tenant.objects.get(id=incident.tenant_id).timezone
        until = quiet_until(now, begins=wishes.quiet_from, ends=wishes.quiet_until, timezone=zone)
    return Hold(now) if until is None else Hold(until, HeldBy.QUIET_HOURS)


def _pauses(tenant_id: int, now: datetime) -> Iterable[Pause]:
    windows = MaintenanceWindow.objects.filter(tenant_id=tenant_id, ends_at__gt=now)
    return [Pause(one.starts_at, one.ends_at, one.match) for one in windows]


def _write(
    incident: Incident, message: Message, target: Target, hold: Hold, now: datetime
) -> Delivery | None:
    """The row of one message. It takes the place of what was held of the same incident.

    None where there is nothing to say any more.
    """
    earlier = _to(target).filter(incident=incident).exclude(state=DeliveryState.SUPERSEDED)
    earlier.filter(state=DeliveryState.WAITING, attempts=0, claimed_until=None).exclude(
        held_by=""
    ).update(state=DeliveryState.SUPERSEDED)
    if message.event == DeliveryEvent.RESOLVED and not _is_awaited(target, earlier.last()):
        return None
    if not hold.by and _is_bursting(target, now):
        hold = Hold(now + BURST_SPAN, HeldBy.BURST)
    return Delivery.objects.create(
        tenant_id=incident.tenant_id,
        channel=target.channel,
        recipients=list(target.recipients),
        incident=incident,
        event=message.event,
        severity=message.severity,
        message=encode(message),
        due_at=hold.until,
        held_by=hold.by,
    )


def _is_awaited(target: Target, last: Delivery | None) -> bool:
    """Whether whoever heard `last` waits for the end.

    Of what came and went in peace people learn afterwards, but a pager has nothing to close; and
    what was told to be over came again too briefly to be told.
    """
    if last is None:
        return target.channel is None or target.channel.kind != ChannelKind.PAGERDUTY
    return last.event != DeliveryEvent.RESOLVED


def _is_bursting(target: Target, now: datetime) -> bool:
    """Whether so much was told on this channel just now that more would be noise."""
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


def _note(incident: Incident, targets: Sequence[Target], hold: Hold) -> None:
    """The timeline says who was told, or that nobody was and why."""
    kind, text = EntryKind.NOTIFIED, "; ".join(one.words for one in targets)
    if not targets:
        kind = EntryKind.NOT_NOTIFIED
        text = f"No channel takes what is {incident.severity}, and no contact can be reached."
    elif hold.by:
        text = f"{text} (held until {hold.until:%Y-%m-%d %H:%M} UTC: {hold.by})"
    IncidentEntry.objects.create(
        tenant_id=incident.tenant_id,
        incident=incident,
        kind=kind,
        actor=BY_ITSELF,
        text=text,
    )
