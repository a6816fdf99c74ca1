"""Tables of usage, prices, budgets and what enforces them; notes and counts that pages show."""

import django.contrib.postgres.fields
import django.db.models.expressions
import django.db.models.functions.datetime
from django.db import migrations, models

import metering.models.sums
from common.create_models import CreateModels
from metering.migrations._storage import STORAGE


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0001_initial"),
    ]

    operations = [
        CreateModels(
            migrations.CreateModel(
                name="UsageEvent",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "id",
                            "time",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("id", models.BigIntegerField()),
                    ("time", models.DateTimeField()),
                    (
                        "operation",
                        models.SmallIntegerField(
                            choices=[(1, "llm"), (2, "embedding"), (3, "tool"), (4, "other")]
                        ),
                    ),
                    (
                        "status",
                        models.SmallIntegerField(
                            choices=[(1, "success"), (2, "error"), (3, "cancelled")]
                        ),
                    ),
                    (
                        "cost_source",
                        models.SmallIntegerField(
                            choices=[
                                (1, "catalogue"),
                                (2, "override"),
                                (3, "given"),
                                (4, "unpriced"),
                            ]
                        ),
                    ),
                    (
                        "route",
                        models.SmallIntegerField(
                            choices=[
                                (1, "native"),
                                (2, "cloudevents"),
                                (3, "otlp"),
                                (4, "litellm"),
                                (5, "file"),
                                (6, "correction"),
                                (7, "settle"),
                            ]
                        ),
                    ),
                    (
                        "authority",
                        models.SmallIntegerField(
                            choices=[
                                (0, "client with the provider's usage object"),
                                (1, "client"),
                                (2, "gateway"),
                                (3, "callback"),
                                (4, "span with the provider's usage object"),
                                (5, "span"),
                                (6, "log"),
                                (7, "metric"),
                            ]
                        ),
                    ),
                    (
                        "completeness",
                        models.SmallIntegerField(
                            choices=[(1, "complete"), (2, "estimate"), (3, "missing")]
                        ),
                    ),
                    ("filled", models.SmallIntegerField()),
                    ("is_conflict", models.BooleanField(default=False)),
                    ("is_void", models.BooleanField(default=False)),
                    ("cost_nanos", models.BigIntegerField(null=True)),
                    ("price_id", models.BigIntegerField(null=True)),
                    ("input_tokens", models.BigIntegerField()),
                    ("output_tokens", models.BigIntegerField()),
                    ("cache_read_tokens", models.BigIntegerField()),
                    ("cache_write_tokens", models.BigIntegerField()),
                    ("reasoning_tokens", models.BigIntegerField()),
                    ("cache_write_1h_tokens", models.BigIntegerField(null=True)),
                    ("input_audio_tokens", models.BigIntegerField(null=True)),
                    ("output_audio_tokens", models.BigIntegerField(null=True)),
                    ("web_searches", models.BigIntegerField(null=True)),
                    ("latency_ms", models.BigIntegerField(null=True)),
                    ("time_to_first_token_ms", models.BigIntegerField(null=True)),
                    ("max_output_tokens", models.BigIntegerField(null=True)),
                    ("saved_nanos", models.BigIntegerField(null=True)),
                    ("step", models.IntegerField(null=True)),
                    ("complexity", models.SmallIntegerField(null=True)),
                    ("team", models.TextField()),
                    ("customer", models.TextField()),
                    ("agent", models.TextField()),
                    ("user", models.TextField()),
                    ("feature", models.TextField()),
                    ("model", models.TextField()),
                    ("session", models.TextField()),
                    ("task", models.TextField()),
                    ("trace", models.TextField()),
                    ("provider", models.TextField()),
                    ("tool", models.TextField()),
                    ("source", models.TextField()),
                    ("sent_id", models.TextField()),
                    ("span", models.TextField(null=True)),
                    ("parent_span", models.TextField(null=True)),
                    ("response_id", models.TextField(null=True)),
                    ("request_id", models.TextField(null=True)),
                    ("requested_model", models.TextField(null=True)),
                    ("service_tier", models.TextField(null=True)),
                    ("error_type", models.TextField(null=True)),
                    ("tool_arguments_hash", models.TextField(null=True)),
                    ("task_type", models.TextField(null=True)),
                    ("output_hash", models.TextField(null=True)),
                    ("prefix_hash", models.TextField(null=True)),
                    ("reservation_id", models.UUIDField(null=True)),
                    ("extra_usage", models.JSONField(null=True)),
                    ("tags", models.JSONField(null=True)),
                ],
                options={
                    "db_table": "usage_event",
                    "managed": False,
                },
            ),
            migrations.CreateModel(
                name="Annotation",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("time", models.DateTimeField()),
                    ("text", models.CharField(max_length=300)),
                    ("match", models.JSONField(blank=True, default=dict)),
                    ("actor", models.CharField(max_length=300)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "annotation",
                    "indexes": [models.Index(fields=["tenant", "-time"], name="annotation_newest")],
                },
            ),
            migrations.CreateModel(
                name="BackgroundJob",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    (
                        "kind",
                        models.CharField(
                            choices=[
                                ("rerate", "Price a period again"),
                                ("price_unpriced", "Price calls that had no price"),
                                ("count_budget", "Count what a budget has already spent"),
                                ("judge_windows", "Judge windows by changed levels"),
                            ],
                            max_length=20,
                        ),
                    ),
                    (
                        "state",
                        models.CharField(
                            choices=[
                                ("waiting", "Waiting"),
                                ("running", "Running"),
                                ("done", "Done"),
                                ("failed", "Failed"),
                            ],
                            default="waiting",
                            max_length=10,
                        ),
                    ),
                    ("parameters", models.JSONField(default=dict)),
                    ("budget_id", models.BigIntegerField(null=True)),
                    ("revision", models.IntegerField(null=True)),
                    ("until_id", models.BigIntegerField(null=True)),
                    ("after_at", models.DateTimeField(null=True)),
                    ("after_id", models.BigIntegerField(default=0)),
                    ("done", models.BigIntegerField(default=0)),
                    ("total", models.BigIntegerField(default=0)),
                    ("result", models.JSONField(null=True)),
                    ("failures", models.IntegerField(default=0)),
                    ("error", models.TextField(blank=True)),
                    ("actor", models.CharField(max_length=300)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    ("stepped_at", models.DateTimeField(null=True)),
                    ("finished_at", models.DateTimeField(null=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "verbose_name": "job",
                    "db_table": "background_job",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("state__in", ("waiting", "running"))),
                            fields=["tenant", "kind"],
                            name="background_job_unfinished",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Breaker",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("name", models.CharField(max_length=200)),
                    ("match", models.JSONField(blank=True, default=dict)),
                    (
                        "per",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.CharField(max_length=20),
                            blank=True,
                            default=list,
                            size=None,
                        ),
                    ),
                    ("cost_nanos_per_minute", models.BigIntegerField(blank=True, null=True)),
                    ("error_percent", models.PositiveIntegerField(blank=True, null=True)),
                    ("error_min_calls", models.PositiveIntegerField(default=10)),
                    ("tokens_times", models.PositiveIntegerField(blank=True, null=True)),
                    ("usual_min_calls", models.PositiveIntegerField(default=20)),
                    (
                        "mode",
                        models.CharField(
                            choices=[
                                ("shadow", "Shadow"),
                                ("warn", "Warn"),
                                ("enforce", "Enforce"),
                            ],
                            default="enforce",
                            max_length=10,
                        ),
                    ),
                    ("limit_percent", models.PositiveIntegerField(blank=True, null=True)),
                    (
                        "close",
                        models.CharField(
                            choices=[("hand", "Hand"), ("trial", "Probe")],
                            default="hand",
                            max_length=10,
                        ),
                    ),
                    ("cool_down_seconds", models.PositiveIntegerField(default=300)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "breaker",
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                ("cost_nanos_per_minute__isnull", False),
                                ("error_percent__isnull", False),
                                ("tokens_times__isnull", False),
                                _connector="OR",
                            ),
                            name="breaker_has_a_rule",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("limit_percent__isnull", True),
                                models.Q(("limit_percent__gte", 1), ("limit_percent__lte", 99)),
                                _connector="OR",
                            ),
                            name="breaker_limit_percent",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="BreakerState",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "id",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("id", models.BigIntegerField()),
                    ("breaker_id", models.BigIntegerField()),
                    ("group_key", models.TextField()),
                    ("last_second", models.BigIntegerField(db_default=0)),
                    (
                        "last_hour",
                        models.GeneratedField(
                            db_persist=True,
                            expression=django.db.models.expressions.CombinedExpression(
                                models.F("last_second"), "/", models.Value(3600)
                            ),
                            output_field=models.BigIntegerField(),
                        ),
                    ),
                    (
                        "nanos",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=metering.models.sums.SumField(), size=None
                        ),
                    ),
                    (
                        "calls",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.BigIntegerField(), size=None
                        ),
                    ),
                    (
                        "errors",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.BigIntegerField(), size=None
                        ),
                    ),
                    ("usual_calls", models.BigIntegerField(db_default=0)),
                    ("usual_tokens", models.BigIntegerField(db_default=0)),
                    ("opened_at", models.DateTimeField(null=True)),
                    ("why", models.TextField(db_default="")),
                    ("halt_id", models.BigIntegerField(null=True)),
                    ("probe_id", models.UUIDField(null=True)),
                    ("probe_at", models.DateTimeField(null=True)),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "breaker_state",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("opened_at__isnull", False)),
                            fields=["tenant"],
                            name="breaker_state_open",
                        ),
                        models.Index(
                            condition=models.Q(("opened_at__isnull", True)),
                            fields=["last_hour"],
                            name="breaker_state_idle",
                        ),
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "breaker_id", "group_key"),
                            name="breaker_state_once_a_group",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Budget",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("name", models.CharField(max_length=200)),
                    (
                        "match",
                        models.JSONField(
                            blank=True, default=dict, help_text='{"team": "growth"}; empty: all.'
                        ),
                    ),
                    (
                        "per",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.CharField(max_length=20),
                            blank=True,
                            default=list,
                            size=None,
                        ),
                    ),
                    (
                        "period",
                        models.CharField(
                            choices=[
                                ("hour", "Hour"),
                                ("day", "Day"),
                                ("week", "Week"),
                                ("month", "Month"),
                                ("quarter", "Quarter"),
                                ("year", "Year"),
                                ("lifetime", "Lifetime"),
                            ],
                            max_length=10,
                        ),
                    ),
                    ("timezone", models.CharField(default="UTC", max_length=64)),
                    (
                        "anchor_at",
                        models.DateTimeField(
                            blank=True,
                            help_text="Periods begin at this moment and its repetitions.",
                            null=True,
                        ),
                    ),
                    (
                        "is_rolling",
                        models.BooleanField(
                            default=False,
                            help_text="Count the trailing period up to now instead of calendar periods.",
                        ),
                    ),
                    (
                        "has_rollover",
                        models.BooleanField(
                            default=False,
                            help_text="What a period leaves unused is added to the next one's limit.",
                        ),
                    ),
                    (
                        "rollover_max_percent",
                        models.PositiveIntegerField(
                            default=100,
                            help_text="The most that is carried over, in percent of the limit.",
                        ),
                    ),
                    ("limit_cost_nanos", models.BigIntegerField(blank=True, null=True)),
                    ("limit_tokens", models.BigIntegerField(blank=True, null=True)),
                    ("limit_requests", models.BigIntegerField(blank=True, null=True)),
                    ("limit_tool_calls", models.BigIntegerField(blank=True, null=True)),
                    ("limit_seconds", models.BigIntegerField(blank=True, null=True)),
                    (
                        "mode",
                        models.CharField(
                            choices=[
                                ("shadow", "Shadow"),
                                ("warn", "Warn"),
                                ("enforce", "Enforce"),
                            ],
                            default="enforce",
                            max_length=10,
                        ),
                    ),
                    ("revision", models.IntegerField(default=1, editable=False)),
                    ("counts_from", models.DateTimeField(editable=False)),
                    (
                        "is_counting",
                        models.BooleanField(db_default=False, default=False, editable=False),
                    ),
                    (
                        "managed_by",
                        models.CharField(db_default="", default="", editable=False, max_length=20),
                    ),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    ("archived_at", models.DateTimeField(blank=True, editable=False, null=True)),
                    (
                        "tenant",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="budgets",
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "budget",
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                ("limit_cost_nanos__isnull", False),
                                ("limit_tokens__isnull", False),
                                ("limit_requests__isnull", False),
                                ("limit_tool_calls__isnull", False),
                                ("limit_seconds__isnull", False),
                                _connector="OR",
                            ),
                            name="budget_has_a_limit",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="BudgetLevel",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("percent", models.PositiveIntegerField()),
                    (
                        "action",
                        models.CharField(
                            choices=[
                                ("none", "None"),
                                ("throttle", "Throttle"),
                                ("downgrade", "Downgrade"),
                                ("hold", "Hold"),
                                ("block", "Block"),
                                ("lockout", "Lockout"),
                            ],
                            default="none",
                            max_length=10,
                        ),
                    ),
                    (
                        "notify",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.CharField(max_length=100),
                            blank=True,
                            default=list,
                            size=None,
                        ),
                    ),
                    ("cost_nanos_per_minute", models.BigIntegerField(blank=True, null=True)),
                    ("tokens_per_minute", models.BigIntegerField(blank=True, null=True)),
                    (
                        "budget",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="levels",
                            to="metering.budget",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "budget_level",
                    "ordering": ("percent",),
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("budget", "percent"), name="budget_level_once"
                        ),
                        models.CheckConstraint(
                            condition=models.Q(("percent__gte", 1), ("percent__lte", 1000)),
                            name="budget_level_percent",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="BudgetWindow",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "id",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("id", models.BigIntegerField()),
                    ("budget_id", models.BigIntegerField()),
                    ("revision", models.IntegerField()),
                    ("group_key", models.TextField()),
                    ("starts_at", models.DateTimeField()),
                    ("ends_at", models.DateTimeField(null=True)),
                    ("spent_nanos", metering.models.sums.SumField(db_default=0)),
                    ("spent_tokens", metering.models.sums.SumField(db_default=0)),
                    ("spent_requests", models.BigIntegerField(db_default=0)),
                    ("spent_tool_calls", models.BigIntegerField(db_default=0)),
                    ("reserved_nanos", metering.models.sums.SumField(db_default=0)),
                    ("reserved_tokens", metering.models.sums.SumField(db_default=0)),
                    ("reserved_requests", models.BigIntegerField(db_default=0)),
                    ("reserved_tool_calls", models.BigIntegerField(db_default=0)),
                    ("overrun_nanos", metering.models.sums.SumField(db_default=0)),
                    ("carried_nanos", metering.models.sums.SumField(db_default=0)),
                    ("counted_from", models.DateTimeField(null=True)),
                    ("oldest_grain_at", models.DateTimeField(null=True)),
                    ("first_used_at", models.DateTimeField(null=True)),
                    ("level_percent", models.IntegerField(db_default=0)),
                    ("episode", models.IntegerField(db_default=0)),
                    (
                        "fell_by",
                        models.CharField(
                            choices=[
                                ("limit", "Limit"),
                                ("levels", "Levels"),
                                ("increase", "Increase"),
                                ("spend", "Spend"),
                                ("aged", "Aged"),
                                ("carried", "Carried"),
                            ],
                            db_default="",
                            max_length=10,
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "budget_window",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("level_percent__gt", 0)),
                            fields=["tenant", "budget_id", "id"],
                            name="budget_window_at_level",
                        ),
                        models.Index(
                            fields=["tenant", "budget_id", "id"], name="budget_window_newest"
                        ),
                        models.Index(
                            condition=models.Q(("oldest_grain_at__isnull", False)),
                            fields=["tenant", "budget_id", "oldest_grain_at"],
                            name="budget_window_letting_go",
                        ),
                        models.Index(
                            condition=models.Q(("ends_at__isnull", False)),
                            fields=["tenant", "ends_at"],
                            name="budget_window_by_end",
                        ),
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "budget_id", "revision", "starts_at", "group_key"),
                            name="budget_window_once",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("spent_nanos__gte", 0),
                                ("spent_tokens__gte", 0),
                                ("spent_requests__gte", 0),
                                ("spent_tool_calls__gte", 0),
                            ),
                            name="budget_window_spent_not_negative",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("reserved_nanos__gte", 0),
                                ("reserved_tokens__gte", 0),
                                ("reserved_requests__gte", 0),
                                ("reserved_tool_calls__gte", 0),
                                ("overrun_nanos__gte", 0),
                                ("carried_nanos__gte", 0),
                            ),
                            name="budget_window_reserved_not_negative",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="CallReport",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "key",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("key", models.UUIDField()),
                    ("group_id", models.BigIntegerField()),
                    ("event_id", models.BigIntegerField()),
                    ("event_at", models.DateTimeField()),
                    ("report", models.TextField()),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "call_report",
                    "indexes": [
                        models.Index(fields=["group_id", "tenant"], name="call_report_of_group"),
                        models.Index(fields=["event_at"], name="call_report_by_age"),
                    ],
                },
            ),
            migrations.CreateModel(
                name="CallSize",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "agent",
                            "feature",
                            "model",
                            "measure",
                            "bin",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("agent", models.TextField(db_collation="C")),
                    ("feature", models.TextField(db_collation="C")),
                    ("model", models.TextField(db_collation="C")),
                    ("measure", models.SmallIntegerField()),
                    ("bin", models.SmallIntegerField()),
                    ("count", models.BigIntegerField()),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "call_size",
                },
            ),
            migrations.CreateModel(
                name="CataloguePrice",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("provider", models.CharField(max_length=100)),
                    ("model", models.CharField(max_length=200)),
                    ("name", models.CharField(blank=True, max_length=200)),
                    ("ordinal", models.PositiveSmallIntegerField()),
                    (
                        "effective_from",
                        models.DateField(blank=True, help_text="UTC; empty: always.", null=True),
                    ),
                    ("daily_from", models.TimeField(blank=True, help_text="UTC.", null=True)),
                    (
                        "daily_to",
                        models.TimeField(blank=True, help_text="UTC; exclusive.", null=True),
                    ),
                    ("context", models.JSONField(blank=True, default=dict)),
                    ("rates", models.JSONField()),
                    ("catalogue_version", models.CharField(max_length=40)),
                    ("superseded_at", models.DateTimeField(blank=True, null=True)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                ],
                options={
                    "db_table": "catalogue_price",
                    "ordering": ["provider", "model", "ordinal"],
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("superseded_at", None)),
                            fields=("provider", "model", "ordinal"),
                            name="catalogue_price_once_in_force",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Correction",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("event_id", models.BigIntegerField()),
                    ("source", models.TextField()),
                    ("sent_id", models.TextField()),
                    ("action", models.CharField(max_length=10)),
                    ("reason", models.TextField()),
                    ("actor", models.CharField(max_length=300)),
                    ("replacement_event_id", models.BigIntegerField(null=True)),
                    ("fingerprint", models.UUIDField()),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "correction",
                    "indexes": [
                        models.Index(fields=["tenant", "event_id"], name="correction_of_event")
                    ],
                },
            ),
            migrations.CreateModel(
                name="Crossing",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("window_id", models.BigIntegerField()),
                    ("percent", models.PositiveIntegerField()),
                    ("episode", models.IntegerField(default=0)),
                    ("action", models.CharField(max_length=10)),
                    ("mode", models.CharField(max_length=10)),
                    (
                        "notify",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.CharField(max_length=100), default=list, size=None
                        ),
                    ),
                    ("group_key", models.TextField()),
                    ("used_percent", models.DecimalField(decimal_places=2, max_digits=20)),
                    ("spent_nanos", metering.models.sums.SumField()),
                    ("limit_nanos", metering.models.sums.SumField(null=True)),
                    (
                        "crossed_at",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    ("claimed_at", models.DateTimeField(null=True)),
                    ("failures", models.IntegerField(db_default=0)),
                    ("retry_at", models.DateTimeField(null=True)),
                    (
                        "budget",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="metering.budget"),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "crossing",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("claimed_at__isnull", True)),
                            fields=["tenant", "id"],
                            name="crossing_unclaimed",
                        )
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "window_id", "percent", "episode"),
                            name="crossing_once_a_window_and_level",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Decision",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "id",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("id", models.BigIntegerField()),
                    ("decided_at", models.DateTimeField()),
                    ("decision", models.CharField(max_length=10)),
                    ("code", models.CharField(max_length=40)),
                    ("reservation_id", models.UUIDField(null=True)),
                    ("agent", models.TextField()),
                    ("dimensions", models.JSONField()),
                    ("asked_nanos", models.BigIntegerField(null=True)),
                    ("asked_tokens", models.BigIntegerField(null=True)),
                    ("saved_nanos", models.BigIntegerField(null=True)),
                    ("reasons", models.JSONField()),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "decision",
                    "indexes": [
                        models.Index(
                            fields=["tenant", "-decided_at", "-id"], name="decision_newest"
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="EventKey",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "key",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("key", models.UUIDField()),
                    ("response_key", models.UUIDField(null=True)),
                    ("request_key", models.UUIDField(null=True)),
                    ("span_key", models.UUIDField(null=True)),
                    ("fingerprint", models.UUIDField()),
                    ("event_id", models.BigIntegerField()),
                    ("event_at", models.DateTimeField()),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "event_key",
                    "indexes": [models.Index(fields=["event_at"], name="event_key_by_age")],
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("response_key__isnull", False)),
                            fields=("response_key", "tenant"),
                            name="event_key_of_response",
                        ),
                        models.UniqueConstraint(
                            condition=models.Q(("request_key__isnull", False)),
                            fields=("request_key", "tenant"),
                            name="event_key_of_request",
                        ),
                        models.UniqueConstraint(
                            condition=models.Q(("span_key__isnull", False)),
                            fields=("span_key", "tenant"),
                            name="event_key_of_span",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="Halt",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("match", models.JSONField(blank=True, default=dict)),
                    ("reason", models.CharField(max_length=1000)),
                    (
                        "kind",
                        models.CharField(
                            choices=[
                                ("manual", "Manual"),
                                ("breaker", "Breaker"),
                                ("lockout", "Lockout"),
                            ],
                            default="manual",
                            max_length=10,
                        ),
                    ),
                    (
                        "since",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    ("actor", models.CharField(max_length=300)),
                    ("ends_at", models.DateTimeField(blank=True, editable=False, null=True)),
                    ("lifted_at", models.DateTimeField(blank=True, null=True)),
                    ("lifted_by", models.CharField(blank=True, max_length=300)),
                    ("version", models.BigIntegerField()),
                    ("window_id", models.BigIntegerField(editable=False, null=True)),
                    ("level_percent", models.IntegerField(editable=False, null=True)),
                    ("episode", models.IntegerField(editable=False, null=True)),
                    ("breaker_id", models.BigIntegerField(editable=False, null=True)),
                    ("group_key", models.TextField(blank=True, editable=False)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "halt",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("lifted_at__isnull", True)),
                            fields=["tenant"],
                            name="halt_in_force",
                        ),
                        models.Index(fields=["tenant", "-version"], name="halt_newest"),
                        models.Index(
                            condition=models.Q(
                                ("ends_at__isnull", False), ("lifted_at__isnull", True)
                            ),
                            fields=["ends_at"],
                            name="halt_ending",
                        ),
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("lifted_by", "a budget's level"), _negated=True),
                            fields=("tenant", "window_id", "level_percent", "episode"),
                            name="lockout_once_a_window_and_level",
                        ),
                        models.UniqueConstraint(
                            condition=models.Q(
                                ("breaker_id__isnull", False), ("lifted_at__isnull", True)
                            ),
                            fields=("tenant", "breaker_id", "group_key"),
                            name="halt_once_a_breaker_and_group",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="IngestBatch",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "id",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("id", models.BigIntegerField()),
                    ("received_at", models.DateTimeField()),
                    ("event_count", models.IntegerField()),
                    ("first_at", models.DateTimeField(null=True)),
                    ("last_at", models.DateTimeField(null=True)),
                    ("rolled_up_at", models.DateTimeField(null=True)),
                    ("sessions_checked_at", models.DateTimeField(null=True)),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "ingest_batch",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("sessions_checked_at", None)),
                            fields=["tenant", "id"],
                            name="ingest_batch_sessions",
                        ),
                        models.Index(
                            condition=models.Q(("rolled_up_at", None)),
                            fields=["tenant", "id"],
                            name="ingest_batch_waiting",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="LedgerEntry",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "id",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("id", models.BigIntegerField()),
                    ("window_id", models.BigIntegerField()),
                    (
                        "kind",
                        models.SmallIntegerField(
                            choices=[
                                (1, "usage"),
                                (2, "backfill"),
                                (3, "correction"),
                                (4, "rerate"),
                                (5, "aged_out"),
                                (6, "settle"),
                            ]
                        ),
                    ),
                    ("batch_id", models.BigIntegerField(null=True)),
                    ("grain_at", models.DateTimeField(null=True)),
                    ("cost_nanos", metering.models.sums.SumField()),
                    ("tokens", metering.models.sums.SumField()),
                    ("requests", models.BigIntegerField()),
                    ("tool_calls", models.BigIntegerField()),
                    (
                        "created_at",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "ledger_entry",
                    "indexes": [
                        models.Index(
                            fields=["tenant", "window_id", "grain_at"], name="ledger_entry_of_grain"
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="LimitIncrease",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("group_key", models.TextField(blank=True)),
                    ("add_cost_nanos", models.BigIntegerField(default=0)),
                    ("add_tokens", models.BigIntegerField(default=0)),
                    ("add_requests", models.BigIntegerField(default=0)),
                    ("add_tool_calls", models.BigIntegerField(default=0)),
                    ("add_seconds", models.BigIntegerField(default=0)),
                    ("starts_at", models.DateTimeField(blank=True, null=True)),
                    ("ends_at", models.DateTimeField()),
                    ("reason", models.CharField(max_length=1000)),
                    (
                        "status",
                        models.CharField(
                            choices=[
                                ("asked", "Asked"),
                                ("approved", "Approved"),
                                ("refused", "Refused"),
                            ],
                            default="asked",
                            max_length=10,
                        ),
                    ),
                    ("asked_at", models.DateTimeField(auto_now_add=True)),
                    ("asked_by", models.CharField(max_length=300)),
                    ("decided_at", models.DateTimeField(blank=True, null=True)),
                    ("decided_by", models.CharField(blank=True, max_length=300)),
                    ("note", models.CharField(blank=True, max_length=1000)),
                    ("window_id", models.BigIntegerField(editable=False, null=True)),
                    ("level_percent", models.IntegerField(editable=False, null=True)),
                    ("judged_at", models.DateTimeField(editable=False, null=True)),
                    (
                        "budget",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="raises",
                            to="metering.budget",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "limit_increase",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("judged_at__isnull", True), ("status", "approved")),
                            fields=["ends_at"],
                            name="limit_increase_to_be_judged",
                        )
                    ],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                ("add_cost_nanos__gte", 0),
                                ("add_tokens__gte", 0),
                                ("add_requests__gte", 0),
                                ("add_tool_calls__gte", 0),
                                ("add_seconds__gte", 0),
                            ),
                            name="limit_increase_not_negative",
                        ),
                        models.UniqueConstraint(
                            condition=models.Q(("status", "asked")),
                            fields=("tenant", "window_id", "level_percent"),
                            name="limit_increase_asked_once_a_window_and_level",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="LimitReduction",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("match", models.JSONField(blank=True, default=dict)),
                    ("limit_percent", models.PositiveIntegerField()),
                    ("reason", models.CharField(max_length=1000)),
                    ("cause", models.CharField(max_length=500)),
                    (
                        "since",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    ("ended_at", models.DateTimeField(null=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "limit_reduction",
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("ended_at__isnull", True)),
                            fields=("tenant", "cause"),
                            name="limit_reduction_once_a_cause",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("limit_percent__gte", 1), ("limit_percent__lte", 99)
                            ),
                            name="limit_reduction_limit_percent",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="AttributeMappings",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("mappings", models.JSONField(blank=True, default=list)),
                    (
                        "tenant",
                        models.OneToOneField(
                            on_delete=models.deletion.CASCADE, to="tenants.tenant"
                        ),
                    ),
                ],
                options={
                    "verbose_name_plural": "attribute mappings",
                    "db_table": "attribute_mappings",
                },
            ),
            migrations.CreateModel(
                name="ModelRoute",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("name", models.CharField(max_length=200)),
                    ("task_type", models.CharField(blank=True, max_length=200)),
                    ("tiers", models.JSONField()),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "model_route",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "task_type"), name="model_route_once_a_type"
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Outcome",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("task", models.CharField(blank=True, max_length=200)),
                    ("session", models.CharField(blank=True, max_length=200)),
                    ("is_success", models.BooleanField()),
                    ("value_nanos", models.BigIntegerField(null=True)),
                    ("reported_at", models.DateTimeField(auto_now=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "outcome",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "task", "session"),
                            name="outcome_once_a_task_or_session",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="RateCounter",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "id",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("id", models.BigIntegerField()),
                    ("subject", models.TextField()),
                    ("group_key", models.TextField()),
                    ("last_second", models.BigIntegerField(db_default=0)),
                    (
                        "last_hour",
                        models.GeneratedField(
                            db_persist=True,
                            expression=django.db.models.expressions.CombinedExpression(
                                models.F("last_second"), "/", models.Value(3600)
                            ),
                            output_field=models.BigIntegerField(),
                        ),
                    ),
                    (
                        "nanos",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=metering.models.sums.SumField(), size=None
                        ),
                    ),
                    (
                        "tokens",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=metering.models.sums.SumField(), size=None
                        ),
                    ),
                    (
                        "requests",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.BigIntegerField(), size=None
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "rate_counter",
                    "indexes": [models.Index(fields=["last_hour"], name="rate_counter_idle")],
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "subject", "group_key"),
                            name="rate_counter_once_a_subject_and_group",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="RateLimit",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("name", models.CharField(max_length=200)),
                    ("match", models.JSONField(blank=True, default=dict)),
                    (
                        "per",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.CharField(max_length=20),
                            blank=True,
                            default=list,
                            size=None,
                        ),
                    ),
                    ("cost_nanos_per_minute", models.BigIntegerField(blank=True, null=True)),
                    ("tokens_per_minute", models.BigIntegerField(blank=True, null=True)),
                    ("requests_per_minute", models.BigIntegerField(blank=True, null=True)),
                    (
                        "mode",
                        models.CharField(
                            choices=[
                                ("shadow", "Shadow"),
                                ("warn", "Warn"),
                                ("enforce", "Enforce"),
                            ],
                            default="enforce",
                            max_length=10,
                        ),
                    ),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "rate_limit",
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                ("cost_nanos_per_minute__isnull", False),
                                ("tokens_per_minute__isnull", False),
                                ("requests_per_minute__isnull", False),
                                _connector="OR",
                            ),
                            name="rate_limit_has_a_rate",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Reservation",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "id",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("id", models.UUIDField()),
                    (
                        "state",
                        models.SmallIntegerField(
                            choices=[(1, "open"), (2, "settled"), (3, "released"), (4, "expired")]
                        ),
                    ),
                    ("created_at", models.DateTimeField()),
                    ("expires_at", models.DateTimeField()),
                    ("finished_at", models.DateTimeField(null=True)),
                    ("dimensions", models.JSONField()),
                    ("estimate", models.CharField(max_length=10)),
                    ("model", models.TextField()),
                    ("provider", models.TextField()),
                    ("requested_model", models.TextField(null=True)),
                    ("top_model", models.TextField(null=True)),
                    ("top_provider", models.TextField(null=True)),
                    ("reserved_nanos", models.BigIntegerField()),
                    ("reserved_tokens", models.BigIntegerField()),
                    ("reserved_requests", models.SmallIntegerField()),
                    ("reserved_tool_calls", models.SmallIntegerField()),
                    (
                        "window_ids",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.BigIntegerField(), size=None
                        ),
                    ),
                    ("event_id", models.BigIntegerField(null=True)),
                    ("fingerprint", models.UUIDField(null=True)),
                    ("cost_nanos", models.BigIntegerField(null=True)),
                    ("used_tokens", models.BigIntegerField(null=True)),
                    ("is_late", models.BooleanField(db_default=False)),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "reservation",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("state", 1)),
                            fields=["tenant", "expires_at"],
                            name="reservation_open",
                        ),
                        models.Index(fields=["tenant", "created_at"], name="reservation_by_time"),
                    ],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                ("reserved_nanos__gte", 0),
                                ("reserved_tokens__gte", 0),
                                ("reserved_requests__gte", 0),
                                ("reserved_tool_calls__gte", 0),
                            ),
                            name="reservation_not_negative",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("state", 1), ("finished_at__isnull", False), _connector="OR"
                            ),
                            name="reservation_finished_has_a_time",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="Simulation",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("proposal", models.JSONField()),
                    ("from_at", models.DateTimeField()),
                    ("to_at", models.DateTimeField()),
                    (
                        "status",
                        models.CharField(
                            choices=[
                                ("waiting", "Waiting"),
                                ("running", "Running"),
                                ("done", "Done"),
                                ("failed", "Failed"),
                            ],
                            default="waiting",
                            max_length=10,
                        ),
                    ),
                    ("result", models.JSONField(null=True)),
                    ("detail", models.TextField(blank=True)),
                    ("actor", models.CharField(max_length=300)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    ("claimed_until", models.DateTimeField(null=True)),
                    ("finished_at", models.DateTimeField(null=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "simulation",
                },
            ),
            migrations.CreateModel(
                name="SourceCount",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "day",
                            "source",
                            "route",
                            "outcome",
                            "code",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("day", models.DateField()),
                    ("source", models.TextField(db_collation="C")),
                    ("route", models.SmallIntegerField()),
                    (
                        "outcome",
                        models.SmallIntegerField(
                            choices=[
                                (1, "accepted"),
                                (2, "merged"),
                                (3, "duplicate"),
                                (4, "conflict"),
                                (5, "unpriced"),
                                (6, "rejected"),
                                (7, "passed_over"),
                            ]
                        ),
                    ),
                    ("code", models.TextField(db_collation="C")),
                    ("count", models.BigIntegerField()),
                    ("first_at", models.DateTimeField()),
                    ("last_at", models.DateTimeField()),
                    ("detail", models.TextField()),
                    ("sample", models.TextField(null=True)),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "source_count",
                    "indexes": [models.Index(fields=["day"], name="source_count_by_age")],
                },
            ),
            migrations.CreateModel(
                name="TenantPrice",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("effective_from", models.DateTimeField()),
                    ("effective_to", models.DateTimeField(blank=True, null=True)),
                    ("note", models.CharField(blank=True, max_length=500)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    ("provider", models.CharField(blank=True, max_length=200)),
                    ("model", models.CharField(max_length=200)),
                    ("rates", models.JSONField()),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "tenant_price",
                    "ordering": ["provider", "model", "effective_from"],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                ("effective_to", None),
                                ("effective_to__gt", models.F("effective_from")),
                                _connector="OR",
                            ),
                            name="tenant_price_ends_after_it_starts",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="ToolPrice",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("effective_from", models.DateTimeField()),
                    ("effective_to", models.DateTimeField(blank=True, null=True)),
                    ("note", models.CharField(blank=True, max_length=500)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    ("tool", models.CharField(max_length=200)),
                    ("call_nanos", models.BigIntegerField()),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "tool_price",
                    "ordering": ["tool", "effective_from"],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                ("effective_to", None),
                                ("effective_to__gt", models.F("effective_from")),
                                _connector="OR",
                            ),
                            name="tool_price_ends_after_it_starts",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(("call_nanos__gte", 0)),
                            name="tool_price_not_negative",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="TraceSpan",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "trace",
                            "span",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("trace", models.CharField(max_length=32)),
                    ("span", models.CharField(max_length=16)),
                    ("parent", models.CharField(max_length=16, null=True)),
                    ("received_at", models.DateTimeField()),
                    ("started_us", models.BigIntegerField()),
                    ("ended_us", models.BigIntegerField()),
                    ("match_key", models.UUIDField(null=True)),
                    ("call_fingerprint", models.UUIDField(null=True)),
                    ("told", models.TextField(null=True)),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "trace_span",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("match_key__isnull", False)),
                            fields=["match_key", "tenant", "ended_us"],
                            name="trace_span_match",
                        ),
                        models.Index(fields=["received_at"], name="trace_span_by_age"),
                    ],
                },
            ),
            migrations.CreateModel(
                name="UnitCount",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("name", models.CharField(max_length=200)),
                    ("day", models.DateField()),
                    ("count", models.BigIntegerField()),
                    ("updated_at", models.DateTimeField(auto_now=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "unit_count",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "name", "day"), name="unit_count_once_a_day"
                        ),
                        models.CheckConstraint(
                            condition=models.Q(("count__gte", 0)), name="unit_count_not_negative"
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="UsageCombination",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "starts_at",
                            "id",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("starts_at", models.DateTimeField()),
                    ("id", models.UUIDField()),
                    ("session", models.TextField(db_collation="C")),
                    ("user", models.TextField(db_collation="C")),
                    ("team", models.TextField(db_collation="C")),
                    ("customer", models.TextField(db_collation="C")),
                    ("agent", models.TextField(db_collation="C")),
                    ("feature", models.TextField(db_collation="C")),
                    ("model", models.TextField(db_collation="C")),
                    ("calls", models.BigIntegerField()),
                    ("first_at", models.DateTimeField()),
                    ("last_at", models.DateTimeField()),
                    ("is_first_known", models.BooleanField()),
                    ("is_last_known", models.BooleanField()),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "usage_combination",
                    "indexes": [
                        models.Index(
                            condition=models.Q(
                                ("is_first_known", True), ("is_last_known", True), _negated=True
                            ),
                            fields=["tenant_id"],
                            name="usage_combination_searched",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="UsageHistogram",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "dimension_set",
                            "starts_at",
                            "value_1",
                            "measure",
                            "bin",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("dimension_set", models.SmallIntegerField()),
                    ("starts_at", models.DateTimeField()),
                    ("value_1", models.TextField(db_collation="C")),
                    ("measure", models.SmallIntegerField()),
                    ("bin", models.SmallIntegerField()),
                    ("count", models.BigIntegerField()),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "usage_histogram",
                },
            ),
            migrations.CreateModel(
                name="UsageRollup",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "dimension_set",
                            "starts_at",
                            "value_1",
                            "value_2",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("dimension_set", models.SmallIntegerField()),
                    ("starts_at", models.DateTimeField()),
                    ("value_1", models.TextField(db_collation="C")),
                    ("value_2", models.TextField(db_collation="C")),
                    ("cost_nanos", metering.models.sums.SumField()),
                    ("requests", models.BigIntegerField()),
                    ("errors", models.BigIntegerField()),
                    ("unpriced", models.BigIntegerField()),
                    ("input_tokens", metering.models.sums.SumField()),
                    ("output_tokens", metering.models.sums.SumField()),
                    ("cache_read_tokens", metering.models.sums.SumField()),
                    ("cache_write_tokens", metering.models.sums.SumField()),
                    ("reasoning_tokens", metering.models.sums.SumField()),
                    ("tool_calls", models.BigIntegerField()),
                    ("given_nanos", metering.models.sums.SumField()),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "usage_rollup",
                },
            ),
            migrations.CreateModel(
                name="UsageSeal",
                fields=[
                    (
                        "tenant",
                        models.OneToOneField(
                            db_constraint=False,
                            on_delete=models.deletion.DO_NOTHING,
                            primary_key=True,
                            serialize=False,
                            to="tenants.tenant",
                        ),
                    ),
                    ("frozen_until", models.DateTimeField()),
                    ("sealed_until", models.DateTimeField()),
                ],
                options={
                    "db_table": "usage_seal",
                },
            ),
            migrations.CreateModel(
                name="WindowSeal",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "window_id",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("window_id", models.BigIntegerField()),
                    ("entry_count", models.BigIntegerField(db_default=0)),
                    ("entry_nanos", metering.models.sums.SumField(db_default=0)),
                    ("entry_tokens", metering.models.sums.SumField(db_default=0)),
                    ("entry_requests", models.BigIntegerField(db_default=0)),
                    ("entry_tool_calls", models.BigIntegerField(db_default=0)),
                    ("event_nanos", metering.models.sums.SumField(db_default=0)),
                    ("event_tokens", metering.models.sums.SumField(db_default=0)),
                    ("event_requests", models.BigIntegerField(db_default=0)),
                    ("event_tool_calls", models.BigIntegerField(db_default=0)),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "window_seal",
                },
            ),
        ),
        *STORAGE,
    ]
