"""Requests of people: a test of a channel, and a delivery again."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from celery import current_app
from django.db import transaction
from django.utils import timezone

from alerts.channels.email import can_mail_people
from alerts.errors import AskedTooOften, ChannelUnavailable, NotResendable
from alerts.messages import Message, encode, format_timestamp
from alerts.models import Channel, Delivery, DeliveryEvent, DeliveryState, Severity
from tenants.audit import record_change
from tenants.models import Tenant

ONE_MINUTE: Final = timedelta(minutes=1)
# Otherwise a caller could fill the mailboxes of strangers in the operator's name.
CHANNEL_TESTS_PER_MINUTE: Final = 5
TENANT_TESTS_PER_MINUTE: Final = 30


@transaction.atomic
def resend(*, delivery: Delivery, actor: str) -> Delivery:
    """Send a delivery that has ended again, under its reference, with its message as it was.

    Raises NotResendable while it still waits, if a newer message took its place, or within a
    minute after it was sent; and ChannelUnavailable.
    """
    stored = Delivery.objects.select_for_update().get(tenant=delivery.tenant_id, id=delivery.id)
    if stored.state not in (DeliveryState.SENT, DeliveryState.DEAD):
        raise NotResendable("Only a delivery that was sent or given up can be sent again.")
    if stored.sent_at is not None and stored.sent_at > timezone.now() - ONE_MINUTE:
        raise NotResendable("It was sent less than a minute ago.")
    _require_way(stored.channel)
    before = {"state": stored.state}
    stored.state = DeliveryState.WAITING
    stored.due_at = timezone.now()
    stored.tries = 0
    stored.sent_at = None
    stored.save(update_fields=["state", "due_at", "tries", "sent_at"])
    record_change(
        tenant_id=stored.tenant_id,
        actor=actor,
        action="resend",
        subject=stored,
        before=before,
        after={"state": stored.state},
    )
    send_on_commit()
    return stored


@transaction.atomic
def test_channel(*, channel: Channel, actor: str) -> Delivery:
    """Send a test message over a channel, as any other is sent.

    Raises ChannelUnavailable, and AskedTooOften after more tests within a minute than anyone needs.
    """
    _require_way(channel)
    _require_moderation(channel)
    message = Message(
        event=DeliveryEvent.TEST,
        severity=Severity.INFO,
        kind="test",
        title=f"Spendgate reaches {channel.name}",
        summary=f"{actor} asked for this message. Nothing is wrong, and nothing needs to be done.",
        tenant=channel.tenant.name,
        incident=None,
        cause=f"spendgate-test-{channel.id}",
        link="",
        opened_at="",
        at=format_timestamp(timezone.now()),
    )
    delivery = Delivery.objects.create(
        tenant_id=channel.tenant_id,
        channel=channel,
        event=DeliveryEvent.TEST,
        severity=Severity.INFO,
        message=encode(message),
    )
    send_on_commit()
    return delivery


@transaction.atomic
def queue_report(
    *, tenant_id: int, channel: Channel | None, recipients: Sequence[str], message: Message
) -> Delivery:
    """Send a report over a channel, or by mail to people through the operator's server. Raises
    ChannelUnavailable.
    """
    _require_way(channel)
    delivery = Delivery.objects.create(
        tenant_id=tenant_id,
        channel=channel,
        recipients=list(recipients),
        event=DeliveryEvent.REPORT,
        severity=Severity.INFO,
        message=encode(message),
    )
    send_on_commit()
    return delivery


def send_on_commit() -> None:
    """Ask a worker to look for what is due once this transaction is committed.

    The rows are the queue, so nothing is lost if the broker cannot be reached.
    """
    transaction.on_commit(_ask_worker, robust=True)


def _ask_worker() -> None:
    """A function of its own, by whose name Django logs that the broker cannot be reached."""
    current_app.send_task("alerts.tasks.deliver", retry=False)


def _require_moderation(channel: Channel) -> None:
    """Count the tests of the last minute, one who asks at a time."""
    Tenant.objects.select_for_update(no_key=True).get(id=channel.tenant_id)
    recent = Delivery.objects.filter(
        tenant_id=channel.tenant_id,
        event=DeliveryEvent.TEST,
        created_at__gt=timezone.now() - ONE_MINUTE,
    )
    tested = list(recent.values_list("channel_id", flat=True))
    is_too_often = tested.count(channel.id) >= CHANNEL_TESTS_PER_MINUTE
    if is_too_often or len(tested) >= TENANT_TESTS_PER_MINUTE:
        raise AskedTooOften(
            f"At most {CHANNEL_TESTS_PER_MINUTE} tests of a channel and"
            f" {TENANT_TESTS_PER_MINUTE} in all are sent within a minute.",
            retry_after_seconds=int(ONE_MINUTE.total_seconds()),
        )


def _require_way(channel: Channel | None) -> None:
    if channel is None:
        if not can_mail_people():
            raise ChannelUnavailable("This service has no mail server any more.")
        return
    if channel.removed_at is not None:
        raise ChannelUnavailable("This channel was removed.")
    if channel.is_paused:
        raise ChannelUnavailable("This channel is paused: resume it first.")
