"""What is asked before spending, and what answers it: reservations, halts, breakers, rate limits.

`reservation`, `decision`, `rate_counter` and `breaker_state` are facts; the others are
configuration.
"""

from typing import Final

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from metering.models.budgets import Budget, Mode
from metering.models.facts import Fact
from metering.models.sums import SumField
from tenants.models import Tenant


class ReservationState(models.IntegerChoices):
    """Where a reservation stands. `metering/README.md` has the state machine."""

    OPEN = 1, "open"
    SETTLED = 2, "settled"
    RELEASED = 3, "released"
    EXPIRED = 4, "expired"


class Reservation(Fact):
    """Money held before a call, in every window that the call counts in.

    Invariant: while `state` is open, each window of `window_ids` holds exactly `reserved_*`; in
    every other state none of them holds anything of it. What is held never changes.
    """

    pk = models.CompositePrimaryKey("tenant_id", "id")
    id = models.UUIDField()
    state = models.SmallIntegerField(choices=ReservationState.choices)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    # The dimensions as they were asked for, without those that had no value.
    dimensions = models.JSONField()
    # How the amount was found: max, expected, or amount (named by the caller).
    estimate = models.CharField(max_length=10)
    # The model that may be used; what was asked for where a cheaper one was named instead.
    model = models.TextField()
    provider = models.TextField()
    requested_model = models.TextField(null=True)
    # The best model of the route, against which the saving of a cheaper one is measured.
    top_model = models.TextField(null=True)
    top_provider = models.TextField(null=True)
    reserved_nanos = models.BigIntegerField()
    reserved_tokens = models.BigIntegerField()
    reserved_requests = models.SmallIntegerField()
    reserved_tool_calls = models.SmallIntegerField()
    window_ids = ArrayField(models.BigIntegerField())
    # What became of it: filled when it is settled.
    event_id = models.BigIntegerField(null=True)
    fingerprint = models.UUIDField(null=True)
    cost_nanos = models.BigIntegerField(null=True)
    used_tokens = models.BigIntegerField(null=True)
    is_late = models.BooleanField(db_default=False)

    class Meta:
        db_table = "reservation"
        indexes = [
            models.Index(
                fields=["tenant", "expires_at"],
                condition=Q(state=ReservationState.OPEN),
                name="reservation_open",
            ),
            models.Index(fields=["tenant", "created_at"], name="reservation_by_time"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(reserved_nanos__gte=0)
                & Q(reserved_tokens__gte=0)
                & Q(reserved_requests__gte=0)
                & Q(reserved_tool_calls__gte=0),
                name="reservation_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(state=ReservationState.OPEN) | Q(finished_at__isnull=False),
                name="reservation_finished_has_a_time",
            ),
        ]


class Decision(Fact):
    """A decision other than a plain allow, with its reasons. Written with what it decided."""

    pk = models.CompositePrimaryKey("tenant_id", "id")
    id = models.BigIntegerField()
    decided_at = models.DateTimeField()
    # allow (where a budget in shadow or warn objected), downgrade, refuse, open or close (breakers)
    decision = models.CharField(max_length=10)
    # Of a refusal: the problem's code.
    code = models.CharField(max_length=40)
    reservation_id = models.UUIDField(null=True)
    agent = models.TextField()
    dimensions = models.JSONField()
    asked_nanos = models.BigIntegerField(null=True)
    asked_tokens = models.BigIntegerField(null=True)
    saved_nanos = models.BigIntegerField(null=True)
    reasons = models.JSONField()

    class Meta:
        db_table = "decision"
        # Ids come in portions to each connection: they are not in order of time.
        indexes = [models.Index(fields=["tenant", "-decided_at", "-id"], name="decision_newest")]


class HaltKind(models.TextChoices):
    """Who halted."""

    MANUAL = "manual"
    BREAKER = "breaker"
    LOCKOUT = "lockout"


# Who locks out, and lifts a lockout whose cause is gone, in the words of the halt's record.
BY_LEVEL: Final = "a budget's level"


