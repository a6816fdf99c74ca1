"""Usage as it was reported, and the keys that make each report count once.

These tables hold facts. They are written by `metering.calls` alone, with COPY; the models here are
for reading. `usage_event` is partitioned by month, so Django does not manage it.
"""

from django.db import models

from metering.models.facts import Fact
from tenants.models import Tenant

# An event's id is its batch's id times this, plus its place in the batch: the events of a batch are
# a range of ids, ids rise with time of arrival, and no index beyond the one on ids is needed to
# find them.
BATCH_ID_STRIDE = 1 << 14


class Operation(models.IntegerChoices):
    """What kind of call an event was."""

    LLM = 1, "llm"
    EMBEDDING = 2, "embedding"
    TOOL = 3, "tool"
    OTHER = 4, "other"


class Status(models.IntegerChoices):
    """How a call ended."""

    SUCCESS = 1, "success"
    ERROR = 2, "error"
    CANCELLED = 3, "cancelled"


class CostSource(models.IntegerChoices):
    """Where an event's cost comes from."""

    CATALOGUE = 1, "catalogue"
    OVERRIDE = 2, "override"
    GIVEN = 3, "given"
    UNPRICED = 4, "unpriced"


class Completeness(models.IntegerChoices):
    """How much of what a call used is known."""

    COMPLETE = 1, "complete"
    # What was received of an answer that broke off.
    ESTIMATE = 2, "estimate"
    MISSING = 3, "missing"


class Authority(models.IntegerChoices):
    """Which source is believed where the reports of a call differ: the lowest number first."""

    CLIENT_USAGE = 0, "client with the provider's usage object"
    CLIENT = 1, "client"
    GATEWAY = 2, "gateway"
    CALLBACK = 3, "callback"
    SPAN_USAGE = 4, "span with the provider's usage object"
    SPAN = 5, "span"
    LOG = 6, "log"
    METRIC = 7, "metric"


class Route(models.IntegerChoices):
    """The way by which events were reported."""

    NATIVE = 1, "native"
    CLOUDEVENTS = 2, "cloudevents"
    OTLP = 3, "otlp"
    LITELLM = 4, "litellm"
    FILE = 5, "file"
    CORRECTION = 6, "correction"
    SETTLE = 7, "settle"


class IngestBatch(models.Model):
    """One committed transaction of ingest. Whatever is derived later claims these rows."""

    pk = models.CompositePrimaryKey("tenant_id", "id")
    tenant = models.ForeignKey(Tenant, on_delete=models.DO_NOTHING, db_constraint=False)
    id = models.BigIntegerField()
    received_at = models.DateTimeField()
    event_count = models.IntegerField()
    first_at = models.DateTimeField(null=True)
    last_at = models.DateTimeField(null=True)
    rolled_up_at = models.DateTimeField(null=True)
    # Alerts claims a batch by setting this once its sessions were looked at.
    sessions_checked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "ingest_batch"
        indexes = [
            models.Index(
                fields=["tenant", "id"],
                condition=models.Q(sessions_checked_at=None),
                name="ingest_batch_sessions",
            ),
            models.Index(
                fields=["tenant", "id"],
                condition=models.Q(rolled_up_at=None),
                name="ingest_batch_waiting",
            ),
        ]

    def __str__(self) -> str:
        return f"batch {self.id}"


class EventKey(Fact):
    """What a report is known by: hashes of its (source, id) and of the identities of its call.

    `fingerprint` is a hash of the report as it was sent, `event_id` its call. An
    identity (the provider's response, its request, the trace's span) stands in the row of one
    report only. While a report is the only one of its call, the call's row tells it in full; more
    of them are a group (see `CallReport`).
    """

    pk = models.CompositePrimaryKey("tenant_id", "key")
    key = models.UUIDField()
    response_key = models.UUIDField(null=True)
    request_key = models.UUIDField(null=True)
    span_key = models.UUIDField(null=True)
    fingerprint = models.UUIDField()
    event_id = models.BigIntegerField()
    event_at = models.DateTimeField()

    class Meta:
        db_table = "event_key"
        indexes = [models.Index(fields=["event_at"], name="event_key_by_age")]
        # The tenant comes last, so that no other index than the right one seems to fit a look-up in
        # a tenant that PostgreSQL has no statistics of.
        constraints = [
            models.UniqueConstraint(
                fields=["response_key", "tenant"],
                condition=models.Q(response_key__isnull=False),
                name="event_key_of_response",
            ),
            models.UniqueConstraint(
                fields=["request_key", "tenant"],
                condition=models.Q(request_key__isnull=False),
                name="event_key_of_request",
            ),
            models.UniqueConstraint(
                fields=["span_key", "tenant"],
                condition=models.Q(span_key__isnull=False),
                name="event_key_of_span",
            ),
        ]


class CallReport(Fact):
    """What one report told, for reports that share an identity with others.

    The calls of a group are a function of its reports (`metering.calls.merging`), so their order
    of arrival does not matter. `report` is a `metering.calls.report.Report` as JSON.
    """

    pk = models.CompositePrimaryKey("tenant_id", "key")
    key = models.UUIDField()
    group_id = models.BigIntegerField()
    event_id = models.BigIntegerField()
    event_at = models.DateTimeField()
    report = models.TextField()

    class Meta:
        db_table = "call_report"
        indexes = [
            models.Index(fields=["group_id", "tenant"], name="call_report_of_group"),
            models.Index(fields=["event_at"], name="call_report_by_age"),
        ]


