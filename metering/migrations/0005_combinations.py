"""Combinations of values by day, and histograms of further dimensions: made of the events that are
rolled up already. Nothing else may roll up meanwhile; on 5 million events it takes some minutes.
"""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from metering.models import BATCH_ID_STRIDE, Operation
from metering.rollups.bins import BIN_SQL, MEASURE_COLUMNS
from metering.rollups.combinations import COLUMN_LIST, ID
from metering.rollups.sets import DAY_SETS, OTHER
from tenants.row_security import ForceRowSecurity

SEE_ALL = "SET LOCAL spendgate.platform = 'fill roll-ups that are new'"
SEE_NONE = "SET LOCAL spendgate.platform = ''"
DAY = "date_bin('1 day', e.time, 'epoch')"
ROLLED_UP = f"""
    usage_event e JOIN ingest_batch b ON b.tenant_id = e.tenant_id
        AND b.id = e.id / {BATCH_ID_STRIDE} AND b.rolled_up_at IS NOT NULL
"""
FILL_COMBINATIONS = f"""
    INSERT INTO usage_combination (tenant_id, starts_at, id, {COLUMN_LIST}, calls,
        first_at, last_at, is_first_known, is_last_known)
    SELECT tenant_id, starts_at, {ID}, {COLUMN_LIST}, calls, first_at, last_at, true, true
    FROM (
        SELECT e.tenant_id, {DAY} AS starts_at, {COLUMN_LIST}, count(*) AS calls,
            min(time) AS first_at, max(time) AS last_at
        FROM {ROLLED_UP} WHERE NOT is_void GROUP BY e.tenant_id, {DAY}, {COLUMN_LIST}
    ) used
"""
# A value without a row of its own is part of the long tail.
FILL_HISTOGRAMS = f"""
    INSERT INTO usage_histogram (tenant_id, dimension_set, starts_at, value_1, measure, bin, count)
    SELECT c.tenant_id, %(set)s, c.starts_at, coalesce(r.value_1, %(other)s), measure, bin,
        sum(count)
    FROM (
        SELECT e.tenant_id, {DAY} AS starts_at, e."{{name}}" COLLATE "C" AS value,
            m.measure::smallint AS measure, {BIN_SQL.format(value="m.value")} AS bin,
            count(*) AS count
        FROM {ROLLED_UP} CROSS JOIN LATERAL (VALUES {{measures}}) AS m (measure, value)
        WHERE NOT is_void AND operation <> {Operation.TOOL.value} AND m.value IS NOT NULL
        GROUP BY 1, 2, 3, 4, 5
    ) c LEFT JOIN usage_rollup r ON r.tenant_id = c.tenant_id AND r.dimension_set = %(set)s
        AND r.starts_at = c.starts_at AND r.value_1 = c.value
    GROUP BY 1, 3, 4, 5, 6
"""
# Finds the buckets with a long tail, of which there are few: every answer asks whether there are any.
LONG_TAILS = f"""
    CREATE INDEX usage_rollup_long_tail ON usage_rollup (tenant_id, dimension_set, starts_at)
        WHERE value_1 = '{OTHER}';
"""
MEASURES = ", ".join(f"({number}, e.{column})" for number, column in MEASURE_COLUMNS.items())
NEW_HISTOGRAMS = ("team", "customer", "provider")


def fill(apps: object, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Add up what is rolled up."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(SEE_ALL)
        cursor.execute(FILL_COMBINATIONS)
        for days in DAY_SETS:
            if days.dimensions in {(name,) for name in NEW_HISTOGRAMS}:
                statement = FILL_HISTOGRAMS.format(name=days.dimensions[0], measures=MEASURES)
                cursor.execute(statement, {"set": days.number, "other": OTHER})
        cursor.execute(SEE_NONE)


class Migration(migrations.Migration):
    dependencies = [("metering", "0004_managed_budget"), ("tenants", "0003_audit_entry_of_type")]

    operations = [
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
                *(
                    (name, models.TextField(db_collation="C"))
                    for name in ("session", "user", "team", "customer", "agent", "feature", "model")
                ),
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
                        condition=~models.Q(is_first_known=True, is_last_known=True),
                        fields=["tenant_id"],
                        name="usage_combination_searched",
                    )
                ],
            },
        ),
        ForceRowSecurity("usage_combination"),
        migrations.RunSQL(
            "ALTER TABLE usage_combination SET (fillfactor = 80)", migrations.RunSQL.noop
        ),
        migrations.RunSQL(LONG_TAILS, "DROP INDEX usage_rollup_long_tail"),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
