"""Saved views, pinned ones, scheduled reports and what was sent of them."""

from django.conf import settings
from django.db import migrations, models

from common.create_models import CreateModels
from tenants.row_security import ForceRowSecurity


class Migration(migrations.Migration):
    dependencies = [
        ("alerts", "0001_initial"),
        ("tenants", "0001_initial"),
    ]

    operations = [
        CreateModels(
            migrations.CreateModel(
                name="PinnedView",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "user",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE, to=settings.AUTH_USER_MODEL
                        ),
                    ),
                    (
                        "view",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE, to="dashboard.savedview"
                        ),
                    ),
                ],
                options={
                    "db_table": "pinned_view",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "user"), name="pinned_view_once_a_person"
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="ReportSchedule",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    (
                        "cadence",
                        models.CharField(
                            choices=[
                                ("daily", "Daily"),
                                ("weekly", "Weekly"),
                                ("monthly", "Monthly"),
                            ],
                            max_length=7,
                        ),
                    ),
                    ("hour", models.SmallIntegerField()),
                    ("is_limited", models.BooleanField()),
                    ("next_due_at", models.DateTimeField()),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "channel",
                        models.ForeignKey(
                            null=True, on_delete=models.deletion.PROTECT, to="alerts.channel"
                        ),
                    ),
                    (
                        "owner",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE, to=settings.AUTH_USER_MODEL
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "view",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE, to="dashboard.savedview"
                        ),
                    ),
                ],
                options={
                    "db_table": "report_schedule",
                    "indexes": [models.Index(fields=["next_due_at"], name="report_schedule_due")],
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "view", "owner", "cadence", "channel"),
                            name="report_schedule_once",
                            nulls_distinct=False,
                        ),
                        models.CheckConstraint(
                            condition=models.Q(("cadence__in", ["daily", "weekly", "monthly"])),
                            name="report_schedule_known_cadence",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(("hour__gte", 0), ("hour__lte", 23)),
                            name="report_schedule_hour",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="SavedView",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("name", models.CharField(max_length=100)),
                    ("query", models.CharField(blank=True, max_length=4000)),
                    (
                        "readers",
                        models.CharField(
                            choices=[
                                ("owner", "Only me"),
                                ("team", "A team"),
                                ("tenant", "Everyone"),
                            ],
                            default="owner",
                            max_length=6,
                        ),
                    ),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "owner",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE, to=settings.AUTH_USER_MODEL
                        ),
                    ),
                    (
                        "team",
                        models.ForeignKey(
                            null=True, on_delete=models.deletion.SET_NULL, to="tenants.team"
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "saved_view",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "owner", "name"), name="saved_view_name_once_an_owner"
                        ),
                        models.CheckConstraint(
                            condition=models.Q(("readers__in", ["owner", "team", "tenant"])),
                            name="saved_view_known_readers",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("team", None), ("readers", "team"), _connector="OR"
                            ),
                            name="saved_view_team_if_for_one",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="SentReport",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("period_start", models.DateField()),
                    ("is_test", models.BooleanField(default=False)),
                    ("refusal", models.CharField(blank=True, max_length=300)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "delivery",
                        models.ForeignKey(
                            null=True, on_delete=models.deletion.SET_NULL, to="alerts.delivery"
                        ),
                    ),
                    (
                        "schedule",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="sent",
                            to="dashboard.reportschedule",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "sent_report",
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("is_test", False)),
                            fields=("schedule", "period_start"),
                            name="sent_report_once_a_period",
                        )
                    ],
                },
            ),
        ),
        ForceRowSecurity("saved_view", "pinned_view", "report_schedule", "sent_report"),
    ]
