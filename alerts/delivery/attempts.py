"""One attempt to send a delivery, and its record."""

import time
from contextlib import suppress
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Final, NamedTuple

import structlog
from django.utils import timezone
from prometheus_client import Counter

from alerts.channel_settings import update_channel
from alerts.channels import KINDS, NotDelivered, Sent
from alerts.channels.email import mail_people
from alerts.delivery.queues import Claim
from alerts.delivery.schedule import rest_seconds, wait_seconds
from alerts.errors import AlertError, ChannelUnavailable
from alerts.messages import decode
from alerts.models import SERVICE, Channel, Delivery, DeliveryAttempt, DeliveryState
from alerts.sealing import unseal
from tenants.scope import tenant_scope

log = structlog.get_logger(__name__)

DELIVERIES: Final = Counter(
    "spendgate_deliveries", "Attempts to deliver, by outcome.", ["kind", "outcome"]
)
ERROR_MAX_CHARACTERS: Final = 1000


class Outcome(NamedTuple):
    """The outcome of an attempt."""

    started_at: datetime
    duration_ms: int
    result: Sent | NotDelivered


def attempt(delivery: Delivery) -> Outcome:
    """Try to send a delivery, in this thread, without the database. Every failure is an outcome."""
    started_at, clock = timezone.now(), time.monotonic()
    result: Sent | NotDelivered
    try:
        result = _send(delivery)
    except NotDelivered as failure:
        result = failure
    except AlertError as error:
        result = NotDelivered(error.detail, is_receiver_down=False)
    except Exception as error:
        # Else a single message that fails unexpectedly would end the run for all.
        log.exception("delivery failed unexpectedly", delivery=delivery.id)
        result = NotDelivered(
            f"An unexpected error of the service ({type(error).__name__}), which was logged.",
            is_receiver_down=False,
        )
    return Outcome(started_at, int((time.monotonic() - clock) * 1000), result)


def record(claimed: Claim, outcome: Outcome) -> None:
    """Record the outcome of an attempt.

    A success counts however late it comes. A failure counts only for the worker that still holds
    the claim: another may have sent the message meanwhile.
    """
    delivery = claimed.delivery
    with tenant_scope(delivery.tenant_id):
        _lock_channel(delivery)
        _record_attempt(delivery, outcome)
        if isinstance(outcome.result, NotDelivered):
            state = _record_failure(claimed, outcome.result)
        else:
            state = _record_success(delivery)
    _report(delivery, outcome, state)


def _send(delivery: Delivery) -> Sent:
    message, reference = decode(delivery.message), str(delivery.reference)
    channel = delivery.channel
    if channel is None:
        return mail_people(delivery.recipients, message, reference)
    secrets = unseal(channel.secrets)
    return KINDS[channel.kind].send(channel.config, secrets, message, reference)


def _lock_channel(delivery: Delivery) -> None:
    """Lock the channel before its deliveries, as removing a channel does."""
    if delivery.channel is not None:
        Channel.objects.select_for_update(no_key=True).get(id=delivery.channel.id)


def _record_attempt(delivery: Delivery, outcome: Outcome) -> None:
    result = outcome.result
    DeliveryAttempt.objects.create(
        tenant_id=delivery.tenant_id,
        delivery=delivery,
        started_at=outcome.started_at,
        duration_ms=outcome.duration_ms,
        is_success=isinstance(result, Sent),
        status=result.status,
        error=_remark(result)[:ERROR_MAX_CHARACTERS],
    )


def _remark(result: Sent | NotDelivered) -> str:
    return result.remark if isinstance(result, Sent) else result.detail


def _record_success(delivery: Delivery) -> str:
    now = timezone.now()
    Delivery.objects.filter(id=delivery.id, state=DeliveryState.WAITING).update(
        state=DeliveryState.SENT, sent_at=now, claimed_until=None, last_error=""
    )
    if delivery.channel is not None:
        Channel.objects.filter(id=delivery.channel.id).update(delivered_at=now, last_error="")
    return DeliveryState.SENT


def _record_failure(claimed: Claim, failure: NotDelivered) -> str:
    delivery, now = claimed.delivery, timezone.now()
    requested = failure.retry_after_seconds
    chance = SystemRandom().random()
    wait = wait_seconds(delivery.tries, chance=chance, asked_seconds=requested)
    error = failure.detail[:ERROR_MAX_CHARACTERS]
    is_over = wait is None or failure.is_final
    held = Delivery.objects.filter(
        id=delivery.id, state=DeliveryState.WAITING, claimed_until=claimed.until
    )
    is_held = held.update(
        state=DeliveryState.DEAD if is_over else DeliveryState.WAITING,
        due_at=now + timedelta(seconds=wait or 0),
        claimed_until=None,
        last_error=error,
    )
    if is_held and delivery.channel is not None:
        Channel.objects.filter(id=delivery.channel.id).update(failed_at=now, last_error=error)
        if failure.is_final:
            _pause(delivery.channel)
        elif failure.is_receiver_down and wait is not None:
            rest = timedelta(seconds=rest_seconds(wait, asked_seconds=requested))
            _let_rest(delivery.channel, now + rest)
    return DeliveryState.DEAD if is_over else DeliveryState.WAITING


def _pause(channel: Channel) -> None:
    """Pause a channel whose receiver will take nothing any more, until a person looks at it."""
    with suppress(ChannelUnavailable):  # it was removed meanwhile
        update_channel(channel=channel, actor=SERVICE, changes={"is_paused": True})


def _let_rest(channel: Channel, until: datetime) -> None:
    """Let a channel's other messages wait while its receiver is down.

    The one that failed waits for longer anyway.
    """
    Delivery.objects.filter(
        channel=channel,
        state=DeliveryState.WAITING,
        held_by="",
        due_at__lt=until,
    ).update(due_at=until)


def _report(delivery: Delivery, outcome: Outcome, state: str) -> None:
    kind = "mail" if delivery.channel is None else delivery.channel.kind
    result = "failed" if state == DeliveryState.WAITING else state
    DELIVERIES.labels(kind, result).inc()
    log.info(
        "delivery attempted",
        tenant_id=delivery.tenant_id,
        delivery=delivery.id,
        reference=str(delivery.reference),
        kind=kind,
        outcome=result,
        attempt=delivery.attempts,
        duration_ms=outcome.duration_ms,
        remark=_remark(outcome.result),
    )
