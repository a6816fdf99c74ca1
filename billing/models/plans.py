"""Plans, their versions, and who subscribed to which."""

from django.db import models
from django.db.models import F, Q

from billing.models.customers import Customer
from tenants.models import Tenant


class Interval(models.TextChoices):
    """How long a billing period is."""

    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Anchor(models.TextChoices):
    """When billing periods begin: with the calendar, or on the subscription's day."""

    CALENDAR = "calendar"
    SUBSCRIPTION = "subscription"


class Plan(models.Model):
    """What customers are charged. Its terms are those of its versions."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="plans")
    name = models.CharField(max_length=200)
    currency = models.CharField(max_length=3, default="USD")
    interval = models.CharField(max_length=10, choices=Interval.choices, default=Interval.MONTH)
    anchor = models.CharField(max_length=12, choices=Anchor.choices, default=Anchor.CALENDAR)
    timezone = models.CharField(max_length=64, default="UTC")
    trial_days = models.PositiveSmallIntegerField(default=0)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "plan"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="plan_name_once"),
        ]

    def __str__(self) -> str:
        return self.name


class PlanVersion(models.Model):
    """The terms of a plan from `starts_at` on (None, of the first: ever). Never changed."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    plan = models.ForeignKey(Plan, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    starts_at = models.DateTimeField(null=True, blank=True)
    # As `billing.terms.Terms` is written in JSON.
    terms = models.JSONField()
    actor = models.CharField(max_length=300)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "plan_version"
        constraints = [
            models.UniqueConstraint(fields=["plan", "number"], name="plan_version_once"),
            models.CheckConstraint(
                condition=Q(number=1) | Q(starts_at__isnull=False), name="plan_version_starts"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.plan_id} v{self.number}"


class Subscription(models.Model):
    """A customer on a plan, from one moment to another (None: until further notice)."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="subscriptions")
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="subscriptions")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "subscription"
        indexes = [
            models.Index(fields=["customer", "starts_at"], name="subscription_of_customer"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(ends_at=None) | Q(starts_at__lte=F("ends_at")),
                name="subscription_lasts",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.customer_id} on {self.plan_id}"
