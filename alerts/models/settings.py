"""What a tenant is notified of, and when not."""

from datetime import time

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from tenants.models import Tenant


class AlertSettings(models.Model):
    """A tenant's alert settings; one row, made when something is first changed."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE)
    # Local times in the tenant's zone; both or none. Across midnight if `until` is earlier.
    quiet_from = models.TimeField(null=True, blank=True)
    quiet_until = models.TimeField(null=True, blank=True)
    # No one is notified of the same cause again within this time, unless it became more severe.
    cool_down_seconds = models.PositiveIntegerField(default=900)
    # When daily and weekly digests leave, in the tenant's zone; weekly ones on Monday.
    digest_at = models.TimeField(default=time(8))
    # Whether a session that loops is halted.
    halts_loops = models.BooleanField(default=False)
    # The percentage of budgets' limits that counts while a critical anomaly is open; None: all.
    anomaly_limit_percent = models.PositiveSmallIntegerField(null=True, blank=True)
    # Rules as they differ from `alerts.rules.RULES`: {"name": {"threshold", "severity", "on"}}.
    rules = models.JSONField(default=dict, blank=True)

    class Meta:
        db_table = "alert_settings"
        verbose_name_plural = "alert settings"
        constraints = [
            models.CheckConstraint(
                condition=Q(quiet_from__isnull=True, quiet_until__isnull=True)
                | Q(quiet_from__isnull=False, quiet_until__isnull=False),
                name="alert_settings_quiet_hours_have_two_ends",
            ),
            models.CheckConstraint(
                condition=Q(anomaly_limit_percent__isnull=True)
                | Q(anomaly_limit_percent__gte=1, anomaly_limit_percent__lte=99),
                name="alert_settings_limit_percent",
            ),
        ]

    def __str__(self) -> str:
        return "alert settings"


class MaintenanceWindow(models.Model):
    """A time in which unusual spend is expected: what is not critical waits until it is over."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    # Which incidents, by dimension; empty: all.
    match = models.JSONField(default=dict, blank=True)
    reason = models.CharField(max_length=1000)
    created_at = models.DateTimeField(db_default=Now())
    created_by = models.CharField(max_length=300)

    class Meta:
        db_table = "maintenance_window"
        indexes = [models.Index(fields=["tenant", "ends_at"], name="maintenance_window_by_end")]
        constraints = [
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")), name="maintenance_window_has_length"
            )
        ]

    def __str__(self) -> str:
        return self.reason