class Halt(models.Model):
    """Everything that matches stops: no reservation is given or extended until it is lifted, or
    until it ends.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    match = models.JSONField(default=dict, blank=True)
    reason = models.CharField(max_length=1000)
    kind = models.CharField(max_length=10, choices=HaltKind.choices, default=HaltKind.MANUAL)
    since = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=300)
    # Of a lockout: when its window's period ends. From then on it stops nothing.
    ends_at = models.DateTimeField(null=True, blank=True, editable=False)
    lifted_at = models.DateTimeField(null=True, blank=True)
    lifted_by = models.CharField(max_length=300, blank=True)
    # Rises with every halt that begins or ends; a tenant's largest is what clients compare.
    version = models.BigIntegerField()
    # Of a lockout: the window and level (and its episode) that caused it. Once a person has lifted
    # it, that level locks nothing again before the window has fallen below it.
    window_id = models.BigIntegerField(null=True, editable=False)
    level_percent = models.IntegerField(null=True, editable=False)
    episode = models.IntegerField(null=True, editable=False)
    # Of a breaker: which, and its group.
    breaker_id = models.BigIntegerField(null=True, editable=False)
    group_key = models.TextField(blank=True, editable=False)

    class Meta:
        db_table = "halt"
        indexes = [
            models.Index(
                fields=["tenant"], condition=Q(lifted_at__isnull=True), name="halt_in_force"
            ),
            models.Index(fields=["tenant", "-version"], name="halt_newest"),
            models.Index(
                fields=["ends_at"],
                condition=Q(lifted_at__isnull=True, ends_at__isnull=False),
                name="halt_ending",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "window_id", "level_percent", "episode"],
                condition=~Q(lifted_by=BY_LEVEL),
                name="lockout_once_a_window_and_level",
            ),
            models.UniqueConstraint(
                fields=["tenant", "breaker_id", "group_key"],
                condition=Q(lifted_at__isnull=True, breaker_id__isnull=False),
                name="halt_once_a_breaker_and_group",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} halt: {self.reason}"


class LimitIncreaseStatus(models.TextChoices):
    """Where a request for a higher limit stands."""

    ASKED = "asked"
    APPROVED = "approved"
    REFUSED = "refused"


class LimitIncrease(models.Model):
    """A limit that is higher for a while: asked for with a reason, decided by a person."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="raises")
    # The group it is for, as `budget_window.group_key` has it; empty: every group.
    group_key = models.TextField(blank=True)
    add_cost_nanos = models.BigIntegerField(default=0)
    add_tokens = models.BigIntegerField(default=0)
    add_requests = models.BigIntegerField(default=0)
    add_tool_calls = models.BigIntegerField(default=0)
    add_seconds = models.BigIntegerField(default=0)
    starts_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField()
    reason = models.CharField(max_length=1000)
    status = models.CharField(
        max_length=10, choices=LimitIncreaseStatus.choices, default=LimitIncreaseStatus.ASKED
    )
    asked_at = models.DateTimeField(auto_now_add=True)
    asked_by = models.CharField(max_length=300)
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.CharField(max_length=300, blank=True)
    note = models.CharField(max_length=1000, blank=True)
    # The window and level whose `hold` asked for it: one request a window and level.
    window_id = models.BigIntegerField(null=True, editable=False)
    level_percent = models.IntegerField(null=True, editable=False)
    # When the windows were judged by the limits without it; null while it was not over.
    judged_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        db_table = "limit_increase"
        indexes = [
            models.Index(
                fields=["ends_at"],
                condition=Q(status=LimitIncreaseStatus.APPROVED, judged_at__isnull=True),
                name="limit_increase_to_be_judged",
            )
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(add_cost_nanos__gte=0)
                & Q(add_tokens__gte=0)
                & Q(add_requests__gte=0)
                & Q(add_tool_calls__gte=0)
                & Q(add_seconds__gte=0),
                name="limit_increase_not_negative",
            ),
            models.UniqueConstraint(
                fields=["tenant", "window_id", "level_percent"],
                condition=Q(status=LimitIncreaseStatus.ASKED),
                name="limit_increase_asked_once_a_window_and_level",
            ),
        ]

    def __str__(self) -> str:
        return f"raise of {self.budget_id}: {self.status}"


