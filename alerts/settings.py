"""Read and change a tenant's alert settings and maintenance windows."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from alerts.models import AlertSettings, Delivery, DeliveryState, HeldBy, MaintenanceWindow
from tenants.audit import facts_of, record_change
from tenants.models import Tenant

MAINTENANCE_MAX: Final = timedelta(days=31)


def settings_of(tenant_id: int) -> AlertSettings:
    """Return the tenant's settings; the defaults, unsaved, if nothing was changed yet."""
    stored = AlertSettings.objects.filter(tenant_id=tenant_id).first()
    return stored or AlertSettings(tenant_id=tenant_id)


@transaction.atomic
def change_alert_settings(
    *, tenant: Tenant, actor: str, changes: Mapping[str, Any]
) -> AlertSettings:
    """Change settings, for what is sent from now on; what waits already leaves as before."""
    AlertSettings.objects.get_or_create(tenant=tenant)
    stored = AlertSettings.objects.select_for_update().get(tenant=tenant)
    before = facts_of(stored)
    for name, value in changes.items():
        setattr(stored, name, value)
    stored.full_clean(validate_unique=False)
    stored.save(update_fields=list(changes) or None)
    record_change(
        tenant_id=tenant.id,
        actor=actor,
        action="update",
        subject=stored,
        before=before,
        after=facts_of(stored),
    )
    return stored


@transaction.atomic
def create_maintenance_window(
    *,
    tenant: Tenant,
    actor: str,
    starts_at: datetime,
    ends_at: datetime,
    match: Mapping[str, Any],
    reason: str,
) -> MaintenanceWindow:
    """Announce a time in which unusual spend is expected. Raises ValidationError for one that is
    over already, or longer than a month: if it is forgotten, no one is notified of anything.
    """
    if ends_at <= max(starts_at, timezone.now()):
        raise ValidationError("A maintenance window must end after it begins, and not in the past.")
    if ends_at - starts_at > MAINTENANCE_MAX:
        raise ValidationError(f"A maintenance window lasts at most {MAINTENANCE_MAX.days} days.")
    window = MaintenanceWindow.objects.create(
        tenant=tenant,
        starts_at=starts_at,
        ends_at=ends_at,
        match=dict(match),
        reason=reason,
        created_by=actor[:300],
    )
    record_change(
        tenant_id=tenant.id, actor=actor, action="create", subject=window, after=facts_of(window)
    )
    return window


@transaction.atomic
def end_maintenance_window(*, window: MaintenanceWindow, actor: str) -> None:
    """End a window now; one that has not begun is removed. A past one stays as it is.

    What waits for its end is sent immediately.
    """
    stored = MaintenanceWindow.objects.select_for_update().filter(id=window.id).first()
    now = timezone.now()
    if stored is None or stored.ends_at <= now:
        return
    before = facts_of(stored)
    Delivery.objects.filter(
        tenant_id=stored.tenant_id,
        state=DeliveryState.WAITING,
        held_by=HeldBy.MAINTENANCE,
        due_at=stored.ends_at,
    ).update(due_at=now)
    if stored.starts_at >= now:
        record_change(
            tenant_id=stored.tenant_id, actor=actor, action="delete", subject=stored, before=before
        )
        stored.delete()
        return
    stored.ends_at = now
    stored.save(update_fields=["ends_at"])
    record_change(
        tenant_id=stored.tenant_id,
        actor=actor,
        action="update",
        subject=stored,
        before=before,
        after=facts_of(stored),
    )
