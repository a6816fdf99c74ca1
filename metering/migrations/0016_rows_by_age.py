"""Indexes by which retention finds what is old. Locks: none that writers wait for."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("metering", "0015_seals")]

    operations = [
        AddIndexConcurrently(
            "eventkey", models.Index(fields=["event_at"], name="event_key_by_age")
        ),
        AddIndexConcurrently(
            "callreport", models.Index(fields=["event_at"], name="call_report_by_age")
        ),
        AddIndexConcurrently(
            "budgetwindow",
            models.Index(
                fields=["tenant", "ends_at"],
                condition=models.Q(ends_at__isnull=False),
                name="budget_window_by_end",
            ),
        ),
    ]
