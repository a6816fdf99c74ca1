"""Sending hourly values to Stripe's meters, one at a time for a customer and meter.

A value is absolute: Stripe counts the newest of an hour, so a value that is sent twice, or again
because usage came late, replaces itself.
"""

from datetime import timedelta
from typing import Final

from django.db.models import F, Q, QuerySet
from django.utils import timezone

from billing.collection.claims import wait_seconds
from billing.models import StripeAccount, StripeMeterValue
from billing.stripe_gateway import Busy, KeyRejected, Rejected, StripeFailure, StripeGateway
from common.json_bodies import JsonObject
from tenants.scope import tenant_scope

LEASE: Final = timedelta(minutes=2)
CANDIDATES_MAX: Final = 50
# What Stripe takes: nothing older, and no longer numbers and names.
DAYS_BACK: Final = timedelta(days=35)
DIGITS_MAX: Final = 15
IDENTIFIER_CHARACTERS_MAX: Final = 100
SECONDS_OF_HOUR: Final = 3600
EXISTS: Final = "already exists"
EXISTS_CODE: Final = "duplicate_meter_event"


class NotMeterable(ValueError):
    """Stripe's meter cannot take this value; the message says why."""


def send_value(*, tenant_id: int, gateway: StripeGateway) -> bool:
    """Send the next value that Stripe lacks. False: none is due."""
    row = _claim(tenant_id, is_live=gateway.is_live)
    if row is None:
        return False
    try:
        _send(row, gateway)
    except KeyRejected:
        _store(row)
        raise
    except (StripeFailure, NotMeterable) as error:
        wait = wait_seconds(row.attempts)
        if isinstance(error, Busy):
            wait = max(wait, int(error.retry_after_seconds or 0))
        later = timezone.now() + timedelta(seconds=wait)
        _store(row, problem=str(error)[:600], next_attempt_at=later)
    else:
        _store(row, problem="", sent_value=row.value)
    return True


def _send(row: StripeMeterValue, gateway: StripeGateway) -> None:
    """Send a value; one that Stripe has already counts as sent."""
    given = _given(row)
    try:
        # The identifier keeps a value from being counted twice, so no answer need be kept.
        gateway.send_meter_event(given, key=f"{given['identifier']}:{row.attempts}")
    except Rejected as error:
        if error.code != EXISTS_CODE and EXISTS not in str(error):
            raise


def _given(row: StripeMeterValue) -> JsonObject:
    customer = row.account.customer.stripe_customer or row.account.stripe_customer
    if not customer:
        raise NotMeterable("The customer has no customer at Stripe: enter its id (cus_…).")
    if len(str(row.value)) > DIGITS_MAX:
        raise NotMeterable(f"Stripe takes values of at most {DIGITS_MAX} digits.")
    identifier = f"spendgate-{row.tenant_id}-{row.id}-{row.hour:%Y%m%d%H}-{row.revision}"
    assert len(identifier) <= IDENTIFIER_CHARACTERS_MAX, "it is made of short numbers"
    # A later value of the same hour is the newer one by its time, too.
    second = min(row.revision, SECONDS_OF_HOUR - 1)
    return {
        "event_name": row.meter.event_name,
        "identifier": identifier,
        "payload": {"stripe_customer_id": customer, "value": str(row.value)},
        "timestamp": int(row.hour.timestamp()) + second,
    }


def _claim(tenant_id: int, *, is_live: bool) -> StripeMeterValue | None:
    """Take the next value of a customer and meter of which none is under way."""
    now = timezone.now()
    with tenant_scope(tenant_id):
        for row in _due(tenant_id, is_live=is_live)[:CANDIDATES_MAX]:
            locked = StripeAccount.objects.select_for_update(skip_locked=True)
            if not locked.filter(id=row.account_id).exists():
                continue
            same = StripeMeterValue.objects.filter(account=row.account_id, meter=row.meter_id)
            if same.filter(claimed_until__gt=now).exists():
                continue
            row.claimed_until, row.attempts = now + LEASE, row.attempts + 1
            row.save(update_fields=["claimed_until", "attempts"])
            return row
    return None


def _due(tenant_id: int, *, is_live: bool) -> QuerySet[StripeMeterValue]:
    now = timezone.now()
    return (
        StripeMeterValue.objects.filter(
            Q(sent_value=None) | ~Q(sent_value=F("value")),
            tenant_id=tenant_id,
            account__is_live=is_live,
            next_attempt_at__lte=now,
            hour__gt=now - DAYS_BACK,
        )
        .select_related("meter", "account__customer")
        .order_by("next_attempt_at", "id")
    )


def _store(row: StripeMeterValue, **changes: object) -> None:
    with tenant_scope(row.tenant_id):
        StripeMeterValue.objects.filter(id=row.id, claimed_until=row.claimed_until).update(
            claimed_until=None, **changes
        )
