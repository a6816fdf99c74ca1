"""Jobs that are too long for a request, and budgets that still count the past.

Locks: the table is new; the column is added to `budget` without rewriting it.
"""

import django.db.models.deletion
from django.db import migrations, models

from tenants.row_security import ForceRowSecurity


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0016_rows_by_age"),
        ("tenants", "0005_proven_addresses"),
    ]

    operations = [
        migrations.AddField(
            model_name="budget",
            name="is_counting",
            field=models.BooleanField(db_default=False, default=False, editable=False),
        ),
        migrations.CreateModel(
            name="BackgroundJob",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("rerate", "Rerate"),
                            ("price_unpriced", "Price Unpriced"),
                            ("count_budget", "Count Budget"),
                            ("judge_windows", "Judge Windows"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("running", "Running"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                        ],
                        default="waiting",
                        max_length=10,
                    ),
                ),
                ("parameters", models.JSONField(default=dict)),
                ("budget_id", models.BigIntegerField(null=True)),
                ("revision", models.IntegerField(null=True)),
                ("until_id", models.BigIntegerField(null=True)),
                ("after_at", models.DateTimeField(null=True)),
                ("after_id", models.BigIntegerField(default=0)),
                ("done", models.BigIntegerField(default=0)),
                ("total", models.BigIntegerField(default=0)),
                ("result", models.JSONField(null=True)),
                ("failures", models.IntegerField(default=0)),
                ("error", models.TextField(blank=True)),
                ("actor", models.CharField(max_length=300)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("stepped_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="tenants.tenant"
                    ),
                ),
            ],
            options={
                "db_table": "background_job",
                "verbose_name": "job",
                "indexes": [
                    models.Index(
                        condition=models.Q(("state__in", ("waiting", "running"))),
                        fields=["tenant", "kind"],
                        name="background_job_unfinished",
                    )
                ],
            },
        ),
        ForceRowSecurity("background_job"),
    ]
