"""What final statements were made of. None is known of those that are final already: they are rated."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0007_exact_amounts"),
    ]

    operations = [
        migrations.AddField(
            model_name="statement",
            name="inputs",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
    ]
