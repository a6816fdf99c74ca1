"""Indexes for what was told lately on a channel, and for the tests that were asked for.

Building them keeps writers of `delivery` waiting, for a second or so per million rows.
"""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("alerts", "0002_row_security")]

    operations = [
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(fields=["channel", "created_at"], name="delivery_of_channel"),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("event", "test")),
                fields=["tenant", "created_at"],
                name="delivery_test",
            ),
        ),
        # The first of these does what the index of the key alone did.
        migrations.AlterField(
            model_name="delivery",
            name="channel",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                to="alerts.channel",
            ),
        ),
    ]
