"""Coupons: discounts on a customer's statements."""

from django.db import models
from django.db.models import F, Q

from billing.models.customers import Customer
from billing.models.statements import Statement
from tenants.models import Tenant


class Coupon(models.Model):
    """A percentage or an amount off the statements whose period ends while it lasts."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="coupons")
    name = models.CharField(max_length=200)
    percent = models.DecimalField(max_digits=7, decimal_places=4, null=True, blank=True)
    # In minor units of the customer's currency.
    amount = models.BigIntegerField(null=True, blank=True)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    # How many statements it is for; none: all.
    statements_max = models.PositiveSmallIntegerField(null=True, blank=True)
    actor = models.CharField(max_length=300, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "coupon"
        indexes = [models.Index(fields=["customer", "starts_at"], name="coupon_of_customer")]
        constraints = [
            models.CheckConstraint(
                condition=Q(percent__gt=0, percent__lte=100, amount=None)
                | Q(percent=None, amount__gt=0),
                name="coupon_percent_or_amount",
            ),
            models.CheckConstraint(
                condition=Q(ends_at=None) | Q(starts_at__lte=F("ends_at")), name="coupon_lasts"
            ),
            models.CheckConstraint(
                condition=Q(statements_max=None) | Q(statements_max__gt=0),
                name="coupon_statements_max",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class CouponUse(models.Model):
    """A final statement that a coupon was applied to. One that is void counts no more."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    coupon = models.ForeignKey(Coupon, on_delete=models.PROTECT, related_name="uses")
    statement = models.OneToOneField(Statement, on_delete=models.PROTECT, related_name="coupon_use")

    class Meta:
        db_table = "coupon_use"

    def __str__(self) -> str:
        return f"{self.coupon_id} on {self.statement_id}"
