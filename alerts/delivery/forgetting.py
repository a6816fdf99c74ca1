"""Deliveries that nobody asks for any more."""

from datetime import timedelta
from typing import Final

from django.db.models import Q
from django.utils import timezone

from alerts.models import Delivery, DeliveryAttempt, DeliveryState
from tenants.scope import platform_scope

KEPT: Final = timedelta(days=90)
FORGET_AT_ONCE: Final = 1000


def forget_old_deliveries() -> int:
    """Drop what ended and is older than it is kept, in portions; answers how many."""
    forgotten = 0
    while ids := _forget_some():
        forgotten += ids
    return forgotten


def _forget_some() -> int:
    with platform_scope("forget old deliveries"):
        # What was written while its channel was removed waits for nobody.
        is_over = ~Q(state=DeliveryState.WAITING) | Q(channel__removed_at__isnull=False)
        old = Delivery.objects.filter(is_over, created_at__lt=timezone.now() - KEPT)
        ids = list(old.order_by("id").values_list("id", flat=True)[:FORGET_AT_ONCE])
        DeliveryAttempt.objects.filter(delivery_id__in=ids).delete()
        Delivery.objects.filter(id__in=ids).delete()
    return len(ids)
