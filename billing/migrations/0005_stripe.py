"""Stripe: keys, customers there, invoices of statements, events, and metered values."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

from tenants.row_security import ForceRowSecurity


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0004_reconciliation"),
        ("tenants", "0003_audit_entry_of_type"),
    ]

    operations = [
        migrations.CreateModel(
            name="StripeSettings",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to="tenants.tenant",
                    ),
                ),
                ("secrets", models.BinaryField(null=True)),
                ("collects", models.BooleanField(default=False)),
                ("collects_from", models.DateTimeField(blank=True, null=True)),
                (
                    "collection_method",
                    models.CharField(
                        choices=[
                            ("send_invoice", "Stripe mails the invoice"),
                            (
                                "charge_automatically",
                                "Stripe charges the customer's payment method",
                            ),
                            ("manual", "The invoice is left open for you to send"),
                            ("none", "No invoice is made in Stripe"),
                        ],
                        default="send_invoice",
                        max_length=20,
                    ),
                ),
                (
                    "halts_overdue",
                    models.BooleanField(
                        default=False,
                        help_text="Stop the usage of customers who are overdue until they pay.",
                    ),
                ),
                ("events_stored_until", models.BigIntegerField(default=0, editable=False)),
                (
                    "next_sweep_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False),
                ),
                (
                    "problem",
                    models.CharField(blank=True, default="", editable=False, max_length=600),
                ),
                ("paused_until", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "db_table": "stripe_settings",
            },
        ),
        migrations.CreateModel(
            name="StripeAccount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("is_live", models.BooleanField()),
                ("stripe_customer", models.CharField(blank=True, default="", max_length=100)),
                ("asked_at", models.DateTimeField(null=True)),
                (
                    "collection_method",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("send_invoice", "Stripe mails the invoice"),
                            (
                                "charge_automatically",
                                "Stripe charges the customer's payment method",
                            ),
                            ("manual", "The invoice is left open for you to send"),
                            ("none", "No invoice is made in Stripe"),
                        ],
                        default="",
                        max_length=20,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("current", "Current"),
                            ("overdue", "Overdue"),
                            ("disputed", "Disputed"),
                            ("refunded", "Refunded"),
                        ],
                        default="current",
                        max_length=10,
                    ),
                ),
                ("state_since", models.DateTimeField(default=django.utils.timezone.now)),
                ("halts", models.JSONField(default=list)),
                ("judge_at", models.DateTimeField(null=True)),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="stripe_accounts",
                        to="billing.customer",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="tenants.tenant"
                    ),
                ),
            ],
            options={
                "db_table": "stripe_account",
            },
        ),
        migrations.CreateModel(
            name="StripeEvent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("is_live", models.BooleanField()),
                ("event_id", models.CharField(max_length=100)),
                ("type", models.CharField(max_length=100)),
                ("stripe_invoice", models.CharField(blank=True, default="", max_length=100)),
                ("payment_intent", models.CharField(blank=True, default="", max_length=100)),
                ("received_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("processed_at", models.DateTimeField(null=True)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("next_attempt_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("problem", models.CharField(blank=True, default="", max_length=600)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="tenants.tenant"
                    ),
                ),
            ],
            options={
                "db_table": "stripe_event",
            },
        ),
        migrations.CreateModel(
            name="StripeInvoice",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("is_live", models.BooleanField()),
                ("stripe_id", models.CharField(blank=True, default="", max_length=100)),
                ("stripe_customer", models.CharField(blank=True, default="", max_length=100)),
                (
                    "step",
                    models.CharField(
                        choices=[
                            ("create", "Create"),
                            ("lines", "Lines"),
                            ("finalize", "Finalize"),
                            ("collect", "Collect"),
                            ("done", "Done"),
                            ("voided", "Voided"),
                        ],
                        default="create",
                        max_length=10,
                    ),
                ),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("key_number", models.PositiveIntegerField(default=0)),
                ("next_attempt_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("claimed_until", models.DateTimeField(null=True)),
                ("problem", models.CharField(blank=True, default="", max_length=600)),
                ("status", models.CharField(blank=True, default="", max_length=20)),
                ("total", models.BigIntegerField(null=True)),
                ("amount_due", models.BigIntegerField(default=0)),
                ("amount_paid", models.BigIntegerField(default=0)),
                ("amount_refunded", models.BigIntegerField(default=0)),
                ("amount_disputed", models.BigIntegerField(default=0)),
                ("amount_lost", models.BigIntegerField(default=0)),
                ("has_payment_failed", models.BooleanField(default=False)),
                ("due_at", models.DateTimeField(null=True)),
                ("read_at", models.DateTimeField(null=True)),
                ("reads_wanted", models.PositiveIntegerField(default=0)),
                ("reads_done", models.PositiveIntegerField(default=0)),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="invoices",
                        to="billing.stripeaccount",
                    ),
                ),
                (
                    "statement",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="stripe_invoice",
                        to="billing.statement",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="tenants.tenant"
                    ),
                ),
            ],
            options={
                "db_table": "stripe_invoice",
            },
        ),
        migrations.CreateModel(
            name="StripeMeter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("is_live", models.BooleanField()),
                ("charge", models.CharField(max_length=300)),
                ("event_name", models.CharField(max_length=100)),
                ("stripe_id", models.CharField(blank=True, default="", max_length=100)),
                ("next_read_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("late_read_at", models.DateTimeField(null=True)),
                (
                    "plan",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="stripe_meters",
                        to="billing.plan",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="tenants.tenant"
                    ),
                ),
            ],
            options={
                "db_table": "stripe_meter",
            },
        ),
        migrations.CreateModel(
            name="StripeMeterValue",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("hour", models.DateTimeField()),
                ("value", models.BigIntegerField()),
                ("sent_value", models.BigIntegerField(null=True)),
                ("revision", models.PositiveIntegerField(default=0)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("next_attempt_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("claimed_until", models.DateTimeField(null=True)),
                ("problem", models.CharField(blank=True, default="", max_length=600)),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="values",
                        to="billing.stripeaccount",
                    ),
                ),
                (
                    "meter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="values",
                        to="billing.stripemeter",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="tenants.tenant"
                    ),
                ),
            ],
            options={
                "db_table": "stripe_meter_value",
            },
        ),
        migrations.AddIndex(
            model_name="stripeaccount",
            index=models.Index(
                condition=models.Q(("judge_at__isnull", False)),
                fields=["judge_at"],
                name="stripe_account_to_judge",
            ),
        ),
        migrations.AddConstraint(
            model_name="stripeaccount",
            constraint=models.UniqueConstraint(
                fields=("customer", "is_live"), name="stripe_account_once"
            ),
        ),
        migrations.AddIndex(
            model_name="stripeevent",
            index=models.Index(
                condition=models.Q(("processed_at", None)),
                fields=["tenant", "next_attempt_at"],
                name="stripe_event_due",
            ),
        ),
        migrations.AddIndex(
            model_name="stripeevent",
            index=models.Index(fields=["processed_at"], name="stripe_event_processed"),
        ),
        migrations.AddConstraint(
            model_name="stripeevent",
            constraint=models.UniqueConstraint(
                fields=("tenant", "is_live", "event_id"), name="stripe_event_once"
            ),
        ),
        migrations.AddIndex(
            model_name="stripeinvoice",
            index=models.Index(
                condition=models.Q(
                    models.Q(("step__in", ["done", "voided"]), _negated=True),
                    ("reads_wanted__gt", models.F("reads_done")),
                    _connector="OR",
                ),
                fields=["tenant", "next_attempt_at"],
                name="stripe_invoice_due",
            ),
        ),
        migrations.AddConstraint(
            model_name="stripeinvoice",
            constraint=models.UniqueConstraint(
                condition=models.Q(("stripe_id", ""), _negated=True),
                fields=("tenant", "is_live", "stripe_id"),
                name="stripe_invoice_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="stripemeter",
            constraint=models.UniqueConstraint(
                fields=("plan", "is_live", "charge"), name="stripe_meter_once"
            ),
        ),
        migrations.AddIndex(
            model_name="stripemetervalue",
            index=models.Index(
                condition=models.Q(
                    ("sent_value", None),
                    models.Q(("sent_value", models.F("value")), _negated=True),
                    _connector="OR",
                ),
                fields=["tenant", "next_attempt_at"],
                name="stripe_meter_value_due",
            ),
        ),
        migrations.AddConstraint(
            model_name="stripemetervalue",
            constraint=models.UniqueConstraint(
                fields=("meter", "account", "hour"), name="stripe_meter_value_once"
            ),
        ),
        ForceRowSecurity(
            "stripe_settings",
            "stripe_account",
            "stripe_invoice",
            "stripe_event",
            "stripe_meter",
            "stripe_meter_value",
        ),
    ]
