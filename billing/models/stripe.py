"""What is known of Stripe: keys, customers there, invoices of statements, and events.

No row of a statement changes for it. Rows of test and of live mode are never mixed: each says which
it is of, and work is done for those of the present key's mode alone.
"""

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from billing.models.customers import Customer
from billing.models.plans import Plan
from billing.models.statements import Statement
from tenants.models import Tenant


class CollectionMethod(models.TextChoices):
    """How a finalized invoice is collected."""

    SEND_INVOICE = "send_invoice", "Stripe mails the invoice"
    CHARGE = "charge_automatically", "Stripe charges the customer's payment method"
    MANUAL = "manual", "The invoice is left open for you to send"
    NONE = "none", "No invoice is made in Stripe"


class InvoiceStep(models.TextChoices):
    """What is to be done next for a statement's invoice."""

    CREATE = "create"
    LINES = "lines"
    FINALIZE = "finalize"
    COLLECT = "collect"
    DONE = "done"
    VOIDED = "voided"


class AccountState(models.TextChoices):
    """How a customer pays."""

    CURRENT = "current"
    OVERDUE = "overdue"
    DISPUTED = "disputed"
    # The newest invoice that was paid was given back, wholly or in part.
    REFUNDED = "refunded"


class StripeSettings(models.Model):
    """How a tenant collects. No row: it does not."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, primary_key=True)
    # {"api_key", "webhook_secret"}, sealed; None: those of the installation.
    secrets = models.BinaryField(null=True, editable=False)
    collects = models.BooleanField(default=False)
    # Statements that were finalized before are not collected.
    collects_from = models.DateTimeField(null=True, blank=True)
    collection_method = models.CharField(
        max_length=20, choices=CollectionMethod.choices, default=CollectionMethod.SEND_INVOICE
    )
    halts_overdue = models.BooleanField(
        default=False, help_text="Stop the usage of customers who are overdue until they pay."
    )
    # On Stripe's clock, in seconds: events before it are stored. Of the key's mode.
    events_stored_until = models.BigIntegerField(default=0, editable=False)
    next_sweep_at = models.DateTimeField(default=timezone.now, editable=False)
    # Why the key cannot be used, and until when it is not tried.
    problem = models.CharField(max_length=600, blank=True, default="", editable=False)
    paused_until = models.DateTimeField(null=True, editable=False)

    class Meta:
        db_table = "stripe_settings"

    def __str__(self) -> str:
        return f"Stripe of {self.tenant_id}"


class StripeAccount(models.Model):
    """A customer at Stripe, and how it pays."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="stripe_accounts")
    is_live = models.BooleanField()
    stripe_customer = models.CharField(max_length=100, blank=True, default="")
    # When Stripe was first asked to make the customer.
    asked_at = models.DateTimeField(null=True)
    # Empty: the tenant's.
    collection_method = models.CharField(
        max_length=20, choices=CollectionMethod.choices, blank=True, default=""
    )
    state = models.CharField(
        max_length=10, choices=AccountState.choices, default=AccountState.CURRENT
    )
    state_since = models.DateTimeField(default=timezone.now)
    # [{"id", "match"}] of the halts that were made because it is overdue.
    halts = models.JSONField(default=list)
    # From when on its state may be another, because an invoice becomes due.
    judge_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "stripe_account"
        indexes = [
            models.Index(
                fields=["judge_at"],
                condition=Q(judge_at__isnull=False),
                name="stripe_account_to_judge",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["customer", "is_live"], name="stripe_account_once"),
        ]

    def __str__(self) -> str:
        return self.stripe_customer or f"customer {self.customer_id}"


