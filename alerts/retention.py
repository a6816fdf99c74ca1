"""How long incidents are kept, with their deliveries, and maintenance windows."""

from typing import Final

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from alerts.models import Anomaly, Delivery, DeliveryState, Incident, MaintenanceWindow
from tenants.old_rows import ChunkedRun

# Each goes with its entries, deliveries and their attempts.
INCIDENTS_A_CHUNK: Final = 200


def remove_old_rows(*, seconds: float) -> int:
    """Remove deliveries, anomalies, incidents and maintenance windows that ended and are too old to
    be kept; return the number of removed rows.
    """
    run = ChunkedRun(seconds)
    before = timezone.now() - settings.RETENTION_INCIDENTS
    # What was written while its channel was removed waits for no one.
    is_over = ~Q(state=DeliveryState.WAITING) | Q(channel__removed_at__isnull=False)
    removed = run.remove_by_id(Delivery.objects.filter(is_over), at="created_at", before=before)
    ended = Anomaly.objects.filter(ended_at__lt=before)
    removed += run.remove_by_id(ended, at="began_at", before=before)
    past = MaintenanceWindow.objects.filter(ends_at__lt=before)
    removed += run.remove_by_id(past, at="created_at", before=before)
    return removed + run.remove_by_id(
        Incident.objects.filter(resolved_at__lt=before),
        at="opened_at",
        before=before,
        limit=INCIDENTS_A_CHUNK,
    )
