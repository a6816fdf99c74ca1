"""What providers billed, and what comparing found."""

from decimal import Decimal

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from billing.models.statements import Statement
from metering.models.sums import SumField
from tenants.models import Tenant


class ProviderBillLine(models.Model):
    """What a provider billed for a day in UTC and a model, or for an item that is no model's.

    A day of a provider's account is replaced as a whole by a newer report of it.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    provider = models.CharField(max_length=50)
    # Which of the tenant's accounts with the provider; empty where there is one.
    account = models.CharField(max_length=200, blank=True, default="")
    day = models.DateField()
    # As `billing.provider_bills.lines.model_name` spells it. Empty with an item, or with nothing:
    # then it is all that the day cost.
    model = models.CharField(max_length=200, blank=True, default="")
    line_item = models.CharField(max_length=200, blank=True, default="")
    amount_nanos = SumField()
    # Which format it was read from: "openai", "anthropic", "focus".
    source = models.CharField(max_length=20)
    imported_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "provider_bill_line"
        indexes = [
            models.Index(fields=["tenant", "day"], name="provider_bill_line_by_day"),
            models.Index(fields=["tenant", "imported_at"], name="provider_bill_line_newest"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "provider", "account", "day", "model", "line_item"],
                name="provider_bill_line_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.day} {self.model or self.line_item}"


class ReconciliationSettings(models.Model):
    """When what differs is an incident. No row: the defaults."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, primary_key=True)
    # Both must be passed, so that neither cents of a large bill nor a large share of cents call
    # anyone.
    threshold_percent = models.DecimalField(max_digits=6, decimal_places=2, default=Decimal(1))
    threshold_nanos = models.BigIntegerField(default=1_000_000_000)
    # Whether days are compared by themselves after their bill was imported.
    is_daily = models.BooleanField(default=True)

    class Meta:
        db_table = "reconciliation_settings"
        constraints = [
            models.CheckConstraint(
                condition=Q(threshold_percent__gte=0, threshold_nanos__gte=0),
                name="reconciliation_settings_thresholds",
            ),
        ]

    def __str__(self) -> str:
        return f"reconciliation of {self.tenant_id}"


class ReconciliationKind(models.TextChoices):
    """What is compared with what."""

    # Providers' bills with the cost of usage.
    PROVIDERS = "providers"
    # What final statements charge for with the usage of now.
    STATEMENTS = "statements"
    # Invoices in Stripe with statements.
    STRIPE = "stripe"


class ReconciliationState(models.TextChoices):
    """Where a reconciliation stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Reconciliation(models.Model):
    """A comparison of some days in UTC, done by workers in steps: the row is their queue."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    first_day = models.DateField()
    last_day = models.DateField()
    # Of ReconciliationKind, in the order in which they are done.
    kinds = models.JSONField()
    state = models.CharField(
        max_length=10, choices=ReconciliationState.choices, default=ReconciliationState.WAITING
    )
    # The settings as they were when it began.
    threshold_percent = models.DecimalField(max_digits=6, decimal_places=2)
    threshold_nanos = models.BigIntegerField()
    # How far it is: the kind's place in `kinds`, and after which day or statement of it.
    kind_place = models.PositiveSmallIntegerField(default=0)
    after = models.BigIntegerField(default=0)
    # By kind, as `billing.reconciliation.results.KindResult` is written in JSON.
    results = models.JSONField(default=dict)
    actor = models.CharField(max_length=300)
    failures = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=300, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now())
    stepped_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    # When alerts took it.
    judged_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "reconciliation"
        indexes = [
            models.Index(fields=["tenant", "-id"], name="reconciliation_newest"),
            models.Index(
                fields=["tenant"],
                condition=Q(state__in=["waiting", "running"]),
                name="reconciliation_unfinished",
            ),
            models.Index(
                fields=["tenant"],
                condition=Q(state="done", judged_at=None),
                name="reconciliation_unjudged",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(first_day__lte=F("last_day")), name="reconciliation_lasts"
            ),
        ]

    def __str__(self) -> str:
        return f"reconciliation {self.pk}"


class Drift(models.Model):
    """Something that differs: `difference` is what was found less what was expected of usage."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    reconciliation = models.ForeignKey(
        Reconciliation, on_delete=models.CASCADE, related_name="drifts"
    )
    kind = models.CharField(max_length=10, choices=ReconciliationKind.choices)
    # Of bills.
    day = models.DateField(null=True)
    provider = models.CharField(max_length=50, blank=True, default="")
    model = models.CharField(max_length=200, blank=True, default="")
    line_item = models.CharField(max_length=200, blank=True, default="")
    # Of statements and invoices.
    statement = models.ForeignKey(Statement, on_delete=models.CASCADE, null=True)
    line = models.CharField(max_length=300, blank=True, default="")
    # A currency's code, or what a quantity counts: "USD", "input_tokens".
    unit = models.CharField(max_length=20)
    expected = models.DecimalField(max_digits=50, decimal_places=9)
    found = models.DecimalField(max_digits=50, decimal_places=9)
    difference = models.DecimalField(max_digits=50, decimal_places=9)
    # In words, where figures alone say too little.
    note = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        db_table = "reconciliation_drift"
        indexes = [
            models.Index(fields=["reconciliation", "id"], name="reconciliation_drift_in_order")
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(difference=F("found") - F("expected")) & ~Q(difference=0),
                name="reconciliation_drift_differs",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.difference} {self.unit}"
