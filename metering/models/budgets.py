"""Budgets, their windows, and the ledger of what moved them."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from metering.models.facts import Fact
from metering.models.sums import SumField
from tenants.models import Tenant


class Period(models.TextChoices):
    """How long a window lasts."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    LIFETIME = "lifetime"


class Mode(models.TextChoices):
    """Whether a budget acts."""

    SHADOW = "shadow"
    WARN = "warn"
    ENFORCE = "enforce"


class Action(models.TextChoices):
    """What happens at a level."""

    NONE = "none"
    THROTTLE = "throttle"
    DOWNGRADE = "downgrade"
    HOLD = "hold"
    BLOCK = "block"
    LOCKOUT = "lockout"


class FellBy(models.TextChoices):
    """Why the level that a window had reached is no longer reached."""

    LIMIT = "limit"
    LEVELS = "levels"
    INCREASE = "increase"
    SPEND = "spend"
    AGED = "aged"
    CARRIED = "carried"


class Budget(models.Model):
    """A limit on what matches, per group and period. Changing what it counts starts a new
    revision.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="budgets")
    name = models.CharField(max_length=200)
    match = models.JSONField(default=dict, blank=True, help_text='{"team": "growth"}; empty: all.')
    per = ArrayField(models.CharField(max_length=20), default=list, blank=True)
    period = models.CharField(max_length=10, choices=Period.choices)
    timezone = models.CharField(max_length=64, default="UTC")
    anchor_at = models.DateTimeField(
        null=True, blank=True, help_text="Periods begin at this moment and its repetitions."
    )
    is_rolling = models.BooleanField(
        default=False, help_text="Count the trailing period up to now instead of calendar periods."
    )
    has_rollover = models.BooleanField(
        default=False, help_text="What a period leaves unused is added to the next one's limit."
    )
    rollover_max_percent = models.PositiveIntegerField(
        default=100, help_text="The most that is carried over, in percent of the limit."
    )
    limit_cost_nanos = models.BigIntegerField(null=True, blank=True)
    limit_tokens = models.BigIntegerField(null=True, blank=True)
    limit_requests = models.BigIntegerField(null=True, blank=True)
    limit_tool_calls = models.BigIntegerField(null=True, blank=True)
    limit_seconds = models.BigIntegerField(null=True, blank=True)
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.ENFORCE)
    # Windows of an older revision keep their balances and are no longer posted to.
    revision = models.IntegerField(default=1, editable=False)
    counts_from = models.DateTimeField(editable=False)
    # What was spent before the budget was made is still being added to its windows.
    is_counting = models.BooleanField(db_default=False, default=False, editable=False)
    # Another app's, such as a customer's wallet: that app alone changes and archives it.
    managed_by = models.CharField(max_length=20, db_default="", default="", editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "budget"
        constraints = [
            models.CheckConstraint(
                condition=Q(limit_cost_nanos__isnull=False)
                | Q(limit_tokens__isnull=False)
                | Q(limit_requests__isnull=False)
                | Q(limit_tool_calls__isnull=False)
                | Q(limit_seconds__isnull=False),
                name="budget_has_a_limit",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class BudgetLevel(models.Model):
    """A share of the limit at which people are notified and something is done."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="levels")
    percent = models.PositiveIntegerField()
    action = models.CharField(max_length=10, choices=Action.choices, default=Action.NONE)
    notify = ArrayField(models.CharField(max_length=100), default=list, blank=True)
    # Of `throttle`: what may be asked for within any minute. Neither given: what is left of the
    # window, spread over the time that is left of it.
    cost_nanos_per_minute = models.BigIntegerField(null=True, blank=True)
    tokens_per_minute = models.BigIntegerField(null=True, blank=True)

    class Meta:
        db_table = "budget_level"
        ordering = ("percent",)
        constraints = [
            models.UniqueConstraint(fields=["budget", "percent"], name="budget_level_once"),
            models.CheckConstraint(
                condition=Q(percent__gte=1) & Q(percent__lte=1000), name="budget_level_percent"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.percent}%: {self.action}"


class BudgetWindow(Fact):
    """One budget, one group, one period: what was spent and what is reserved.

    Invariant: `spent_*` is the sum of the window's ledger entries, sealed ones included, and
    `reserved_*` the sum of its open reservations; `manage.py audit_ledger` proves both.
    `metering.ledger.posting` is the one writer.
    """

    pk = models.CompositePrimaryKey("tenant_id", "id")
    id = models.BigIntegerField()
    budget_id = models.BigIntegerField()
    revision = models.IntegerField()
    # Values of the budget's `per` dimensions, in that order, as JSON text.
    group_key = models.TextField()
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True)
    spent_nanos = SumField(db_default=0)
    spent_tokens = SumField(db_default=0)
    spent_requests = models.BigIntegerField(db_default=0)
    spent_tool_calls = models.BigIntegerField(db_default=0)
    reserved_nanos = SumField(db_default=0)
    reserved_tokens = SumField(db_default=0)
    reserved_requests = models.BigIntegerField(db_default=0)
    reserved_tool_calls = models.BigIntegerField(db_default=0)
    overrun_nanos = SumField(db_default=0)
    # What the period before left unused (budgets with rollover).
    carried_nanos = SumField(db_default=0)
    # Rolling windows: usage before this moment has left the window again.
    counted_from = models.DateTimeField(null=True)
    # Rolling windows: the oldest grain that it still counts; none where it counts nothing.
    oldest_grain_at = models.DateTimeField(null=True)
    first_used_at = models.DateTimeField(null=True)
    # The highest level that its present spend has reached of its present limit.
    level_percent = models.IntegerField(db_default=0)
    # Rises when the level falls: to reach it again is another crossing, and locks out again.
    episode = models.IntegerField(db_default=0)
    # Why the level fell last; empty: it never did.
    fell_by = models.CharField(max_length=10, choices=FellBy.choices, db_default="")

    class Meta:
        db_table = "budget_window"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "budget_id", "revision", "starts_at", "group_key"],
                name="budget_window_once",
            ),
            models.CheckConstraint(
                condition=Q(spent_nanos__gte=0)
                & Q(spent_tokens__gte=0)
                & Q(spent_requests__gte=0)
                & Q(spent_tool_calls__gte=0),
                name="budget_window_spent_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(reserved_nanos__gte=0)
                & Q(reserved_tokens__gte=0)
                & Q(reserved_requests__gte=0)
                & Q(reserved_tool_calls__gte=0)
                & Q(overrun_nanos__gte=0)
                & Q(carried_nanos__gte=0),
                name="budget_window_reserved_not_negative",
            ),
        ]
        indexes = [
            models.Index(
                fields=["tenant", "budget_id", "id"],
                condition=Q(level_percent__gt=0),
                name="budget_window_at_level",
            ),
            models.Index(fields=["tenant", "budget_id", "id"], name="budget_window_newest"),
            # Changes when a window lets go, not when it moves: moves stay on their page.
            models.Index(
                fields=["tenant", "budget_id", "oldest_grain_at"],
                condition=Q(oldest_grain_at__isnull=False),
                name="budget_window_letting_go",
            ),
            models.Index(
                fields=["tenant", "ends_at"],
                condition=Q(ends_at__isnull=False),
                name="budget_window_by_end",
            ),
        ]


