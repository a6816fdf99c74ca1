"""Several incidents in one message: what was held leaves together, and digests by the clock."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce
from msgspec import ValidationError

from alerts.incidents import RANK, status_of
from alerts.messages import Line, Message, decode, encode, moment_text
from alerts.models import (
    AlertSettings,
    Channel,
    Delivery,
    DeliveryEvent,
    DeliveryState,
    Digest,
    Incident,
    Severity,
)
from alerts.routing import NEVER_GATHERED, link_to, link_to_incidents
from alerts.settings import settings_of
from tenants.models import Tenant

# A message lists so many; the page has the others.
LINES_MAX: Final = 50
# So many held messages of a tenant are gathered at once; the next run goes on.
GATHERED_MAX: Final = 5_000
# So many digests of a tenant are written in one transaction.
DIGESTS_MAX: Final = 10
WANTED: Final = (Digest.HOURLY, Digest.DAILY, Digest.WEEKLY)
MONDAY: Final = 0


def tenants_with_held(now: datetime) -> list[int]:
    """Tenants with messages whose time of peace is over. Needs a platform scope."""
    return sorted(_held(now).values_list("tenant_id", flat=True).distinct())


@transaction.atomic
def gather_held(*, tenant_id: int, now: datetime) -> int:
    """Make one message of what was held for the same receiver; what is alone leaves as it is.

    Answers how many were gathered. Urgent things were not held, so nothing gets lost in a list.
    What a later release cannot read leaves as it is too: its attempt says so.
    """
    held = list(
        _held(now)
        .filter(tenant_id=tenant_id)
        .select_for_update(skip_locked=True, of=("self",))
        .select_related("channel")
        .order_by("channel_id", "recipients", "id")[:GATHERED_MAX]
    )
    gathered = 0
    alone: list[int] = []
    for _, group in groupby(held, key=lambda one: (one.channel_id, one.recipients)):
        deliveries = list(group)
        if len(deliveries) > 1 and _may_gather(deliveries):
            _gather(deliveries, now)
            gathered += len(deliveries)
        else:
            alone += [one.id for one in deliveries]
    Delivery.objects.filter(id__in=alone).update(held_by="")
    return gathered


def _held(now: datetime) -> QuerySet[Delivery]:
    return Delivery.objects.filter(
        state=DeliveryState.WAITING, attempts=0, claimed_until=None, due_at__lte=now
    ).exclude(held_by="")


def _may_gather(deliveries: Sequence[Delivery]) -> bool:
    channel = deliveries[0].channel
    if channel is not None and channel.kind in NEVER_GATHERED:
        return False
    return all(_is_readable(one) for one in deliveries)


def _is_readable(delivery: Delivery) -> bool:
    try:
        decode(delivery.message)
    except ValidationError:
        return False
    return True


def _gather(deliveries: Sequence[Delivery], now: datetime) -> None:
    messages = [decode(one.message) for one in deliveries]
    lines = [Line(one.severity, one.title, one.event, one.link) for one in messages]
    first = deliveries[0]
    message = _digest_message(
        first.tenant_id,
        title=f"{len(lines)} incidents while nobody was told",
        summary=f"Held back since {first.created_at:%Y-%m-%d %H:%M} UTC"
        f" ({', '.join(sorted({one.held_by for one in deliveries}))}).",
        lines=lines,
        count=len(lines),
        now=now,
    )
    _write(first.tenant_id, first.channel, first.recipients, message)
    ids = [one.id for one in deliveries]
    Delivery.objects.filter(id__in=ids).update(state=DeliveryState.SUPERSEDED)


def tenants_with_digests() -> list[int]:
    """Tenants with channels that want digests. Needs a platform scope."""
    wanting = _wanting().order_by("tenant_id")
    return list(wanting.values_list("tenant_id", flat=True).distinct())


@transaction.atomic
def write_digests(*, tenant_id: int, now: datetime) -> int:
    """Write some of the digests that are due: what opened or ended since the last one. Nothing, no
    message.

    Returns how many were due. A channel's first digest begins with the channel's wish for one.
    """
    wishes = settings_of(tenant_id)
    zone = ZoneInfo(Tenant.objects.get(id=tenant_id).timezone)
    last: dict[str, datetime] = {digest: last_due(digest, wishes, zone, now) for digest in WANTED}
    is_due = Q()
    for digest, at in last.items():
        is_due |= Q(digest=digest, since__lt=at)
    due = _wanting().filter(is_due, tenant_id=tenant_id).select_for_update(skip_locked=True)
    channels = list(due[:DIGESTS_MAX])
    for channel in channels:
        until = last[channel.digest]
        since = channel.digested_at or max(channel.created_at, until - timedelta(days=7))
        _write_digest(channel, since, until, now)
        channel.digested_at = until
        channel.save(update_fields=["digested_at"])
    return len(channels)


def last_due(digest: str, wishes: AlertSettings, zone: ZoneInfo, now: datetime) -> datetime:
    """The latest moment, not after now, at which a digest leaves."""
    local = now.astimezone(zone)
    if digest == Digest.HOURLY:
        return local.replace(minute=0, second=0, microsecond=0)
    day = local.date()
    while True:
        due = datetime.combine(day, wishes.digest_at, zone)
        is_day = digest == Digest.DAILY or day.weekday() == MONDAY
        if is_day and due.timestamp() <= now.timestamp():
            return due
        day -= timedelta(days=1)


def _wanting() -> QuerySet[Channel]:
    return (
        Channel.objects.filter(removed_at=None, is_paused=False)
        .exclude(digest=Digest.NONE)
        .annotate(since=Coalesce("digested_at", "created_at"))
        .order_by("id")
    )


def _write_digest(channel: Channel, since: datetime, until: datetime, now: datetime) -> None:
    of_tenant = Incident.objects.filter(tenant_id=channel.tenant_id)
    told = of_tenant.filter(
        Q(opened_at__gte=since, opened_at__lt=until)
        | Q(resolved_at__gte=since, resolved_at__lt=until)
    )
    count = told.count()
    if not count:
        return
    unresolved = of_tenant.filter(resolved_at=None).count()
    message = _digest_message(
        channel.tenant_id,
        title=f"{count} incident{'s'[: count != 1]} since {since:%Y-%m-%d %H:%M %Z}",
        summary=f"Unresolved now, older ones among them: {unresolved}.",
        lines=[
            Line(one.severity, one.title, status_of(one), link_to(one.id))
            for one in _most_severe(told)
        ],
        count=count,
        now=now,
    )
    _write(channel.tenant_id, channel, [], message)


def _most_severe(incidents: QuerySet[Incident]) -> list[Incident]:
    """As many as a message lists, the newest of each severity first."""
    found: list[Incident] = []
    for severity in reversed(Severity.values):
        of_severity = incidents.filter(severity=severity).order_by("-id")
        found += of_severity[: LINES_MAX - len(found)]
    return found


def _write(
    tenant_id: int, channel: Channel | None, recipients: Sequence[str], message: Message
) -> None:
    Delivery.objects.create(
        tenant_id=tenant_id,
        channel=channel,
        recipients=list(recipients),
        event=DeliveryEvent.DIGEST,
        severity=message.severity,
        message=encode(message),
    )


def _digest_message(
    tenant_id: int, *, title: str, summary: str, lines: Iterable[Line], count: int, now: datetime
) -> Message:
    """One message of many lines, the most severe first, of `count` that there are."""
    ordered = sorted(lines, key=lambda one: -RANK[one.severity])
    further = count - LINES_MAX
    return Message(
        event=DeliveryEvent.DIGEST,
        severity=ordered[0].severity if ordered else Severity.INFO,
        kind="digest",
        title=title,
        summary=summary + (f" {further} more are on the page." if further > 0 else ""),
        tenant=Tenant.objects.get(id=tenant_id).name,
        incident=None,
        cause=f"spendgate-digest-{tenant_id}-{moment_text(now)}",
        link=link_to_incidents(),
        opened_at="",
        at=moment_text(now),
        lines=ordered[:LINES_MAX],
    )
