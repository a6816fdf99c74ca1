"""Budgets that another app manages. The column has a constant default: no table is rewritten."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0003_pages"),
    ]

    operations = [
        migrations.AddField(
            model_name="budget",
            name="managed_by",
            field=models.CharField(db_default="", default="", editable=False, max_length=20),
        ),
    ]
