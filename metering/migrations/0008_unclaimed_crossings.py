"""Crossings that nobody was told of yet are found without reading the others.

Locks writes to `crossing` while the index is built; the table has a row for each level a window
reached. Crossings from before count as told, so that nobody is woken by what is long over.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("metering", "0007_batches_whose_sessions_wait")]

    operations = [
        migrations.RunSQL(
            "SET LOCAL spendgate.platform = 'claim old crossings';"
            " UPDATE crossing SET claimed_at = now() WHERE claimed_at IS NULL;"
            " SET LOCAL spendgate.platform = ''",
            migrations.RunSQL.noop,
        ),
        migrations.AddIndex(
            model_name="crossing",
            index=models.Index(
                fields=["tenant", "id"],
                condition=models.Q(claimed_at__isnull=True),
                name="crossing_unclaimed",
            ),
        ),
    ]
