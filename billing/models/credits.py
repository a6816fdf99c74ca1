"""Prepaid credit: grants, what moved them, and the wallet that enforces them."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from billing.models.customers import Customer
from billing.models.statements import Statement
from metering.models import Budget
from tenants.models import Tenant


class CreditKind(models.TextChoices):
    """Whether a customer paid for a grant."""

    PAID = "paid"
    PROMOTIONAL = "promotional"


class CreditState(models.TextChoices):
    """Where a grant stands. An expired one may still have what it pays for; see `credit_expiry`."""

    SCHEDULED = "scheduled"
    ACTIVE = "active"
    EXPIRED = "expired"


class CreditGrant(models.Model):
    """Credit of a customer, in minor units of its currency.

    Invariant: `balance` is the sum of the grant's entries. `billing.credit_entries` is the one
    writer, and `manage.py audit_credit` proves it.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="credit_grants")
    amount = models.BigIntegerField()
    balance = models.BigIntegerField(default=0, editable=False)
    kind = models.CharField(max_length=11, choices=CreditKind.choices)
    # Lower is drawn first.
    priority = models.PositiveSmallIntegerField(default=50)
    state = models.CharField(
        max_length=9,
        choices=CreditState.choices,
        default=CreditState.SCHEDULED,
        editable=False,
    )
    effective_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    expired_at = models.DateTimeField(null=True, editable=False)
    # What of the unused amount becomes a grant of its own when this one expires; no percent: none.
    rollover_percent = models.PositiveSmallIntegerField(null=True, blank=True)
    # The most that rolled-over grants of the customer hold together.
    rollover_max = models.BigIntegerField(null=True, blank=True)
    # How long the new grant lasts; none: without an end.
    rollover_months = models.PositiveSmallIntegerField(null=True, blank=True)
    rolled_from = models.ForeignKey("self", on_delete=models.PROTECT, null=True)
    reference = models.CharField(max_length=200, blank=True, default="")
    actor = models.CharField(max_length=300, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "credit_grant"
        indexes = [
            models.Index(
                fields=["customer"], condition=Q(balance__gt=0), name="credit_grant_with_balance"
            ),
            models.Index(
                fields=["tenant", "expires_at"],
                condition=~Q(state=CreditState.EXPIRED),
                name="credit_grant_expiring",
            ),
            models.Index(
                fields=["tenant", "effective_at"],
                condition=Q(state=CreditState.SCHEDULED),
                name="credit_grant_beginning",
            ),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="credit_grant_of_something"),
            models.CheckConstraint(
                condition=Q(balance__gte=0) & Q(balance__lte=F("amount")),
                name="credit_grant_balance",
            ),
            models.CheckConstraint(
                condition=Q(expires_at=None) | Q(effective_at__lt=F("expires_at")),
                name="credit_grant_lasts",
            ),
            models.CheckConstraint(
                condition=Q(state=CreditState.EXPIRED, expired_at__isnull=False)
                | (~Q(state=CreditState.EXPIRED) & Q(expired_at=None)),
                name="credit_grant_expired_at",
            ),
            models.CheckConstraint(
                condition=Q(
                    rollover_percent=None, rollover_max__isnull=True, rollover_months__isnull=True
                )
                | (
                    Q(rollover_percent__gte=1)
                    & Q(rollover_percent__lte=100)
                    & (Q(rollover_max=None) | Q(rollover_max__gt=0))
                    & (Q(rollover_months=None) | Q(rollover_months__gt=0))
                    & Q(expires_at__isnull=False)
                ),
                name="credit_grant_rollover",
            ),
        ]

    def __str__(self) -> str:
        return f"credit {self.pk}"


class Wallet(models.Model):
    """A customer's credit as a blocking budget over its usage, from one moment to another.

    Invariant: while it is open, the budget's limit is what the grants cover at cost plus `percent`;
    `billing.wallets` says how.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="wallets")
    budget = models.OneToOneField(Budget, on_delete=models.PROTECT, related_name="wallet")
    # What the customer is charged on top of the provider's cost.
    percent = models.DecimalField(max_digits=20, decimal_places=10)
    opened_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    actor = models.CharField(max_length=300)

    class Meta:
        db_table = "wallet"
        constraints = [
            models.UniqueConstraint(
                fields=["customer"], condition=Q(ended_at=None), name="wallet_once_a_customer"
            ),
            models.CheckConstraint(condition=Q(percent__gte=0), name="wallet_percent"),
        ]

    def __str__(self) -> str:
        return f"wallet of {self.customer_id}"


class CreditEntryKind(models.TextChoices):
    """Why a grant's balance moved."""

    GRANTED = "granted"
    APPLIED = "applied"
    RETURNED = "returned"
    EXPIRED = "expired"
    VOIDED = "voided"
    ROLLED_OVER = "rolled_over"


class CreditEntry(models.Model):
    """Append-only: why a grant's balance moved, in minor units."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, related_name="entries")
    kind = models.CharField(max_length=11, choices=CreditEntryKind.choices)
    amount = models.BigIntegerField()
    # Of what is applied and returned: the statement, and the wallet that was open then.
    statement = models.ForeignKey(
        Statement, on_delete=models.PROTECT, null=True, related_name="credit_entries"
    )
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, null=True, related_name="entries")
    note = models.CharField(max_length=1000, blank=True, default="")
    actor = models.CharField(max_length=300)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "credit_entry"
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    kind__in=[CreditEntryKind.GRANTED, CreditEntryKind.RETURNED], amount__gt=0
                )
                | Q(
                    kind__in=[
                        CreditEntryKind.APPLIED,
                        CreditEntryKind.EXPIRED,
                        CreditEntryKind.VOIDED,
                    ],
                    amount__lt=0,
                )
                | (Q(kind=CreditEntryKind.ROLLED_OVER) & ~Q(amount=0)),
                name="credit_entry_sign",
            ),
            models.CheckConstraint(
                condition=Q(
                    kind__in=[CreditEntryKind.APPLIED, CreditEntryKind.RETURNED],
                    statement__isnull=False,
                )
                | (
                    ~Q(kind__in=[CreditEntryKind.APPLIED, CreditEntryKind.RETURNED])
                    & Q(statement=None, wallet=None)
                ),
                name="credit_entry_of_statement",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount}"


class CreditCover(models.Model):
    """What an expired grant keeps for calls that were in flight then. The row goes when the last of
    them has ended.
    """

    grant = models.OneToOneField(
        CreditGrant, on_delete=models.CASCADE, primary_key=True, related_name="cover"
    )
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    wallet = models.ForeignKey(Wallet, on_delete=models.CASCADE)
    # What the grant kept when it expired, in minor units, less what has expired since.
    kept = models.BigIntegerField()
    # What other grants paid of the usage at that moment: applied, or before this one in the order.
    paid_before = models.BigIntegerField()
    # The provider's cost in the wallet at that moment, with that of calls that have ended since.
    spent_nanos = models.BigIntegerField()
    # Reservations that were open then and still are.
    in_flight = ArrayField(models.UUIDField())

    class Meta:
        db_table = "credit_cover"
        constraints = [
            models.CheckConstraint(condition=Q(kept__gte=0), name="credit_cover_kept"),
        ]

    def __str__(self) -> str:
        return f"cover of {self.grant_id}"
