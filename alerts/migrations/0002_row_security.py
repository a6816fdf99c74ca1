"""Row-level security on every table of alerts."""

from django.db import migrations

from tenants.row_security import ForceRowSecurity


class Migration(migrations.Migration):
    dependencies = [("alerts", "0001_initial")]

    operations = [
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