class ModelRoute(models.Model):
    """Which models do a kind of task, from the cheapest to the best."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    name = models.CharField(max_length=200)
    # Empty: any task that no other route names.
    task_type = models.CharField(max_length=200, blank=True)
    # [{"provider", "model", "max_complexity"}], the last one is the best.
    tiers = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "model_route"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "task_type"], name="model_route_once_a_type")
        ]

    def __str__(self) -> str:
        return self.name


class RateLimit(models.Model):
    """How much may be asked for within any minute, for each value of `per`."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    name = models.CharField(max_length=200)
    match = models.JSONField(default=dict, blank=True)
    # Dimensions, or "key" for the API key that asks; empty: the tenant as a whole.
    per = ArrayField(models.CharField(max_length=20), default=list, blank=True)
    cost_nanos_per_minute = models.BigIntegerField(null=True, blank=True)
    tokens_per_minute = models.BigIntegerField(null=True, blank=True)
    requests_per_minute = models.BigIntegerField(null=True, blank=True)
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.ENFORCE)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "rate_limit"
        constraints = [
            models.CheckConstraint(
                condition=Q(cost_nanos_per_minute__isnull=False)
                | Q(tokens_per_minute__isnull=False)
                | Q(requests_per_minute__isnull=False),
                name="rate_limit_has_a_rate",
            )
        ]

    def __str__(self) -> str:
        return self.name


def last_hour_field() -> models.GeneratedField:
    """Return the hour of `last_second`, by which idle rows are found."""
    return models.GeneratedField(
        expression=F("last_second") / 3600, output_field=models.BigIntegerField(), db_persist=True
    )


class RateCounter(Fact):
    """What was asked for within the last minute, by second, for one subject.

    `subject` is a rate limit (`limit:7`), or a level that throttles (`level:12:80`). Item
    `s % 61` of an array counts the second `s` of the epoch, for the 61 seconds up to
    `last_second`.
    """

    pk = models.CompositePrimaryKey("tenant_id", "id")
    id = models.BigIntegerField()
    subject = models.TextField()
    group_key = models.TextField()
    last_second = models.BigIntegerField(db_default=0)
    # Changes once an hour, not with each call: an update that changes an index leaves its page.
    last_hour = last_hour_field()
    nanos = ArrayField(SumField())
    tokens = ArrayField(SumField())
    requests = ArrayField(models.BigIntegerField())

    class Meta:
        db_table = "rate_counter"
        indexes = [models.Index(fields=["last_hour"], name="rate_counter_idle")]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "subject", "group_key"],
                name="rate_counter_once_a_subject_and_group",
            )
        ]


class BreakerClose(models.TextChoices):
    """How a breaker that opened closes again."""

    HAND = "hand"
    # The value is the API's word.
    PROBE = "trial", "Probe"


