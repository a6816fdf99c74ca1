"""Work that is too long for a request."""

from django.db import models
from django.db.models import Q

from tenants.models import Tenant


class JobKind(models.TextChoices):
    """What a job does."""

    RERATE = "rerate", "Price a period again"
    PRICE_UNPRICED = "price_unpriced", "Price calls that had no price"
    COUNT_BUDGET = "count_budget", "Count what a budget has already spent"
    JUDGE_WINDOWS = "judge_windows", "Judge windows by changed levels"


class JobState(models.TextChoices):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


UNFINISHED = Q(state__in=(JobState.WAITING, JobState.RUNNING))


class BackgroundJob(models.Model):
    """Work that a worker does a step at a time, each step in a transaction that also moves the
    job's own position: a worker killed anywhere loses one step, and nothing is done twice.

    Jobs that read events have read those up to (`after_at`, `after_id`), in this order.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    kind = models.CharField(max_length=20, choices=JobKind.choices)
    state = models.CharField(max_length=10, choices=JobState.choices, default=JobState.WAITING)
    parameters = models.JSONField(default=dict)
    budget_id = models.BigIntegerField(null=True)
    revision = models.IntegerField(null=True)
    # A count of the past leaves out events from this id on: they were counted as they arrived.
    until_id = models.BigIntegerField(null=True)
    after_at = models.DateTimeField(null=True)
    after_id = models.BigIntegerField(default=0)
    done = models.BigIntegerField(default=0)
    # An estimate until the job is done.
    total = models.BigIntegerField(default=0)
    result = models.JSONField(null=True)
    failures = models.IntegerField(default=0)
    error = models.TextField(blank=True)
    actor = models.CharField(max_length=300)
    created_at = models.DateTimeField(auto_now_add=True)
    # When its last step ended: of several jobs, the one that has waited longest continues.
    stepped_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "background_job"
        verbose_name = "job"
        indexes = [
            models.Index(
                fields=["tenant", "kind"], condition=UNFINISHED, name="background_job_unfinished"
            )
        ]

    def __str__(self) -> str:
        return f"job {self.id}: {self.kind}, {self.state}"

    @property
    def progress_percent(self) -> int:
        """How much is done, in whole percent; 100 once it is done, and not before."""
        if self.state == JobState.DONE:
            return 100
        return min(99, self.done * 100 // self.total) if self.total else 0
