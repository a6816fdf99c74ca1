"""Levels of windows fall as well, and what they caused ends with them.

Locks writes to `budget_window` while its index of windows at a level is built, a second or so per
million rows; the other tables are small. The columns are added without rewriting a table.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0011_source_counts"),
        ("tenants", "0002_row_security"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="halt",
            name="lockout_once_a_window_and_level",
        ),
        migrations.AddField(
            model_name="budgetraise",
            name="judged_at",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="budgetwindow",
            name="fell_by",
            field=models.CharField(
                choices=[
                    ("limit", "Limit"),
                    ("levels", "Levels"),
                    ("increase", "Increase"),
                    ("spend", "Spend"),
                    ("aged", "Aged"),
                    ("carried", "Carried"),
                ],
                db_default="",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="crossing",
            name="failures",
            field=models.IntegerField(db_default=0),
        ),
        migrations.AddField(
            model_name="crossing",
            name="retry_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="halt",
            name="ends_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddIndex(
            model_name="budgetraise",
            index=models.Index(
                condition=models.Q(("judged_at__isnull", True), ("status", "approved")),
                fields=["ends_at"],
                name="budget_raise_to_be_judged",
            ),
        ),
        migrations.AddIndex(
            model_name="budgetwindow",
            index=models.Index(
                condition=models.Q(("level_percent__gt", 0)),
                fields=["tenant", "budget_id"],
                name="budget_window_at_level",
            ),
        ),
        migrations.AddIndex(
            model_name="halt",
            index=models.Index(
                condition=models.Q(("ends_at__isnull", False), ("lifted_at__isnull", True)),
                fields=["ends_at"],
                name="halt_ending",
            ),
        ),
        migrations.AddConstraint(
            model_name="halt",
            constraint=models.UniqueConstraint(
                condition=models.Q(("lifted_by", "a budget's level"), _negated=True),
                fields=("tenant", "window_id", "level_percent", "episode"),
                name="lockout_once_a_window_and_level",
            ),
        ),
    ]
