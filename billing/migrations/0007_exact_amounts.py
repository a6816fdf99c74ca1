"""Exact amounts of any length: a minimum of a plan whose charges are for odd numbers of units is a
fraction of hundreds of digits.

Only the catalogue changes: PostgreSQL keeps both types alike.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0006_month_end"),
    ]

    operations = [
        migrations.AlterField(
            model_name="statementline",
            name="exact_amount",
            field=models.TextField(),
        ),
    ]
