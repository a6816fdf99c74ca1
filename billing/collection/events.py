"""Word from Stripe: stored first, then only a reason to read the object again.

What webhooks lost is found by a sweep of Stripe's list of events.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final, NamedTuple

from django.db.models import F
from django.utils import timezone

from billing.collection.claims import LEASE, wait_seconds
from billing.models import StripeEvent, StripeInvoice, StripeSettings
from billing.stripe_gateway import Busy, Event, KeyRejected, StripeFailure, StripeGateway
from tenants.scope import tenant_scope

# What is listened to; a webhook endpoint at Stripe is set to these. At most 20 can be asked for.
TYPES: Final = (
    "invoice.finalized",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.payment_action_required",
    "invoice.overdue",
    "invoice.voided",
    "invoice.marked_uncollectible",
    "invoice.updated",
    "charge.failed",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn",
    "credit_note.created",
    "credit_note.voided",
    "refund.failed",
)
SWEEP_EVERY: Final = timedelta(minutes=10)
# Events appear in the list a little after their time.
OVERLAP_SECONDS: Final = 3600
FIRST_SWEEP_SECONDS: Final = 86_400


class Subject(NamedTuple):
    """Which invoice an event is about, or by what that is paid."""

    stripe_invoice: str = ""
    payment_intent: str = ""


def subject_of(event: Event) -> Subject:
    """Return what an event is about. Pure; nothing else of the event is believed."""
    of = event.object_of
    if event.type.startswith("invoice."):
        return Subject(stripe_invoice=_id(of.get("id")))
    if event.type.startswith("credit_note."):
        return Subject(stripe_invoice=_id(of.get("invoice")))
    return Subject(payment_intent=_id(of.get("payment_intent")))


def _id(value: object) -> str:
    """Return an id as it is stored; an object in its place was expanded."""
    if isinstance(value, dict):
        value = value.get("id")
    return value[:100] if isinstance(value, str) else ""


def store_events(*, tenant_id: int, is_live: bool, events: Iterable[Event]) -> int:
    """Store events of one mode that are listened to, each once; return how many were new."""
    rows = [
        StripeEvent(
            tenant_id=tenant_id,
            is_live=is_live,
            event_id=event.id[:100],
            type=event.type[:100],
            **subject_of(event)._asdict(),
        )
        for event in events
        if event.type in TYPES and event.livemode == is_live
    ]
    with tenant_scope(tenant_id):
        own = StripeEvent.objects.filter(tenant_id=tenant_id, is_live=is_live)
        known = set(
            own.filter(event_id__in=[row.event_id for row in rows]).values_list(
                "event_id", flat=True
            )
        )
        new = [row for row in rows if row.event_id not in known]
        StripeEvent.objects.bulk_create(new, ignore_conflicts=True)
    return len(new)


def process_event(*, tenant_id: int, gateway: StripeGateway) -> bool:
    """Ask for a reading of what the next event is about. False: none is due.

    To do it twice is harmless, so the claim is only a matter of economy.
    """
    event = _claim(tenant_id, is_live=gateway.is_live)
    if event is None:
        return False
    try:
        invoices = _invoices_of(event, gateway)
    except KeyRejected:
        raise
    except StripeFailure as error:
        wait = wait_seconds(event.attempts)
        if isinstance(error, Busy):
            wait = max(wait, int(error.retry_after_seconds or 0))
        with tenant_scope(tenant_id):
            StripeEvent.objects.filter(id=event.id).update(
                problem=str(error)[:600], next_attempt_at=timezone.now() + timedelta(seconds=wait)
            )
        return True
    now = timezone.now()
    with tenant_scope(tenant_id):
        StripeInvoice.objects.filter(
            tenant_id=tenant_id, is_live=gateway.is_live, stripe_id__in=invoices
        ).update(reads_wanted=F("reads_wanted") + 1, next_attempt_at=now)
        StripeEvent.objects.filter(id=event.id).update(processed_at=now, problem="")
    return True


def _claim(tenant_id: int, *, is_live: bool) -> StripeEvent | None:
    now = timezone.now()
    with tenant_scope(tenant_id):
        event = (
            StripeEvent.objects.select_for_update(skip_locked=True)
            .filter(
                tenant_id=tenant_id, is_live=is_live, processed_at=None, next_attempt_at__lte=now
            )
            .order_by("next_attempt_at", "id")
            .first()
        )
        if event is not None:
            event.attempts += 1
            event.next_attempt_at = now + LEASE
            event.save(update_fields=["attempts", "next_attempt_at"])
    return event


def _invoices_of(event: StripeEvent, gateway: StripeGateway) -> list[str]:
    if event.stripe_invoice:
        return [event.stripe_invoice]
    if not event.payment_intent:
        return []
    payments = gateway.list_payments(payment_intent=event.payment_intent)
    return [payment.invoice for payment in payments]


def sweep(*, tenant_id: int, gateway: StripeGateway) -> int:
    """Store what Stripe lists since the last sweep, if one is due; return how many were new.

    The time until which events are stored is that of Stripe's clock, and only moves on when all
    of them are.
    """
    now = timezone.now()
    with tenant_scope(tenant_id):
        settings = StripeSettings.objects.get(tenant_id=tenant_id)
        if now < settings.next_sweep_at <= now + SWEEP_EVERY:
            return 0  # a time that is further away was set by a clock that went ahead
        # Taken by this worker; should it end, the next time does it.
        StripeSettings.objects.filter(tenant_id=tenant_id).update(next_sweep_at=now + SWEEP_EVERY)
    stored_until = settings.events_stored_until
    since = stored_until - OVERLAP_SECONDS
    if not stored_until:
        since = int(now.timestamp()) - FIRST_SWEEP_SECONDS
    events = list(gateway.list_events(since=max(0, since), types=list(TYPES)))
    new = store_events(tenant_id=tenant_id, is_live=gateway.is_live, events=events)
    newest = max((event.created for event in events), default=stored_until)
    with tenant_scope(tenant_id):
        StripeSettings.objects.filter(tenant_id=tenant_id, events_stored_until=stored_until).update(
            events_stored_until=newest
        )
    return new