class EntryKind(models.IntegerChoices):
    """Why a balance moved."""

    USAGE = 1, "usage"
    BACKFILL = 2, "backfill"
    CORRECTION = 3, "correction"
    RERATE = 4, "rerate"
    AGED_OUT = 5, "aged_out"
    SETTLE = 6, "settle"


class LedgerEntry(Fact):
    """Append-only: why a window's balance moved. A trigger refuses updates, and removals by all but
    retention, which adds what it removes to the window's seal.
    """

    pk = models.CompositePrimaryKey("tenant_id", "id")
    id = models.BigIntegerField()
    window_id = models.BigIntegerField()
    kind = models.SmallIntegerField(choices=EntryKind.choices)
    batch_id = models.BigIntegerField(null=True)
    # Rolling windows: the grain of event time that this entry counts, so that it can leave again.
    grain_at = models.DateTimeField(null=True)
    cost_nanos = SumField()
    tokens = SumField()
    requests = models.BigIntegerField()
    tool_calls = models.BigIntegerField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "ledger_entry"
        indexes = [
            models.Index(fields=["tenant", "window_id", "grain_at"], name="ledger_entry_of_grain")
        ]


class Crossing(models.Model):
    """A window reached one of its budget's levels, noted in the transaction that did it. Once per
    window, level and episode.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    budget = models.ForeignKey(Budget, on_delete=models.CASCADE)
    window_id = models.BigIntegerField()
    percent = models.PositiveIntegerField()
    episode = models.IntegerField(default=0)
    action = models.CharField(max_length=10)
    mode = models.CharField(max_length=10)
    notify = ArrayField(models.CharField(max_length=100), default=list)
    group_key = models.TextField()
    used_percent = models.DecimalField(max_digits=20, decimal_places=2)
    spent_nanos = SumField()
    limit_nanos = SumField(null=True)
    crossed_at = models.DateTimeField(db_default=Now())
    # Alerts claims a crossing by setting this.
    claimed_at = models.DateTimeField(null=True)
    # How often telling of it failed, and when it is tried again.
    failures = models.IntegerField(db_default=0)
    retry_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "crossing"
        indexes = [
            models.Index(
                fields=["tenant", "id"],
                condition=Q(claimed_at__isnull=True),
                name="crossing_unclaimed",
            )
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "window_id", "percent", "episode"],
                name="crossing_once_a_window_and_level",
            )
        ]

    def __str__(self) -> str:
        return f"{self.percent} % of window {self.window_id}"
