"""Calls that several reports tell of: further identities, reports, and spans of open traces.

Locks: columns with a constant default are added without rewriting `usage_event`; the unique indexes
on `event_key` block writes to it while they are built.
"""

import django.db.models.deletion
from django.db import migrations, models

from tenants.row_security import ForceRowSecurity

EVENT_COLUMNS = """
    ALTER TABLE usage_event ADD COLUMN request_id text,
        ADD COLUMN authority smallint NOT NULL DEFAULT 1,
        ADD COLUMN completeness smallint NOT NULL DEFAULT 1,
        ADD COLUMN filled smallint NOT NULL DEFAULT 0,
        ADD COLUMN is_conflict boolean NOT NULL DEFAULT false;
    CREATE INDEX usage_event_conflict ON usage_event (tenant_id, time) WHERE is_conflict;
"""
DROP_EVENT_COLUMNS = """
    DROP INDEX usage_event_conflict;
    ALTER TABLE usage_event DROP COLUMN request_id, DROP COLUMN authority,
        DROP COLUMN completeness, DROP COLUMN filled, DROP COLUMN is_conflict;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0009_open_breakers"),
        ("tenants", "0002_row_security"),
    ]

    operations = [
        migrations.RunSQL(EVENT_COLUMNS, DROP_EVENT_COLUMNS),
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
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="tenants.tenant",
                    ),
                ),
                ("key", models.UUIDField()),
                ("group_id", models.BigIntegerField()),
                ("event_id", models.BigIntegerField()),
                ("event_at", models.DateTimeField()),
                ("report", models.TextField()),
            ],
            options={
                "db_table": "call_report",
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
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="tenants.tenant",
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
            ],
            options={
                "db_table": "trace_span",
            },
        ),
        migrations.RemoveConstraint(
            model_name="eventkey",
            name="event_key_of_response",
        ),
        migrations.AddField(
            model_name="eventkey",
            name="request_key",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="eventkey",
            name="span_key",
            field=models.UUIDField(null=True),
        ),
        migrations.AddConstraint(
            model_name="eventkey",
            constraint=models.UniqueConstraint(
                condition=models.Q(("response_key__isnull", False)),
                fields=("response_key", "tenant"),
                name="event_key_of_response",
            ),
        ),
        migrations.AddConstraint(
            model_name="eventkey",
            constraint=models.UniqueConstraint(
                condition=models.Q(("request_key__isnull", False)),
                fields=("request_key", "tenant"),
                name="event_key_of_request",
            ),
        ),
        migrations.AddConstraint(
            model_name="eventkey",
            constraint=models.UniqueConstraint(
                condition=models.Q(("span_key__isnull", False)),
                fields=("span_key", "tenant"),
                name="event_key_of_span",
            ),
        ),
        migrations.AddIndex(
            model_name="callreport",
            index=models.Index(fields=["group_id", "tenant"], name="call_report_of_group"),
        ),
        migrations.AddIndex(
            model_name="tracespan",
            index=models.Index(
                condition=models.Q(("match_key__isnull", False)),
                fields=["match_key", "tenant", "ended_us"],
                name="trace_span_match",
            ),
        ),
        migrations.AddIndex(
            model_name="tracespan",
            index=models.Index(fields=["received_at"], name="trace_span_by_age"),
        ),
        ForceRowSecurity("call_report", "trace_span"),
    ]
