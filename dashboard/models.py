"""What people keep of the pages: saved views, their home, and scheduled reports."""

from django.db import models
from django.db.models import Q

from alerts.models import Channel, Delivery
from tenants.models import Team, Tenant, User

VIEW_NAME_CHARACTERS_MAX = 100
QUERY_CHARACTERS_MAX = 4_000


class Readers(models.TextChoices):
    """Who can open a saved view. What it shows them is what they may see."""

    OWNER = "owner", "Only me"
    TEAM = "team", "A team"
    TENANT = "tenant", "Everyone"


class SavedView(models.Model):
    """An address of the explore page under a name."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    owner = models.ForeignKey(User, on_delete=models.CASCADE)
    name = models.CharField(max_length=VIEW_NAME_CHARACTERS_MAX)
    # The query string, without its question mark.
    query = models.CharField(max_length=QUERY_CHARACTERS_MAX, blank=True)
    readers = models.CharField(max_length=6, choices=Readers.choices, default=Readers.OWNER)
    # Of a view for a team; None once the team is gone, which leaves the view to its owner.
    team = models.ForeignKey(Team, null=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "saved_view"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "owner", "name"], name="saved_view_name_once_an_owner"
            ),
            models.CheckConstraint(
                condition=Q(readers__in=Readers.values), name="saved_view_known_readers"
            ),
            models.CheckConstraint(
                condition=Q(team=None) | Q(readers=Readers.TEAM), name="saved_view_team_if_for_one"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class PinnedView(models.Model):
    """The view with which a person begins in a tenant."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    view = models.ForeignKey(SavedView, on_delete=models.CASCADE)

    class Meta:
        db_table = "pinned_view"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "user"], name="pinned_view_once_a_person")
        ]

    def __str__(self) -> str:
        return f"{self.view} of {self.user}"


class Cadence(models.TextChoices):
    """How often a report is sent; it is of the last whole period of the tenant's zone."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class ReportSchedule(models.Model):
    """A saved view that is sent by the clock, with the rights that its owner has then."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    view = models.ForeignKey(SavedView, on_delete=models.CASCADE)
    owner = models.ForeignKey(User, on_delete=models.CASCADE)
    cadence = models.CharField(max_length=7, choices=Cadence.choices)
    # By the clock of the tenant's zone.
    hour = models.SmallIntegerField()
    # None: mail to the owner.
    channel = models.ForeignKey(Channel, null=True, on_delete=models.PROTECT)
    # Whether the owner saw some teams alone when this was made: no one sees more by leaving
    # every team.
    is_limited = models.BooleanField()
    next_due_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "report_schedule"
        indexes = [models.Index(fields=["next_due_at"], name="report_schedule_due")]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "view", "owner", "cadence", "channel"],
                nulls_distinct=False,
                name="report_schedule_once",
            ),
            models.CheckConstraint(
                condition=Q(cadence__in=Cadence.values), name="report_schedule_known_cadence"
            ),
            models.CheckConstraint(
                condition=Q(hour__gte=0, hour__lte=23), name="report_schedule_hour"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.view}, {self.cadence}"


class SentReport(models.Model):
    """One report of a schedule: queued as a delivery, or not, and why.

    Invariant: a period is reported once (tests aside), whatever runs at the same time.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    schedule = models.ForeignKey(ReportSchedule, on_delete=models.CASCADE, related_name="sent")
    # The first day of the period.
    period_start = models.DateField()
    is_test = models.BooleanField(default=False)
    delivery = models.ForeignKey(Delivery, null=True, on_delete=models.SET_NULL)
    # Why nothing was sent; empty if it was.
    refusal = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "sent_report"
        constraints = [
            models.UniqueConstraint(
                fields=["schedule", "period_start"],
                condition=Q(is_test=False),
                name="sent_report_once_a_period",
            )
        ]

    def __str__(self) -> str:
        return f"{self.schedule} of {self.period_start}"
