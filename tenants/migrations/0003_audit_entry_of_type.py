from django.db import migrations, models


class Migration(migrations.Migration):
    """Charts look up the changes of one kind in a stretch of time. The table is small; building the
    index blocks writers of configuration for a moment.
    """

    dependencies = [("tenants", "0002_row_security")]

    operations = [
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(fields=["tenant", "object_type", "-at"], name="audit_entry_of_type"),
        ),
    ]