class Breaker(models.Model):
    """Stops an agent (or what `per` names) that spends too fast, fails too often, or asks for far
    more tokens than usual.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    name = models.CharField(max_length=200)
    match = models.JSONField(default=dict, blank=True)
    per = ArrayField(models.CharField(max_length=20), default=list, blank=True)
    # Spend within any 60 seconds.
    cost_nanos_per_minute = models.BigIntegerField(null=True, blank=True)
    # Failed calls in percent of those of the last 60 seconds, once there are `error_min_calls`.
    error_percent = models.PositiveIntegerField(null=True, blank=True)
    error_min_calls = models.PositiveIntegerField(default=10)
    # A call's tokens against the usual ones of its group, once `usual_min_calls` are known.
    tokens_times = models.PositiveIntegerField(null=True, blank=True)
    usual_min_calls = models.PositiveIntegerField(default=20)
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.ENFORCE)
    # Instead of stopping: limits of matching budgets count this percent while it is open.
    limit_percent = models.PositiveIntegerField(null=True, blank=True)
    close = models.CharField(max_length=10, choices=BreakerClose.choices, default=BreakerClose.HAND)
    cool_down_seconds = models.PositiveIntegerField(default=300)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "breaker"
        constraints = [
            models.CheckConstraint(
                condition=Q(cost_nanos_per_minute__isnull=False)
                | Q(error_percent__isnull=False)
                | Q(tokens_times__isnull=False),
                name="breaker_has_a_rule",
            ),
            models.CheckConstraint(
                condition=Q(limit_percent__isnull=True)
                | Q(limit_percent__gte=1) & Q(limit_percent__lte=99),
                name="breaker_limit_percent",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class BreakerState(Fact):
    """What a breaker knows of one group: the last minute by second, and what is usual."""

    pk = models.CompositePrimaryKey("tenant_id", "id")
    id = models.BigIntegerField()
    breaker_id = models.BigIntegerField()
    group_key = models.TextField()
    # As in `RateCounter`.
    last_second = models.BigIntegerField(db_default=0)
    last_hour = last_hour_field()
    nanos = ArrayField(SumField())
    calls = ArrayField(models.BigIntegerField())
    errors = ArrayField(models.BigIntegerField())
    # Calls and tokens behind what is usual; halved together when they grow large.
    usual_calls = models.BigIntegerField(db_default=0)
    usual_tokens = models.BigIntegerField(db_default=0)
    opened_at = models.DateTimeField(null=True)
    why = models.TextField(db_default="")
    halt_id = models.BigIntegerField(null=True)
    # A probe that was let through after the cool-down, and when.
    probe_id = models.UUIDField(null=True)
    probe_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "breaker_state"
        indexes = [
            models.Index(
                fields=["tenant"],
                condition=Q(opened_at__isnull=False),
                name="breaker_state_open",
            ),
            models.Index(
                fields=["last_hour"],
                condition=Q(opened_at__isnull=True),
                name="breaker_state_idle",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "breaker_id", "group_key"], name="breaker_state_once_a_group"
            )
        ]


class LimitReduction(models.Model):
    """Limits of budgets count less for what matches, while an anomaly or a breaker is open."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    match = models.JSONField(default=dict, blank=True)
    limit_percent = models.PositiveIntegerField()
    reason = models.CharField(max_length=1000)
    # What opened it and may end it: "breaker:7:[\"a\"]", "anomaly:12".
    cause = models.CharField(max_length=500)
    since = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "limit_reduction"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "cause"],
                condition=Q(ended_at__isnull=True),
                name="limit_reduction_once_a_cause",
            ),
            models.CheckConstraint(
                condition=Q(limit_percent__gte=1) & Q(limit_percent__lte=99),
                name="limit_reduction_limit_percent",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.limit_percent} % while {self.cause}"


class CallSize(Fact):
    """How large an agent's calls usually are: counts by bin, as in `UsageHistogram`."""

    pk = models.CompositePrimaryKey("tenant_id", "agent", "feature", "model", "measure", "bin")
    agent = models.TextField(db_collation="C")
    feature = models.TextField(db_collation="C")
    model = models.TextField(db_collation="C")
    measure = models.SmallIntegerField()
    bin = models.SmallIntegerField()
    count = models.BigIntegerField()

    class Meta:
        db_table = "call_size"


class SimulationStatus(models.TextChoices):
    """Where a simulation stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Simulation(models.Model):
    """A past period replayed against a proposed budget or breaker, and what that would have
    done.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    proposal = models.JSONField()
    from_at = models.DateTimeField()
    to_at = models.DateTimeField()
    status = models.CharField(
        max_length=10, choices=SimulationStatus.choices, default=SimulationStatus.WAITING
    )
    result = models.JSONField(null=True)
    detail = models.TextField(blank=True)
    actor = models.CharField(max_length=300)
    created_at = models.DateTimeField(auto_now_add=True)
    claimed_until = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "simulation"

    def __str__(self) -> str:
        return f"simulation {self.id}: {self.status}"
