"""When a period begins that needs a draft, which drafts are due, and when one is tried again.

The tables are small: adding columns with a constant and indexes takes less than a second.
"""

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0005_stripe"),
        ("tenants", "0003_audit_entry_of_type"),
    ]

    operations = [
        migrations.AddField(
            model_name="customer",
            name="next_draft_at",
            field=models.DateTimeField(
                default=django.utils.timezone.now, editable=False, null=True
            ),
        ),
        migrations.AddField(
            model_name="statement",
            name="held_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddIndex(
            model_name="customer",
            index=models.Index(
                condition=models.Q(("next_draft_at__isnull", False)),
                fields=["next_draft_at"],
                name="customer_next_draft",
            ),
        ),
        migrations.AddIndex(
            model_name="statement",
            index=models.Index(
                condition=models.Q(("state", "draft")),
                fields=["tenant", "period_end", "id"],
                name="statement_due",
            ),
        ),
    ]
