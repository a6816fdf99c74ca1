"""Limits of a tenant's own. Locks: the small table of tenants, for a moment."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0003_invitations")]

    operations = [
        migrations.AddField(
            "tenant", "limits", models.JSONField(blank=True, default=dict, editable=False)
        ),
    ]
