"""What people should look at, and what happened to it."""

from typing import Final

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from metering.models.sums import SumField
from tenants.models import Tenant, User


class Severity(models.TextChoices):
    """How soon someone should look."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class IncidentKind(models.TextChoices):
    """What was seen."""

    CROSSING = "crossing"
    ANOMALY = "anomaly"
    RULE = "rule"
    LOOP = "loop"
    BREAKER = "breaker"
    RECONCILIATION = "reconciliation"


class EntryKind(models.TextChoices):
    """What a line of an incident's timeline says."""

    OPENED = "opened"
    UPDATED = "updated"
    ESCALATED = "escalated"
    REOPENED = "reopened"
    ACKNOWLEDGED = "acknowledged"
    ASSIGNED = "assigned"
    SNOOZED = "snoozed"
    COMMENTED = "commented"
    NOTIFIED = "notified"
    NOT_NOTIFIED = "not_notified"
    HALTED = "halted"
    RESOLVED = "resolved"


# Who acts when the service does.
SERVICE: Final = "spendgate"
STATUSES: Final = ("open", "acknowledged", "snoozed", "resolved")


class Incident(models.Model):
    """Something people should look at: one for a cause as long as it lasts.

    Invariant: a cause has at most one incident that is not resolved. `seen_at` is when the cause
    was last observed, also after a person resolved it: once it has rested for the tenant's
    cool-down, the next observation is a new incident.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    kind = models.CharField(max_length=20, choices=IncidentKind.choices)
    # Names what it is about, the same at every observation: "anomaly:12", "loop:session-7".
    cause = models.CharField(max_length=700)
    severity = models.CharField(max_length=10, choices=Severity.choices)
    title = models.CharField(max_length=300)
    # One to three sentences with the figures as last observed.
    summary = models.TextField()
    # Dimensions and the values that it is about.
    match = models.JSONField(default=dict)
    # Figures for machines; what is money ends in `_nanos`.
    facts = models.JSONField(default=dict)
    # Money that was spent beyond what was expected or allowed, as far as it is known.
    excess_nanos = SumField(null=True)
    observations = models.IntegerField(default=1)
    opened_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(auto_now=True)
    # When people were last notified of it; a cool-down counts from here.
    notified_at = models.DateTimeField(null=True)
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.CharField(max_length=300, blank=True)
    assigned_to = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    snoozed_until = models.DateTimeField(null=True)
    resolved_at = models.DateTimeField(null=True)
    # Empty: it ended by itself.
    resolved_by = models.CharField(max_length=300, blank=True)

    class Meta:
        db_table = "incident"
        indexes = [
            models.Index(fields=["tenant", "-id"], name="incident_newest"),
            models.Index(fields=["tenant", "cause", "-id"], name="incident_of_cause"),
            models.Index(
                fields=["tenant", "kind"],
                condition=Q(resolved_at__isnull=True),
                name="incident_unresolved",
            ),
            # What a digest tells of.
            models.Index(fields=["tenant", "opened_at"], name="incident_by_begin"),
            models.Index(
                fields=["tenant", "resolved_at"],
                condition=Q(resolved_at__isnull=False),
                name="incident_by_end",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "cause"],
                condition=Q(resolved_at__isnull=True),
                name="incident_once_a_cause",
            ),
            models.CheckConstraint(
                condition=Q(severity__in=Severity.values) & Q(kind__in=IncidentKind.values),
                name="incident_known_kind_and_severity",
            ),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def status(self) -> str:
        """One of STATUSES, at this moment."""
        if self.resolved_at is not None:
            return "resolved"
        if self.snoozed_until is not None and self.snoozed_until > timezone.now():
            return "snoozed"
        return "open" if self.acknowledged_at is None else "acknowledged"

    def add_entry(self, kind: EntryKind, actor: str, text: str = "") -> None:
        """Write a line of its timeline."""
        IncidentEntry.objects.create(
            tenant_id=self.tenant_id, incident=self, kind=kind, actor=actor[:300], text=text
        )


class IncidentEntry(models.Model):
    """One line of an incident's timeline. Never changed or removed."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="entries")
    at = models.DateTimeField(db_default=Now())
    kind = models.CharField(max_length=20, choices=EntryKind.choices)
    # A person, a key, or "spendgate" for the service itself.
    actor = models.CharField(max_length=300)
    text = models.TextField(blank=True)

    class Meta:
        db_table = "incident_entry"
        indexes = [models.Index(fields=["incident", "id"], name="incident_entry_in_order")]

    def __str__(self) -> str:
        return f"{self.kind} by {self.actor}"
