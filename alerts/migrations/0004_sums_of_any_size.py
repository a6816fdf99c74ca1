"""What anomalies cost beyond the expected becomes numeric, as sums of cost are.

Locks: two small tables are rewritten.
"""

from django.db import migrations

from metering.models.sums import SumField


class Migration(migrations.Migration):
    dependencies = [("alerts", "0003_delivery_lookups")]

    operations = [
        migrations.AlterField("anomaly", "excess_nanos", SumField(default=0)),
        migrations.AlterField("incident", "excess_nanos", SumField(null=True)),
    ]
