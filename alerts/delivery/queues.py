"""Which delivery is next, and which worker may send it."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.db.models import Exists, F, Min, OuterRef, Q, QuerySet
from django.db.models.functions import Greatest
from django.utils import timezone

from alerts.models import Channel, Delivery, DeliveryState, is_failing
from tenants.scope import platform_scope, tenant_scope

# Longer than any attempt: `alerts.outbound` ends one after 15 s, and resolving a name may add 30.
LEASE: Final = timedelta(seconds=60)


class DeliveryQueue(NamedTuple):
    """Deliveries that are sent one after another: of a channel, or a tenant's mail to people."""

    tenant_id: int
    channel_id: int | None
    is_failing: bool

    @property
    def key(self) -> tuple[int, int | None]:
        return self.tenant_id, self.channel_id


class Claim(NamedTuple):
    """A delivery that this worker may send until the claim runs out."""

    delivery: Delivery
    queue: DeliveryQueue
    until: datetime


def queues_due() -> list[DeliveryQueue]:
    """Return queues with something due: those that work first, of these the one served longest ago.

    So a receiver with thousands of messages waiting takes turns with one that has a single one.
    """
    now = timezone.now()
    with platform_scope("find the channels with deliveries due"):
        due = (
            Delivery.objects.filter(_is_due(now))
            .filter(Q(channel=None) | Q(channel__is_paused=False, channel__removed_at=None))
            .values("tenant_id", "channel_id", "channel__delivered_at", "channel__failed_at")
            .annotate(
                due_since=Min("due_at"),
                served_at=Greatest("channel__delivered_at", "channel__failed_at"),
            )
            .order_by(F("served_at").asc(nulls_first=True), "due_since")
        )
        queues = [
            DeliveryQueue(
                row["tenant_id"],
                row["channel_id"],
                is_failing(row["channel__delivered_at"], row["channel__failed_at"]),
            )
            for row in due
        ]
    return sorted(queues, key=lambda queue: queue.is_failing)


def claim(queue: DeliveryQueue) -> Claim | None:
    """Take the next delivery of a queue for sending. None if another worker has the queue, or
    nothing is due after all.

    Invariants: a channel has one attempt under way at a time (a claim locks its row),
    and messages of one incident leave in their order: none before an earlier one has ended.
    """
    now = timezone.now()
    with tenant_scope(queue.tenant_id):
        if queue.channel_id is not None and not _lock_free_channel(queue.channel_id, now):
            return None
        earlier = _of(queue).filter(
            recipients=OuterRef("recipients"),
            incident_id=OuterRef("incident_id"),
            id__lt=OuterRef("id"),
            state=DeliveryState.WAITING,
            held_by="",
        )
        # Oldest first: so the index ends the search at the first that may leave.
        first = _of(queue).filter(_is_due(now)).exclude(Exists(earlier)).order_by("id")
        delivery = (
            _of(queue)
            .filter(_is_due(now), id__in=first.values("id")[:1])
            .select_related("channel")
            .select_for_update(skip_locked=True, of=("self",))
            .first()
        )
        if delivery is None:
            return None
        delivery.claimed_until = now + LEASE
        delivery.attempts += 1
        delivery.tries += 1
        delivery.save(update_fields=["claimed_until", "attempts", "tries"])
        return Claim(delivery, queue, delivery.claimed_until)


def _of(queue: DeliveryQueue) -> QuerySet[Delivery]:
    deliveries = Delivery.objects.filter(tenant_id=queue.tenant_id)
    if queue.channel_id is None:
        return deliveries.filter(channel=None)
    return deliveries.filter(channel_id=queue.channel_id)


def _is_due(now: datetime) -> Q:
    """What may be sent now and no worker is sending."""
    is_free = Q(claimed_until=None) | Q(claimed_until__lte=now)
    return is_free & Q(state=DeliveryState.WAITING, held_by="", due_at__lte=now)


def _lock_free_channel(channel_id: int, now: datetime) -> bool:
    """Lock a channel unless another claims from it, or has an attempt under way."""
    usable = Channel.objects.filter(id=channel_id, is_paused=False, removed_at=None)
    if usable.select_for_update(skip_locked=True, no_key=True).first() is None:
        return False
    # A second statement, so that it sees the claim of the last holder of the lock.
    return not Delivery.objects.filter(
        channel_id=channel_id, state=DeliveryState.WAITING, claimed_until__gt=now
    ).exists()
