"""Batches remember whether their sessions were looked at.

Locks `ingest_batch` for a moment only: a default that is no more than stable is stored once and
rewrites nothing. Batches from before count as looked at, so that no old session raises an alarm.
"""

from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0006_decisions_by_time"),
        ("tenants", "0002_row_security"),
    ]

    operations = [
        migrations.AddField(
            model_name="ingestbatch",
            name="sessions_checked_at",
            field=models.DateTimeField(null=True, db_default=Now()),
        ),
        migrations.AlterField(
            model_name="ingestbatch",
            name="sessions_checked_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddIndex(
            model_name="ingestbatch",
            index=models.Index(
                fields=["tenant", "id"],
                condition=models.Q(sessions_checked_at=None),
                name="ingest_batch_sessions",
            ),
        ),
    ]
