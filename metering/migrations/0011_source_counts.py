"""Counts of what each source sends, and an index that finds holds nobody told the outcome of.

Locks: the index blocks writes to `reservation` while it is built, which reads the table once. The
counts are a new table; their rows are updated every second, so their pages keep room for it.
"""

import django.db.models.deletion
from django.db import migrations, models

from tenants.row_security import ForceRowSecurity

STORAGE = """
    ALTER TABLE source_count SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
"""
# State 4 is "expired".
UNKNOWN_HOLDS = """
    CREATE INDEX reservation_unknown ON reservation (tenant_id, expires_at, id)
        WHERE state = 4 AND event_id IS NULL;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0010_calls_told_in_many_ways"),
        ("tenants", "0002_row_security"),
    ]

    operations = [
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
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "db_table": "source_count",
                "indexes": [models.Index(fields=["day"], name="source_count_by_age")],
            },
        ),
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
        migrations.RunSQL(UNKNOWN_HOLDS, "DROP INDEX reservation_unknown"),
        ForceRowSecurity("source_count"),
    ]
