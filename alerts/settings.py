"""Read and change a tenant's alert settings and maintenance windows."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.utils import timezone

from alerts.models import AlertSettings, Delivery, DeliveryState, HeldBy, MaintenanceWindow
from alerts.rules import RuleChanges, differing_rules
from common.json_bodies import JsonObject
from metering.core.validation import Problem, require
from tenants.audit import audited_change, create_audited, delete_audited, lock_stored
from tenants.models import Tenant

MAINTENANCE_MAX: Final = timedelta(days=31)


def settings_of(tenant_id: int) -> AlertSettings:
    """Return the tenant's settings; the defaults, unsaved, if nothing was changed yet."""
    stored = AlertSettings.objects.filter(tenant_id=tenant_id).first()
    return stored or AlertSettings(tenant_id=tenant_id)


@transaction.atomic
def change_alert_settings(
    *, tenant: Tenant, actor: str, changes: Mapping[str, object], rules: RuleChanges | None = None
) -> AlertSettings:
    """Change settings, and of rules the members that are named; None resets a rule to its default.

    For what is sent from now on; what waits already leaves as before. Two simultaneous changes both
    count, since the row is locked before it is read.
    """
    stored, _ = AlertSettings.objects.get_or_create(tenant=tenant)
    with audited_change(stored, actor=actor, changes=changes) as change:
        change.row.rules = differing_rules(change.row.rules, rules or {})
        change.row.full_clean(validate_unique=False)
    return change.row


def validate_period(starts_at: datetime, ends_at: datetime) -> None:
    """Raise ValidationError for a maintenance window that is over already, or longer than a month:
    if it is forgotten, no one is notified of anything.
    """
    if ends_at <= max(starts_at, timezone.now()):
        require([Problem("ends_at", "Must be after the start, and in the future.")])
    if ends_at - starts_at > MAINTENANCE_MAX:
        require(
            [Problem("ends_at", f"Must be at most {MAINTENANCE_MAX.days} days after it begins.")]
        )


@transaction.atomic
def create_maintenance_window(
    *,
    tenant: Tenant,
    actor: str,
    starts_at: datetime,
    ends_at: datetime,
    match: JsonObject,
    reason: str,
) -> MaintenanceWindow:
    """Announce a time in which unusual spend is expected. Raises ValidationError."""
    validate_period(starts_at, ends_at)
    window = MaintenanceWindow(
        tenant=tenant,
        starts_at=starts_at,
        ends_at=ends_at,
        match=match,
        reason=reason,
        created_by=actor[:300],
    )
    return create_audited(window, actor=actor)


@transaction.atomic
def end_maintenance_window(*, window: MaintenanceWindow, actor: str) -> None:
    """End a window now; one that has not begun is removed. A past one stays as it is.

    What waits for its end is sent immediately.
    """
    stored, now = lock_stored(window), timezone.now()
    if stored.ends_at <= now:
        return
    Delivery.objects.filter(
        tenant_id=stored.tenant_id,
        state=DeliveryState.WAITING,
        held_by=HeldBy.MAINTENANCE,
        due_at=stored.ends_at,
    ).update(due_at=now)
    if stored.starts_at >= now:
        delete_audited(stored, actor=actor)
        return
    with audited_change(stored, actor=actor, changes={"ends_at": now}):
        pass
