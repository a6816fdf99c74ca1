import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    """Former names of teams. The table is small."""

    dependencies = [("tenants", "0003_audit_entry_of_type")]

    operations = [
        migrations.AddField(
            model_name="team",
            name="former_names",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=200),
                default=list,
                editable=False,
                size=None,
            ),
        ),
    ]
