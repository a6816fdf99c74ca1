"""Rolling windows that have something to let go are found by an index, and so is what they let go;
of a budget's windows those at a level and the newest.

Locks writes to `budget_window` and `ledger_entry` while their indexes are built, a second or so per
million rows. All rolling windows are looked at once more after it: what they count may be as old as
what they counted from.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0013_sums_of_any_size"),
        ("tenants", "0005_proven_addresses"),
    ]

    operations = [
        migrations.AddField(
            model_name="budgetwindow",
            name="oldest_grain_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.RunSQL(
            "SET LOCAL spendgate.platform = 'the oldest grains of rolling windows';"
            " UPDATE budget_window SET oldest_grain_at = counted_from"
            " WHERE counted_from IS NOT NULL;"
            " SET LOCAL spendgate.platform = ''",
            migrations.RunSQL.noop,
        ),
        migrations.AddIndex(
            model_name="budgetwindow",
            index=models.Index(
                condition=models.Q(("oldest_grain_at__isnull", False)),
                fields=["tenant", "budget_id", "oldest_grain_at"],
                name="budget_window_letting_go",
            ),
        ),
        migrations.AddIndex(
            model_name="ledgerentry",
            index=models.Index(
                fields=["tenant", "window_id", "grain_at"], name="ledger_entry_of_grain"
            ),
        ),
        migrations.RemoveIndex(
            model_name="budgetwindow",
            name="budget_window_at_level",
        ),
        migrations.AddIndex(
            model_name="budgetwindow",
            index=models.Index(
                condition=models.Q(("level_percent__gt", 0)),
                fields=["tenant", "budget_id", "id"],
                name="budget_window_at_level",
            ),
        ),
        migrations.AddIndex(
            model_name="budgetwindow",
            index=models.Index(fields=["tenant", "budget_id", "id"], name="budget_window_newest"),
        ),
        migrations.RemoveIndex(
            model_name="ledgerentry",
            name="ledger_entry_of_window",
        ),
    ]
