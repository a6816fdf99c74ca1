"""Several incidents in one message: what was held is sent together, and digests by the clock."""

from collections.abc import Iterable, Sequence
from datetime import datetime, time, timedelta
from itertools import groupby
from typing import Final
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce
from msgspec import ValidationError

from alerts.incidents import RANK
from alerts.messages import Line, Message, decode, encode, format_timestamp
from alerts.models import (
    Channel,
    Delivery,
    DeliveryEvent,
    DeliveryState,
    Digest,
    Incident,
    Severity,
)
from alerts.routing import NEVER_GATHERED, Target, link_to, link_to_incidents
from alerts.settings import settings_of
from common.formats import format_time
from tenants.models import Tenant
from tenants.runs import tenants_of

# A message lists this many; the page has the others.
LINES_MAX: Final = 50
# One run gathers this many held messages of a tenant; the next run continues.
GATHERED_MAX: Final = 5_000
# Digests of a tenant that are written in one transaction.
DIGESTS_MAX: Final = 10
WANTED: Final = (Digest.HOURLY, Digest.DAILY, Digest.WEEKLY)
MONDAY: Final = 0


def tenants_with_held(now: datetime) -> list[int]:
    """Return tenants with messages that were held until now. Needs a platform scope."""
    return tenants_of(_held(now))


@transaction.atomic
def gather_held(*, tenant_id: int, now: datetime) -> int:
    """Make one message of what was held for the same receiver; a single one is sent as it is.

    Return the number of gathered messages. Urgent ones were not held, so none gets lost in a list.
    One that a later release cannot read is sent as it is too: its attempt reports that.
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
    for _, group in groupby(held, key=lambda row: (row.channel_id, row.recipients)):
        deliveries = list(group)
        if len(deliveries) > 1 and _may_gather(deliveries):
            _gather(deliveries, now)
            gathered += len(deliveries)
        else:
            alone += [delivery.id for delivery in deliveries]
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
    try:
        return all(decode(delivery.message) for delivery in deliveries)
    except ValidationError:
        return False


def _gather(deliveries: Sequence[Delivery], now: datetime) -> None:
    messages = [decode(delivery.message) for delivery in deliveries]
    lines = [
        Line(message.severity, message.title, message.event, message.link) for message in messages
    ]
    first = deliveries[0]
    reasons = ", ".join(sorted({delivery.held_by for delivery in deliveries}))
    _write(
        first.tenant_id,
        Target(first.channel, tuple(first.recipients)),
        title=f"{len(lines)} incidents that were held back",
        summary=f"Held back since {format_time(first.created_at)} ({reasons}).{_more(len(lines))}",
        lines=lines,
        now=now,
    )
    ids = [delivery.id for delivery in deliveries]
    Delivery.objects.filter(id__in=ids).update(state=DeliveryState.SUPERSEDED)


def tenants_with_digests() -> list[int]:
    """Return tenants with channels that get digests. Needs a platform scope."""
    return tenants_of(_with_digests())


@transaction.atomic
def write_digests(*, tenant_id: int, now: datetime) -> int:
    """Write some of the digests that are due: what opened or ended since the last one, if anything
    did.

    Return the number of digests that were due. A channel's first one begins when digests are turned
    on.
    """
    digest_at = settings_of(tenant_id).digest_at
    zone = ZoneInfo(Tenant.objects.get(id=tenant_id).timezone)
    last: dict[str, datetime] = {
        digest: last_due(digest, digest_at, zone, now) for digest in WANTED
    }
    is_due = Q()
    for digest, at in last.items():
        is_due |= Q(digest=digest, since__lt=at)
    due = _with_digests().filter(is_due, tenant_id=tenant_id).select_for_update(skip_locked=True)
    channels = list(due[:DIGESTS_MAX])
    for channel in channels:
        until = last[channel.digest]
        since = channel.digested_at or max(channel.created_at, until - timedelta(days=7))
        _write_digest(channel, since, until, now)
        channel.digested_at = until
        channel.save(update_fields=["digested_at"])
    return len(channels)


def last_due(digest: str, digest_at: time, zone: ZoneInfo, now: datetime) -> datetime:
    """Return the latest time, not after now, at which a digest is sent."""
    local = now.astimezone(zone)
    if digest == Digest.HOURLY:
        return local.replace(minute=0, second=0, microsecond=0)
    day = local.date()
    while True:
        due = datetime.combine(day, digest_at, zone)
        is_day = digest == Digest.DAILY or day.weekday() == MONDAY
        if is_day and due.timestamp() <= now.timestamp():
            return due
        day -= timedelta(days=1)


def _with_digests() -> QuerySet[Channel]:
    return (
        Channel.objects.filter(removed_at=None, is_paused=False)
        .exclude(digest=Digest.NONE)
        .annotate(since=Coalesce("digested_at", "created_at"))
        .order_by("id")
    )


def _write_digest(channel: Channel, since: datetime, until: datetime, now: datetime) -> None:
    of_tenant = Incident.objects.filter(tenant_id=channel.tenant_id)
    reported = of_tenant.filter(
        Q(opened_at__gte=since, opened_at__lt=until)
        | Q(resolved_at__gte=since, resolved_at__lt=until)
    )
    count = reported.count()
    if not count:
        return
    unresolved = of_tenant.filter(resolved_at=None).count()
    _write(
        channel.tenant_id,
        Target(channel),
        title=f"{count} incident{'s'[: count != 1]} since {since:%b %-d, %-I:%M %p %Z}",
        summary=f"Unresolved now, older ones among them: {unresolved}.{_more(count)}",
        lines=[
            Line(incident.severity, incident.title, incident.status, link_to(incident.id))
            for severity in reversed(Severity.values)
            for incident in reported.filter(severity=severity).order_by("-id")[:LINES_MAX]
        ],
        now=now,
    )


def _more(count: int) -> str:
    """Return what a summary says of those that its message does not list."""
    return f" {count - LINES_MAX} more are on the page." if count > LINES_MAX else ""


def _write(
    tenant_id: int,
    target: Target,
    *,
    title: str,
    summary: str,
    lines: Iterable[Line],
    now: datetime,
) -> None:
    """Write one message of many lines, the most severe first."""
    ordered = sorted(lines, key=lambda line: -RANK[line.severity])
    message = Message(
        event=DeliveryEvent.DIGEST,
        severity=ordered[0].severity if ordered else Severity.INFO,
        kind="digest",
        title=title,
        summary=summary,
        tenant=Tenant.objects.get(id=tenant_id).name,
        incident=None,
        cause=f"spendgate-digest-{tenant_id}-{format_timestamp(now)}",
        link=link_to_incidents(),
        opened_at="",
        at=format_timestamp(now),
        lines=ordered[:LINES_MAX],
    )
    Delivery.objects.create(
        tenant_id=tenant_id,
        channel=target.channel,
        recipients=list(target.recipients),
        event=DeliveryEvent.DIGEST,
        severity=message.severity,
        message=encode(message),
    )
