"""Seals of usage and windows, and the removal of entries and audit entries by retention alone.

Locks: the tables are new; replacing the function waits for nobody.
"""

from django.db import migrations, models

import metering.models.sums
from tenants.row_security import ForceRowSecurity

APPEND_ONLY = """
    CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {exception}
        RAISE EXCEPTION 'rows of % are never changed or removed; write a correcting row', TG_TABLE_NAME;
    END $$;
"""
# Retention says so in the transaction that removes rows; for entries it seals their sums there.
RETENTION = """
        IF TG_OP = 'DELETE' AND current_setting('spendgate.retention', true) = 'on' THEN
            RETURN NULL;
        END IF;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0014_rolling_windows_that_let_go"),
        ("tenants", "0002_row_security"),
    ]

    operations = [
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
            options={"db_table": "usage_seal"},
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
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.deletion.DO_NOTHING,
                        to="tenants.tenant",
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
            ],
            options={"db_table": "window_seal"},
        ),
        ForceRowSecurity("usage_seal", "window_seal"),
        migrations.RunSQL(
            APPEND_ONLY.format(exception=RETENTION), APPEND_ONLY.format(exception="")
        ),
    ]
