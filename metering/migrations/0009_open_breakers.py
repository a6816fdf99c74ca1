"""Open breakers are found without reading the states of all groups.

Locks writes to `breaker_state` while the index is built: a row for each group that breakers watch.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("metering", "0008_unclaimed_crossings")]

    operations = [
        migrations.AddIndex(
            model_name="breakerstate",
            index=models.Index(
                fields=["tenant"],
                condition=models.Q(opened_at__isnull=False),
                name="breaker_state_open",
            ),
        ),
    ]
