"""Statements, their lines, and the series that numbers come from."""

from django.db import models
from django.db.models import F, Q

from billing.models.customers import Customer
from billing.models.plans import Subscription
from tenants.models import Tenant


class StatementState(models.TextChoices):
    """A draft is rated whenever it is read; what is final or void never changes."""

    DRAFT = "draft"
    FINAL = "final"
    VOID = "void"


class LineKind(models.TextChoices):
    """What a line is for."""

    FLAT = "flat"
    USAGE = "usage"
    MINIMUM = "minimum"
    CAP = "cap"
    ADJUSTMENT = "adjustment"


class SeriesName(models.TextChoices):
    """Series of numbers."""

    STATEMENT = "statement"
    CREDIT_NOTE = "credit_note"


class Series(models.Model):
    """The last number that was given in a series of a tenant. Its row is locked until the
    transaction that takes the next one ends, so that there are no gaps.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    name = models.CharField(max_length=20, choices=SeriesName.choices)
    last = models.BigIntegerField(default=0)

    class Meta:
        db_table = "billing_series"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="billing_series_once"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.last}"


class Statement(models.Model):
    """What a customer owes for a period. Amounts are whole minor units of the currency; a draft
    has none, because it is rated when it is read.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="statements")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="statements")
    # The whole period; what a subscription covers of it is in the lines.
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    timezone = models.CharField(max_length=64)
    currency = models.CharField(max_length=3)
    state = models.CharField(
        max_length=5, choices=StatementState.choices, default=StatementState.DRAFT
    )
    # In the series of statements, and as it is printed.
    sequence = models.BigIntegerField(null=True)
    number = models.CharField(max_length=40, blank=True, default="")
    # Usage that was acknowledged until then is in it.
    finalized_at = models.DateTimeField(null=True)
    finalized_by = models.CharField(max_length=300, blank=True, default="")
    voided_at = models.DateTimeField(null=True)
    # A draft that could not become final by itself is tried again then.
    held_until = models.DateTimeField(null=True)
    due_on = models.DateField(null=True)
    # Names and addresses of both parties, as they were: {"seller": {...}, "customer": {...}}.
    parties = models.JSONField(default=dict)
    unpriced = models.BigIntegerField(default=0)
    # A digest of what its own lines were made of. As long as that is the same, so are they.
    inputs = models.CharField(max_length=64, blank=True, default="")
    subtotal = models.BigIntegerField(default=0)
    # {"name", "percent" | "amount"} of the coupon that was applied, or null.
    coupon = models.JSONField(null=True)
    coupon_amount = models.BigIntegerField(default=0)
    # The part of it that coupons of the statements it adjusts take off, by the id of each.
    coupon_adjustments = models.JSONField(default=dict)
    taxable = models.BigIntegerField(default=0)
    # [{"name", "percent", "amount"}], amounts in minor units.
    taxes = models.JSONField(default=list)
    total = models.BigIntegerField(default=0)
    credit_notes_applied = models.BigIntegerField(default=0)
    credit_applied = models.BigIntegerField(default=0)
    amount_due = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "statement"
        indexes = [
            models.Index(fields=["tenant", "-period_start", "-id"], name="statement_newest"),
            models.Index(fields=["customer", "period_end"], name="statement_of_customer"),
            models.Index(
                fields=["tenant", "period_end", "id"],
                condition=Q(state=StatementState.DRAFT),
                name="statement_due",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "period_start", "period_end"],
                condition=~Q(state=StatementState.VOID),
                name="statement_once",
            ),
            models.UniqueConstraint(fields=["tenant", "sequence"], name="statement_number_once"),
            models.CheckConstraint(
                condition=Q(period_start__lt=F("period_end")), name="statement_lasts"
            ),
            models.CheckConstraint(
                condition=Q(state=StatementState.DRAFT, sequence=None)
                | (~Q(state=StatementState.DRAFT) & Q(sequence__isnull=False)),
                name="statement_numbered_once_final",
            ),
            models.CheckConstraint(
                condition=Q(
                    amount_due=F("total") - F("credit_notes_applied") - F("credit_applied")
                ),
                name="statement_adds_up",
            ),
        ]

    def __str__(self) -> str:
        return self.number or f"draft {self.pk}"


class StatementLine(models.Model):
    """A line of a final statement. Never changed.

    A month end writes a million: they have no index that no one reads by, and whose a line is has
    been checked for its statement.
    """

    tenant = models.ForeignKey(
        Tenant, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False
    )
    statement = models.ForeignKey(
        Statement, on_delete=models.CASCADE, related_name="lines", db_index=False
    )
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=LineKind.choices)
    name = models.CharField(max_length=300)
    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT)
    # Which line of the statement it is, also when it is rated again: version, charge, trial or not.
    key = models.CharField(max_length=500)
    # What the line covers of the period.
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    # Exact decimals and fractions, as text: "1234.5", "145/3".
    quantity = models.CharField(max_length=100)
    exact_amount = models.TextField()
    amount = models.BigIntegerField()
    # Of an adjustment: the statement whose line of this key it adjusts.
    adjusts = models.ForeignKey(
        Statement, on_delete=models.PROTECT, null=True, related_name="adjusted_by", db_index=False
    )
    # Rate and tiers in words, and which events it is about.
    detail = models.JSONField(default=dict)

    class Meta:
        db_table = "statement_line"
        indexes = [
            models.Index(
                fields=["adjusts"],
                condition=Q(adjusts__isnull=False),
                name="statement_line_of_adjusted",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["statement", "position"], name="statement_line_once"),
            models.CheckConstraint(
                condition=Q(kind=LineKind.ADJUSTMENT, adjusts__isnull=False)
                | (~Q(kind=LineKind.ADJUSTMENT) & Q(adjusts=None)),
                name="statement_line_adjusts",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class StatementFile(models.Model):
    """A file of a statement that is not a draft, as it was first made. Never changed."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    statement = models.ForeignKey(Statement, on_delete=models.CASCADE, related_name="files")
    kind = models.CharField(max_length=4)
    content = models.BinaryField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "statement_file"
        constraints = [
            models.UniqueConstraint(fields=["statement", "kind"], name="statement_file_once"),
        ]

    def __str__(self) -> str:
        return f"{self.statement_id}.{self.kind}"
