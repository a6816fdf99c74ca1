"""Tables of incidents, channels and deliveries."""

import datetime
import uuid

import django.contrib.postgres.fields
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import metering.models.sums
from common.create_models import CreateModels
from tenants.row_security import ForceRowSecurity


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0001_initial"),
    ]

    operations = [
        CreateModels(
            migrations.CreateModel(
                name="AlertSettings",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("quiet_from", models.TimeField(blank=True, null=True)),
                    ("quiet_until", models.TimeField(blank=True, null=True)),
                    ("cool_down_seconds", models.PositiveIntegerField(default=900)),
                    ("digest_at", models.TimeField(default=datetime.time(8, 0))),
                    ("halts_loops", models.BooleanField(default=False)),
                    (
                        "anomaly_limit_percent",
                        models.PositiveSmallIntegerField(blank=True, null=True),
                    ),
                    ("rules", models.JSONField(blank=True, default=dict)),
                    (
                        "tenant",
                        models.OneToOneField(
                            on_delete=models.deletion.CASCADE, to="tenants.tenant"
                        ),
                    ),
                ],
                options={
                    "verbose_name_plural": "alert settings",
                    "db_table": "alert_settings",
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                models.Q(
                                    ("quiet_from__isnull", True), ("quiet_until__isnull", True)
                                ),
                                models.Q(
                                    ("quiet_from__isnull", False), ("quiet_until__isnull", False)
                                ),
                                _connector="OR",
                            ),
                            name="alert_settings_quiet_hours_have_two_ends",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("anomaly_limit_percent__isnull", True),
                                models.Q(
                                    ("anomaly_limit_percent__gte", 1),
                                    ("anomaly_limit_percent__lte", 99),
                                ),
                                _connector="OR",
                            ),
                            name="alert_settings_limit_percent",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="Anomaly",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("dimension", models.CharField(max_length=20)),
                    ("value", models.TextField()),
                    ("measure", models.CharField(max_length=30)),
                    ("is_above", models.BooleanField()),
                    ("began_at", models.DateTimeField()),
                    ("seen_at", models.DateTimeField()),
                    ("ended_at", models.DateTimeField(null=True)),
                    ("score", models.FloatField()),
                    ("actual", models.FloatField()),
                    ("expected", models.FloatField()),
                    ("excess_nanos", metering.models.sums.SumField(default=0)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "incident",
                        models.ForeignKey(
                            null=True,
                            on_delete=models.deletion.SET_NULL,
                            related_name="anomalies",
                            to="alerts.incident",
                        ),
                    ),
                ],
                options={
                    "verbose_name_plural": "anomalies",
                    "db_table": "anomaly",
                    "indexes": [models.Index(fields=["tenant", "-id"], name="anomaly_newest")],
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("ended_at__isnull", True)),
                            fields=("tenant", "dimension", "value", "measure"),
                            name="anomaly_once_a_series_and_measure",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Channel",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("name", models.CharField(max_length=200)),
                    (
                        "kind",
                        models.CharField(
                            choices=[
                                ("email", "Email"),
                                ("slack", "Slack"),
                                ("teams", "Teams"),
                                ("discord", "Discord"),
                                ("pagerduty", "Pagerduty"),
                                ("webhook", "Webhook"),
                            ],
                            max_length=10,
                        ),
                    ),
                    ("config", models.JSONField(default=dict)),
                    ("secrets", models.BinaryField()),
                    (
                        "contacts",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.CharField(max_length=100),
                            blank=True,
                            default=list,
                            size=None,
                        ),
                    ),
                    (
                        "severities",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.CharField(
                                choices=[
                                    ("info", "Info"),
                                    ("warning", "Warning"),
                                    ("critical", "Critical"),
                                ],
                                max_length=10,
                            ),
                            size=None,
                        ),
                    ),
                    (
                        "digest",
                        models.CharField(
                            choices=[
                                ("none", "None"),
                                ("hourly", "Hourly"),
                                ("daily", "Daily"),
                                ("weekly", "Weekly"),
                            ],
                            default="none",
                            max_length=10,
                        ),
                    ),
                    ("digested_at", models.DateTimeField(editable=False, null=True)),
                    ("is_paused", models.BooleanField(default=False)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    ("removed_at", models.DateTimeField(editable=False, null=True)),
                    ("delivered_at", models.DateTimeField(editable=False, null=True)),
                    ("failed_at", models.DateTimeField(editable=False, null=True)),
                    ("last_error", models.CharField(blank=True, editable=False, max_length=1000)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "channel",
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("removed_at__isnull", True)),
                            fields=("tenant", "name"),
                            name="channel_name_once_a_tenant",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                (
                                    "kind__in",
                                    ["email", "slack", "teams", "discord", "pagerduty", "webhook"],
                                )
                            ),
                            name="channel_known_kind",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="Delivery",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    (
                        "recipients",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.CharField(max_length=254),
                            blank=True,
                            default=list,
                            size=None,
                        ),
                    ),
                    (
                        "event",
                        models.CharField(
                            choices=[
                                ("opened", "Opened"),
                                ("updated", "Updated"),
                                ("escalated", "Escalated"),
                                ("acknowledged", "Acknowledged"),
                                ("resolved", "Resolved"),
                                ("digest", "Digest"),
                                ("report", "Report"),
                                ("test", "Test"),
                            ],
                            max_length=12,
                        ),
                    ),
                    (
                        "severity",
                        models.CharField(
                            choices=[
                                ("info", "Info"),
                                ("warning", "Warning"),
                                ("critical", "Critical"),
                            ],
                            max_length=10,
                        ),
                    ),
                    ("reference", models.UUIDField(default=uuid.uuid4, unique=True)),
                    ("message", models.JSONField()),
                    (
                        "state",
                        models.CharField(
                            choices=[
                                ("waiting", "Waiting"),
                                ("sent", "Sent"),
                                ("dead", "Dead"),
                                ("superseded", "Superseded"),
                            ],
                            default="waiting",
                            max_length=10,
                        ),
                    ),
                    (
                        "created_at",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    (
                        "due_at",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    ("held_by", models.CharField(blank=True, max_length=20)),
                    ("claimed_until", models.DateTimeField(null=True)),
                    ("attempts", models.IntegerField(default=0)),
                    ("tries", models.IntegerField(default=0)),
                    ("sent_at", models.DateTimeField(null=True)),
                    ("last_error", models.CharField(blank=True, max_length=1000)),
                    (
                        "channel",
                        models.ForeignKey(
                            db_index=False,
                            null=True,
                            on_delete=models.deletion.PROTECT,
                            to="alerts.channel",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "incident",
                        models.ForeignKey(
                            null=True, on_delete=models.deletion.CASCADE, to="alerts.incident"
                        ),
                    ),
                ],
                options={
                    "verbose_name_plural": "deliveries",
                    "db_table": "delivery",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("state", "waiting")),
                            fields=["due_at"],
                            name="delivery_due",
                        ),
                        models.Index(
                            condition=models.Q(("state", "waiting")),
                            fields=["tenant", "channel", "id"],
                            name="delivery_waiting",
                        ),
                        models.Index(fields=["tenant", "-id"], name="delivery_newest"),
                        models.Index(fields=["incident", "id"], name="delivery_of_incident"),
                        models.Index(
                            condition=models.Q(("state", "dead")),
                            fields=["tenant", "-id"],
                            name="delivery_dead",
                        ),
                        models.Index(fields=["channel", "created_at"], name="delivery_of_channel"),
                        models.Index(
                            condition=models.Q(("event", "test")),
                            fields=["tenant", "created_at"],
                            name="delivery_test",
                        ),
                    ],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                ("state__in", ["waiting", "sent", "dead", "superseded"])
                            ),
                            name="delivery_known_state",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="DeliveryAttempt",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("started_at", models.DateTimeField()),
                    ("duration_ms", models.IntegerField()),
                    ("is_success", models.BooleanField()),
                    ("status", models.IntegerField(null=True)),
                    ("error", models.CharField(blank=True, max_length=1000)),
                    (
                        "delivery",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="tried",
                            to="alerts.delivery",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "delivery_attempt",
                    "indexes": [
                        models.Index(fields=["delivery", "id"], name="delivery_attempt_in_order")
                    ],
                },
            ),
            migrations.CreateModel(
                name="Incident",
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
                                ("crossing", "Crossing"),
                                ("anomaly", "Anomaly"),
                                ("rule", "Rule"),
                                ("loop", "Loop"),
                                ("breaker", "Breaker"),
                                ("reconciliation", "Reconciliation"),
                            ],
                            max_length=20,
                        ),
                    ),
                    ("cause", models.CharField(max_length=700)),
                    (
                        "severity",
                        models.CharField(
                            choices=[
                                ("info", "Info"),
                                ("warning", "Warning"),
                                ("critical", "Critical"),
                            ],
                            max_length=10,
                        ),
                    ),
                    ("title", models.CharField(max_length=300)),
                    ("summary", models.TextField()),
                    ("match", models.JSONField(default=dict)),
                    ("facts", models.JSONField(default=dict)),
                    ("excess_nanos", metering.models.sums.SumField(null=True)),
                    ("observations", models.IntegerField(default=1)),
                    (
                        "opened_at",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    (
                        "seen_at",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    ("updated_at", models.DateTimeField(auto_now=True)),
                    ("notified_at", models.DateTimeField(null=True)),
                    ("acknowledged_at", models.DateTimeField(null=True)),
                    ("acknowledged_by", models.CharField(blank=True, max_length=300)),
                    ("snoozed_until", models.DateTimeField(null=True)),
                    ("resolved_at", models.DateTimeField(null=True)),
                    ("resolved_by", models.CharField(blank=True, max_length=300)),
                    (
                        "assigned_to",
                        models.ForeignKey(
                            null=True,
                            on_delete=models.deletion.SET_NULL,
                            to=settings.AUTH_USER_MODEL,
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "incident",
                    "indexes": [
                        models.Index(fields=["tenant", "-id"], name="incident_newest"),
                        models.Index(fields=["tenant", "cause", "-id"], name="incident_of_cause"),
                        models.Index(
                            condition=models.Q(("resolved_at__isnull", True)),
                            fields=["tenant", "kind"],
                            name="incident_unresolved",
                        ),
                        models.Index(fields=["tenant", "opened_at"], name="incident_by_begin"),
                        models.Index(
                            condition=models.Q(("resolved_at__isnull", False)),
                            fields=["tenant", "resolved_at"],
                            name="incident_by_end",
                        ),
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("resolved_at__isnull", True)),
                            fields=("tenant", "cause"),
                            name="incident_once_a_cause",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("severity__in", ["info", "warning", "critical"]),
                                (
                                    "kind__in",
                                    [
                                        "crossing",
                                        "anomaly",
                                        "rule",
                                        "loop",
                                        "breaker",
                                        "reconciliation",
                                    ],
                                ),
                            ),
                            name="incident_known_kind_and_severity",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="IncidentEntry",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    (
                        "at",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    (
                        "kind",
                        models.CharField(
                            choices=[
                                ("opened", "Opened"),
                                ("updated", "Updated"),
                                ("escalated", "Escalated"),
                                ("reopened", "Reopened"),
                                ("acknowledged", "Acknowledged"),
                                ("assigned", "Assigned"),
                                ("snoozed", "Snoozed"),
                                ("commented", "Commented"),
                                ("notified", "Notified"),
                                ("not_notified", "Not Notified"),
                                ("halted", "Halted"),
                                ("resolved", "Resolved"),
                            ],
                            max_length=20,
                        ),
                    ),
                    ("actor", models.CharField(max_length=300)),
                    ("text", models.TextField(blank=True)),
                    (
                        "incident",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="entries",
                            to="alerts.incident",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "incident_entry",
                    "indexes": [
                        models.Index(fields=["incident", "id"], name="incident_entry_in_order")
                    ],
                },
            ),
            migrations.CreateModel(
                name="MaintenanceWindow",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("starts_at", models.DateTimeField()),
                    ("ends_at", models.DateTimeField()),
                    ("match", models.JSONField(blank=True, default=dict)),
                    ("reason", models.CharField(max_length=1000)),
                    (
                        "created_at",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    ("created_by", models.CharField(max_length=300)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "maintenance_window",
                    "indexes": [
                        models.Index(fields=["tenant", "ends_at"], name="maintenance_window_by_end")
                    ],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(("ends_at__gt", models.F("starts_at"))),
                            name="maintenance_window_has_length",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="ScanProgress",
                fields=[
                    (
                        "tenant",
                        models.OneToOneField(
                            on_delete=models.deletion.CASCADE,
                            primary_key=True,
                            serialize=False,
                            to="tenants.tenant",
                        ),
                    ),
                    ("learned_until", models.DateTimeField()),
                    ("batch_id", models.BigIntegerField(default=0)),
                    (
                        "scanned_at",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    ("judged_at", models.DateTimeField(null=True)),
                ],
                options={
                    "db_table": "scan_progress",
                },
            ),
            migrations.CreateModel(
                name="SeriesState",
                fields=[
                    (
                        "pk",
                        models.CompositePrimaryKey(
                            "tenant_id",
                            "dimension",
                            "value",
                            blank=True,
                            editable=False,
                            primary_key=True,
                            serialize=False,
                        ),
                    ),
                    ("dimension", models.CharField(max_length=20)),
                    ("value", models.TextField(db_collation="C")),
                    ("records", models.BinaryField()),
                    ("used_at", models.DateTimeField()),
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
                    "db_table": "series_state",
                    "indexes": [
                        models.Index(fields=["tenant", "used_at"], name="series_state_idle")
                    ],
                },
            ),
        ),
        ForceRowSecurity(
            "incident",
            "incident_entry",
            "channel",
            "delivery",
            "delivery_attempt",
            "alert_settings",
            "maintenance_window",
            "scan_progress",
            "series_state",
            "anomaly",
        ),
    ]
