"""Customers, and which usage is theirs."""

from django.db import models
from django.db.models import F, Q
from django.utils.timezone import now

from tenants.models import Tenant


class Customer(models.Model):
    """Who is billed. `key` is what usage names it by."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="customers")
    key = models.CharField(max_length=200, db_collation="C")
    name = models.CharField(max_length=200)
    currency = models.CharField(max_length=3, default="USD")
    timezone = models.CharField(max_length=64, default="UTC")
    email = models.EmailField(blank=True, default="")
    address = models.TextField(max_length=1000, blank=True, default="")
    country = models.CharField(max_length=2, blank=True, default="")
    vat_id = models.CharField(max_length=50, blank=True, default="")
    payment_terms_days = models.PositiveSmallIntegerField(default=30)
    # [{"name": "VAT", "percent": "19"}], percent as a decimal string.
    tax_rates = models.JSONField(default=list, blank=True)
    stripe_customer = models.CharField(max_length=100, blank=True, default="")
    # Signed links to the customer's own page hold it: raising it ends all of them.
    link_generation = models.PositiveIntegerField(default=0, editable=False)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    # When a period begins that needs a draft; None: none does.
    next_draft_at = models.DateTimeField(null=True, default=now, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "customer"
        indexes = [
            models.Index(
                fields=["next_draft_at"],
                condition=Q(next_draft_at__isnull=False),
                name="customer_next_draft",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "key"], name="customer_key_once"),
        ]

    def __str__(self) -> str:
        return self.name


class CustomerLink(models.Model):
    """Usage that is a customer's: that of one value of a dimension, from a moment (None: ever) to
    another (None: on). A value is linked to one customer at a time.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="links")
    dimension = models.CharField(max_length=20)
    value = models.CharField(max_length=200, db_collation="C")
    starts_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "customer_link"
        indexes = [
            models.Index(fields=["tenant", "dimension", "value"], name="customer_link_of_value"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(starts_at=None) | Q(ends_at=None) | Q(starts_at__lt=F("ends_at")),
                name="customer_link_lasts",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dimension}={self.value}"