class StripeInvoice(models.Model):
    """A statement's invoice at Stripe: how far it is, and what was last read of it.

    A statement has one such row, and the row at most one invoice.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    statement = models.OneToOneField(
        Statement, on_delete=models.PROTECT, related_name="stripe_invoice"
    )
    account = models.ForeignKey(StripeAccount, on_delete=models.PROTECT, related_name="invoices")
    is_live = models.BooleanField()
    stripe_id = models.CharField(max_length=100, blank=True, default="")
    # The customer at Stripe for whom the invoice was asked for last.
    stripe_customer = models.CharField(max_length=100, blank=True, default="")
    step = models.CharField(max_length=10, choices=InvoiceStep.choices, default=InvoiceStep.CREATE)
    attempts = models.PositiveIntegerField(default=0)
    # In idempotency keys: another once Stripe has answered an error, which it would repeat.
    key_number = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    claimed_until = models.DateTimeField(null=True)
    problem = models.CharField(max_length=600, blank=True, default="")
    # As last read, in Stripe's minor units.
    status = models.CharField(max_length=20, blank=True, default="")
    total = models.BigIntegerField(null=True)
    amount_due = models.BigIntegerField(default=0)
    amount_paid = models.BigIntegerField(default=0)
    amount_refunded = models.BigIntegerField(default=0)
    amount_disputed = models.BigIntegerField(default=0)
    amount_lost = models.BigIntegerField(default=0)
    has_payment_failed = models.BooleanField(default=False)
    due_at = models.DateTimeField(null=True)
    read_at = models.DateTimeField(null=True)
    # A reading that began before the last wish does not fulfill it.
    reads_wanted = models.PositiveIntegerField(default=0)
    reads_done = models.PositiveIntegerField(default=0)

    class Meta:
        db_table = "stripe_invoice"
        indexes = [
            models.Index(
                fields=["tenant", "next_attempt_at"],
                condition=~Q(step__in=[InvoiceStep.DONE, InvoiceStep.VOIDED])
                | Q(reads_wanted__gt=F("reads_done")),
                name="stripe_invoice_due",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "is_live", "stripe_id"],
                condition=~Q(stripe_id=""),
                name="stripe_invoice_once",
            ),
        ]

    def __str__(self) -> str:
        return self.stripe_id or f"invoice of statement {self.statement_id}"


class StripeEvent(models.Model):
    """Word that something of an object changed, stored before anything is done about it."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    is_live = models.BooleanField()
    event_id = models.CharField(max_length=100)
    type = models.CharField(max_length=100)
    # Which object to read again: an invoice, or what pays for one.
    stripe_invoice = models.CharField(max_length=100, blank=True, default="")
    payment_intent = models.CharField(max_length=100, blank=True, default="")
    received_at = models.DateTimeField(default=timezone.now)
    processed_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    problem = models.CharField(max_length=600, blank=True, default="")

    class Meta:
        db_table = "stripe_event"
        indexes = [
            models.Index(
                fields=["tenant", "next_attempt_at"],
                condition=Q(processed_at=None),
                name="stripe_event_due",
            ),
            models.Index(fields=["processed_at"], name="stripe_event_processed"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "is_live", "event_id"], name="stripe_event_once"
            ),
        ]

    def __str__(self) -> str:
        return self.event_id


class StripeMeter(models.Model):
    """A usage charge of a plan that Stripe meters and bills, so that its statements are not
    collected.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="stripe_meters")
    is_live = models.BooleanField()
    # By its name the charge of whichever version is in force is found.
    charge = models.CharField(max_length=300)
    # The meter's name at Stripe, and its id once it is there.
    event_name = models.CharField(max_length=100)
    stripe_id = models.CharField(max_length=100, blank=True, default="")
    next_read_at = models.DateTimeField(default=timezone.now)
    # Until when late usage of all days was looked for.
    late_read_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "stripe_meter"
        constraints = [
            models.UniqueConstraint(fields=["plan", "is_live", "charge"], name="stripe_meter_once"),
        ]

    def __str__(self) -> str:
        return self.event_name


class StripeMeterValue(models.Model):
    """How much of a metric a customer used in an hour, as Stripe's meter is to have it."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    meter = models.ForeignKey(StripeMeter, on_delete=models.CASCADE, related_name="values")
    account = models.ForeignKey(StripeAccount, on_delete=models.CASCADE, related_name="values")
    hour = models.DateTimeField()
    value = models.BigIntegerField()
    # None: not sent yet. A value that was corrected is sent again, and overwrites.
    sent_value = models.BigIntegerField(null=True)
    # How often the hour's value changed; part of the identifier at Stripe.
    revision = models.PositiveIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    claimed_until = models.DateTimeField(null=True)
    problem = models.CharField(max_length=600, blank=True, default="")

    class Meta:
        db_table = "stripe_meter_value"
        indexes = [
            models.Index(
                fields=["tenant", "next_attempt_at"],
                condition=Q(sent_value=None) | ~Q(sent_value=F("value")),
                name="stripe_meter_value_due",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["meter", "account", "hour"], name="stripe_meter_value_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.meter_id} at {self.hour:%Y-%m-%dT%H}"