class TraceSpan(Fact):
    """A span of a trace that may still grow: who its parent is, and what it tells, if anything.

    Kept for an hour after the trace's last span. `call_fingerprint` is of the report that was made
    of it; `match_key` finds spans of other traces that may tell of the same call.
    """

    pk = models.CompositePrimaryKey("tenant_id", "trace", "span")
    trace = models.CharField(max_length=32)
    span = models.CharField(max_length=16)
    parent = models.CharField(max_length=16, null=True)
    received_at = models.DateTimeField()
    # Microseconds since 1970.
    started_us = models.BigIntegerField()
    ended_us = models.BigIntegerField()
    match_key = models.UUIDField(null=True)
    call_fingerprint = models.UUIDField(null=True)
    told = models.TextField(null=True)

    class Meta:
        db_table = "trace_span"
        indexes = [
            models.Index(
                fields=["match_key", "tenant", "ended_us"],
                condition=models.Q(match_key__isnull=False),
                name="trace_span_match",
            ),
            models.Index(fields=["received_at"], name="trace_span_by_age"),
        ]


class UsageEvent(models.Model):
    """One model call or tool call, merged from the reports that told of it.

    It changes when another report adds something and when it is rated again; each change moves
    balances by ledger entries. `source`, `sent_id` and `authority` are of the report that is
    believed most; `filled` says which fields no report told (bits of `prepared_event.FILLABLE`).
    `sent_id` is the client's id; `id` is ours. Token fields are as normalised: input includes
    cached input, output includes reasoning. `cost_nanos` is NULL while nothing is
    known of the cost; an unpriced event with a `price_id` has what its rated units cost.
    """

    pk = models.CompositePrimaryKey("tenant_id", "id", "time")
    tenant = models.ForeignKey(Tenant, on_delete=models.DO_NOTHING, db_constraint=False)
    id = models.BigIntegerField()
    time = models.DateTimeField()
    operation = models.SmallIntegerField(choices=Operation.choices)
    status = models.SmallIntegerField(choices=Status.choices)
    cost_source = models.SmallIntegerField(choices=CostSource.choices)
    route = models.SmallIntegerField(choices=Route.choices)
    authority = models.SmallIntegerField(choices=Authority.choices)
    completeness = models.SmallIntegerField(choices=Completeness.choices)
    filled = models.SmallIntegerField()
    is_conflict = models.BooleanField(default=False)
    is_void = models.BooleanField(default=False)
    cost_nanos = models.BigIntegerField(null=True)
    price_id = models.BigIntegerField(null=True)
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cache_read_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cache_write_1h_tokens = models.BigIntegerField(null=True)
    input_audio_tokens = models.BigIntegerField(null=True)
    output_audio_tokens = models.BigIntegerField(null=True)
    web_searches = models.BigIntegerField(null=True)
    latency_ms = models.BigIntegerField(null=True)
    time_to_first_token_ms = models.BigIntegerField(null=True)
    max_output_tokens = models.BigIntegerField(null=True)
    saved_nanos = models.BigIntegerField(null=True)
    step = models.IntegerField(null=True)
    complexity = models.SmallIntegerField(null=True)
    team = models.TextField()
    customer = models.TextField()
    agent = models.TextField()
    user = models.TextField()
    feature = models.TextField()
    model = models.TextField()
    session = models.TextField()
    task = models.TextField()
    trace = models.TextField()
    provider = models.TextField()
    tool = models.TextField()
    source = models.TextField()
    sent_id = models.TextField()
    span = models.TextField(null=True)
    parent_span = models.TextField(null=True)
    response_id = models.TextField(null=True)
    request_id = models.TextField(null=True)
    requested_model = models.TextField(null=True)
    service_tier = models.TextField(null=True)
    error_type = models.TextField(null=True)
    tool_arguments_hash = models.TextField(null=True)
    task_type = models.TextField(null=True)
    output_hash = models.TextField(null=True)
    prefix_hash = models.TextField(null=True)
    reservation_id = models.UUIDField(null=True)
    extra_usage = models.JSONField(null=True)
    tags = models.JSONField(null=True)

    class Meta:
        db_table = "usage_event"
        managed = False

    def __str__(self) -> str:
        return f"{self.source} {self.sent_id}"


class Outcome(models.Model):
    """Whether a task or a session succeeded, and what that was worth."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    task = models.CharField(max_length=200, blank=True)
    session = models.CharField(max_length=200, blank=True)
    is_success = models.BooleanField()
    value_nanos = models.BigIntegerField(null=True)
    reported_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "outcome"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "task", "session"], name="outcome_once_a_task_or_session"
            )
        ]

    def __str__(self) -> str:
        return f"{self.task or self.session}: {'success' if self.is_success else 'failure'}"


class Correction(models.Model):
    """Why an event was voided or replaced; the ledger entries that did it carry its batch."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    event_id = models.BigIntegerField()
    source = models.TextField()
    sent_id = models.TextField()
    action = models.CharField(max_length=10)
    reason = models.TextField()
    actor = models.CharField(max_length=300)
    replacement_event_id = models.BigIntegerField(null=True)
    fingerprint = models.UUIDField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "correction"
        indexes = [models.Index(fields=["tenant", "event_id"], name="correction_of_event")]

    def __str__(self) -> str:
        return f"{self.action} {self.sent_id}"
