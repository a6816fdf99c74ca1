"""What the scans remember between two runs."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from alerts.models.incidents import Incident
from metering.models.sums import SumField
from tenants.models import Tenant


class ScanProgress(models.Model):
    """How far a tenant's series were learned. Locked by the scan that continues from here."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, primary_key=True)
    # All series have learned every bucket that starts before this; a whole quarter of an hour.
    learned_until = models.DateTimeField()
    # The newest batch that a scan has seen, so that nothing is read when nothing arrived.
    batch_id = models.BigIntegerField(default=0)
    scanned_at = models.DateTimeField(db_default=Now())
    # When the rules were last judged.
    judged_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "scan_progress"

    def __str__(self) -> str:
        return f"scans of {self.tenant_id}"


class SeriesState(models.Model):
    """What the detector has learned of one value of one dimension: a record for each measure."""

    pk = models.CompositePrimaryKey("tenant_id", "dimension", "value")
    tenant = models.ForeignKey(
        Tenant, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False
    )
    # Empty, with an empty value: the tenant as a whole.
    dimension = models.CharField(max_length=20)
    value = models.TextField(db_collation="C")
    # `alerts.anomaly.RECORD`, one for each of `alerts.series.MEASURES`, in their order.
    records = models.BinaryField()
    # The newest bucket with usage; series that are idle for long are forgotten.
    used_at = models.DateTimeField()

    class Meta:
        db_table = "series_state"
        indexes = [models.Index(fields=["tenant", "used_at"], name="series_state_idle")]

    def __str__(self) -> str:
        return f"{self.dimension}={self.value}" if self.dimension else "tenant"


class Anomaly(models.Model):
    """A stretch of time in which one measure of one series was not as expected.

    Several anomalies of one cause (an agent, its model, its team) share one incident.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    incident = models.ForeignKey(
        Incident, null=True, on_delete=models.SET_NULL, related_name="anomalies"
    )
    dimension = models.CharField(max_length=20)
    value = models.TextField()
    measure = models.CharField(max_length=30)
    is_above = models.BooleanField()
    began_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    # The most unusual of it, in the measure's own unit (nanos, tokens, requests, a share).
    score = models.FloatField()
    actual = models.FloatField()
    expected = models.FloatField()
    excess_nanos = SumField(default=0)

    class Meta:
        db_table = "anomaly"
        verbose_name_plural = "anomalies"
        indexes = [models.Index(fields=["tenant", "-id"], name="anomaly_newest")]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "dimension", "value", "measure"],
                condition=Q(ended_at__isnull=True),
                name="anomaly_once_a_series_and_measure",
            )
        ]

    def __str__(self) -> str:
        return f"{self.measure} of {self.dimension}={self.value}"
