"""Where alerts go, and what became of each."""

import uuid
from datetime import datetime

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from alerts.models.incidents import Incident, Severity
from tenants.models import Tenant


class ChannelKind(models.TextChoices):
    """How an alert travels."""

    EMAIL = "email"
    SLACK = "slack"
    TEAMS = "teams"
    DISCORD = "discord"
    PAGERDUTY = "pagerduty"
    WEBHOOK = "webhook"


class Digest(models.TextChoices):
    """How often what is not sent immediately is sent together."""

    NONE = "none"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"


def is_failing(delivered_at: datetime | None, failed_at: datetime | None) -> bool:
    """Whether the last attempt failed."""
    return failed_at is not None and (delivered_at is None or delivered_at < failed_at)


class Channel(models.Model):
    """A destination for alerts. Secret settings are in `secrets`, encrypted and never shown."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=10, choices=ChannelKind.choices)
    # Visible to anyone with read access: recipients, the visible part of an address.
    config = models.JSONField(default=dict)
    secrets = models.BinaryField(editable=False)
    # Contacts named in budget levels that this channel reaches. Empty: it gets every incident,
    # regardless of the contacts named.
    contacts = ArrayField(models.CharField(max_length=100), default=list, blank=True)
    # Severities that are sent immediately; the others wait for the digest.
    severities = ArrayField(models.CharField(max_length=10, choices=Severity.choices))
    digest = models.CharField(max_length=10, choices=Digest.choices, default=Digest.NONE)
    # Until when digests have reported incidents.
    digested_at = models.DateTimeField(null=True, editable=False)
    is_paused = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    # Its deliveries stay readable.
    removed_at = models.DateTimeField(null=True, editable=False)
    delivered_at = models.DateTimeField(null=True, editable=False)
    failed_at = models.DateTimeField(null=True, editable=False)
    last_error = models.CharField(max_length=1000, blank=True, editable=False)

    class Meta:
        db_table = "channel"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "name"],
                condition=Q(removed_at__isnull=True),
                name="channel_name_once_a_tenant",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=ChannelKind.values), name="channel_known_kind"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to deliver failed."""
        return is_failing(self.delivered_at, self.failed_at)


class DeliveryEvent(models.TextChoices):
    """What a delivery reports."""

    OPENED = "opened"
    UPDATED = "updated"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    DIGEST = "digest"
    REPORT = "report"
    TEST = "test"


class DeliveryState(models.TextChoices):
    """Where a delivery stands: `waiting` until it is sent, given up, or not needed any more."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"
    SUPERSEDED = "superseded"


class HeldBy(models.TextChoices):
    """Why a delivery waits although nothing failed."""

    QUIET_HOURS = "quiet hours"
    MAINTENANCE = "maintenance"
    COOL_DOWN = "cool-down"
    BURST = "burst"


class Delivery(models.Model):
    """One message for one channel; the rows are also the queue of messages to send.

    Invariant: `message` and `reference` never change, through all attempts and every resend, so a
    receiver can detect a repeat. A waiting delivery whose claim has expired can be claimed
    again.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    # None: mail to `recipients` through the operator's own server.
    channel = models.ForeignKey(Channel, null=True, on_delete=models.PROTECT, db_index=False)
    recipients = ArrayField(models.CharField(max_length=254), default=list, blank=True)
    incident = models.ForeignKey(Incident, null=True, on_delete=models.CASCADE)
    event = models.CharField(max_length=12, choices=DeliveryEvent.choices)
    severity = models.CharField(max_length=10, choices=Severity.choices)
    reference = models.UUIDField(default=uuid.uuid4, unique=True)
    # `alerts.messages.Message` as JSON.
    message = models.JSONField()
    state = models.CharField(
        max_length=10, choices=DeliveryState.choices, default=DeliveryState.WAITING
    )
    created_at = models.DateTimeField(db_default=Now())
    # Not before this: the next attempt, or the end of quiet hours or of a maintenance window.
    due_at = models.DateTimeField(db_default=Now())
    # A `HeldBy`; empty once it is released, and if nothing held it.
    held_by = models.CharField(max_length=20, blank=True)
    claimed_until = models.DateTimeField(null=True)
    attempts = models.IntegerField(default=0)
    # Attempts since it was last resent manually; the attempt limit applies to these.
    tries = models.IntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=1000, blank=True)

    class Meta:
        db_table = "delivery"
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(
                fields=["due_at"], condition=Q(state=DeliveryState.WAITING), name="delivery_due"
            ),
            models.Index(
                fields=["tenant", "channel", "id"],
                condition=Q(state=DeliveryState.WAITING),
                name="delivery_waiting",
            ),
            models.Index(fields=["tenant", "-id"], name="delivery_newest"),
            models.Index(fields=["incident", "id"], name="delivery_of_incident"),
            models.Index(
                fields=["tenant", "-id"],
                condition=Q(state=DeliveryState.DEAD),
                name="delivery_dead",
            ),
            # How much was sent lately; also of mail without a channel.
            models.Index(fields=["channel", "created_at"], name="delivery_of_channel"),
            models.Index(
                fields=["tenant", "created_at"],
                condition=Q(event=DeliveryEvent.TEST),
                name="delivery_test",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=DeliveryState.values), name="delivery_known_state"
            )
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.reference}"


class DeliveryAttempt(models.Model):
    """One try to send a delivery."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="tried")
    started_at = models.DateTimeField()
    duration_ms = models.IntegerField()
    is_success = models.BooleanField()
    # Of HTTP; None where no answer came.
    status = models.IntegerField(null=True)
    error = models.CharField(max_length=1000, blank=True)

    class Meta:
        db_table = "delivery_attempt"
        indexes = [models.Index(fields=["delivery", "id"], name="delivery_attempt_in_order")]

    def __str__(self) -> str:
        return f"attempt on {self.delivery_id}"
