"""What pages read: units, annotations, and indexes for lists of few calls among many."""

from django.db import migrations, models
from django.db.models import Q

from tenants.row_security import ForceRowSecurity

DECISION_OF_SESSION = """
    CREATE INDEX decision_of_session ON decision (tenant_id, (dimensions -> 'session'))
        WHERE dimensions -> 'session' IS NOT NULL;
"""
# Lists of sessions read calls by time; in many tenants most calls belong to no session.
SESSION_CALLS = """
    CREATE INDEX usage_event_session_time ON usage_event (tenant_id, time, id) WHERE session <> '';
"""
# What savings are made of: few calls of many. Status 2 is "error". Later partitions get these, too.
SAVINGS_INDEXES = """
    CREATE INDEX usage_event_saved ON usage_event (tenant_id, time) WHERE saved_nanos IS NOT NULL;
    CREATE INDEX usage_event_failed ON usage_event (tenant_id, time) WHERE status = 2;
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0002_storage"), ("tenants", "0003_audit_entry_of_type")]

    operations = [
        migrations.RunSQL(DECISION_OF_SESSION, "DROP INDEX decision_of_session"),
        migrations.RunSQL(SESSION_CALLS, "DROP INDEX usage_event_session_time"),
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
                        fields=["tenant", "name", "day"], name="unit_count_once_a_day"
                    ),
                    models.CheckConstraint(
                        condition=Q(count__gte=0), name="unit_count_not_negative"
                    ),
                ],
            },
        ),
        ForceRowSecurity("annotation", "unit_count"),
        migrations.RunSQL(SAVINGS_INDEXES, "DROP INDEX usage_event_saved, usage_event_failed"),
    ]
