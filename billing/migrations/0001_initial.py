"""Tables of customers, plans, statements, credit, Stripe and reconciliation."""

from decimal import Decimal

import django.contrib.postgres.fields
import django.db.models.expressions
import django.db.models.functions.datetime
import django.utils.timezone
from django.db import migrations, models

import metering.models.sums
from billing.migrations._storage import STORAGE
from common.create_models import CreateModels


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0001_initial"),
        ("tenants", "0001_initial"),
    ]

    operations = [
        CreateModels(
            migrations.CreateModel(
                name="BillingSettings",
                fields=[
                    (
                        "tenant",
                        models.OneToOneField(
                            on_delete=models.deletion.CASCADE,
                            primary_key=True,
                            serialize=False,
                            to="tenants.tenant",
                        ),
                    ),
                    ("legal_name", models.CharField(blank=True, default="", max_length=200)),
                    ("address", models.TextField(blank=True, default="", max_length=1000)),
                    ("email", models.EmailField(blank=True, default="", max_length=254)),
                    ("vat_id", models.CharField(blank=True, default="", max_length=50)),
                    ("statement_prefix", models.CharField(blank=True, default="", max_length=20)),
                    (
                        "credit_note_prefix",
                        models.CharField(blank=True, default="CN-", max_length=20),
                    ),
                    (
                        "finalize_after_days",
                        models.PositiveSmallIntegerField(blank=True, null=True),
                    ),
                ],
                options={
                    "db_table": "billing_settings",
                },
            ),
            migrations.CreateModel(
                name="StripeSettings",
                fields=[
                    (
                        "tenant",
                        models.OneToOneField(
                            on_delete=models.deletion.CASCADE,
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
                name="CreditNote",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("sequence", models.BigIntegerField()),
                    ("number", models.CharField(max_length=40)),
                    ("reason", models.CharField(max_length=1000)),
                    ("net", models.BigIntegerField()),
                    ("taxes", models.JSONField(default=list)),
                    ("total", models.BigIntegerField()),
                    ("unused", models.BigIntegerField()),
                    ("actor", models.CharField(max_length=300)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "statement",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT,
                            related_name="credit_notes",
                            to="billing.statement",
                        ),
                    ),
                ],
                options={
                    "db_table": "credit_note",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "sequence"), name="credit_note_number_once"
                        ),
                        models.CheckConstraint(
                            condition=models.Q(("net__gt", 0)), name="credit_note_of_something"
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("unused__gte", 0), ("unused__lte", models.F("total"))
                            ),
                            name="credit_note_unused",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="Customer",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("key", models.CharField(db_collation="C", max_length=200)),
                    ("name", models.CharField(max_length=200)),
                    ("currency", models.CharField(default="USD", max_length=3)),
                    ("timezone", models.CharField(default="UTC", max_length=64)),
                    ("email", models.EmailField(blank=True, default="", max_length=254)),
                    ("address", models.TextField(blank=True, default="", max_length=1000)),
                    ("country", models.CharField(blank=True, default="", max_length=2)),
                    ("vat_id", models.CharField(blank=True, default="", max_length=50)),
                    ("payment_terms_days", models.PositiveSmallIntegerField(default=30)),
                    ("tax_rates", models.JSONField(blank=True, default=list)),
                    ("stripe_customer", models.CharField(blank=True, default="", max_length=100)),
                    ("link_generation", models.PositiveIntegerField(default=0, editable=False)),
                    ("archived_at", models.DateTimeField(blank=True, editable=False, null=True)),
                    (
                        "next_draft_at",
                        models.DateTimeField(
                            default=django.utils.timezone.now, editable=False, null=True
                        ),
                    ),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "tenant",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="customers",
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "customer",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("next_draft_at__isnull", False)),
                            fields=["next_draft_at"],
                            name="customer_next_draft",
                        )
                    ],
                    "constraints": [
                        models.UniqueConstraint(fields=("tenant", "key"), name="customer_key_once")
                    ],
                },
            ),
            migrations.CreateModel(
                name="CreditGrant",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("amount", models.BigIntegerField()),
                    ("balance", models.BigIntegerField(default=0, editable=False)),
                    (
                        "kind",
                        models.CharField(
                            choices=[("paid", "Paid"), ("promotional", "Promotional")],
                            max_length=11,
                        ),
                    ),
                    ("priority", models.PositiveSmallIntegerField(default=50)),
                    (
                        "state",
                        models.CharField(
                            choices=[
                                ("scheduled", "Scheduled"),
                                ("active", "Active"),
                                ("expired", "Expired"),
                            ],
                            default="scheduled",
                            editable=False,
                            max_length=9,
                        ),
                    ),
                    ("effective_at", models.DateTimeField()),
                    ("expires_at", models.DateTimeField(blank=True, null=True)),
                    ("expired_at", models.DateTimeField(editable=False, null=True)),
                    ("rollover_percent", models.PositiveSmallIntegerField(blank=True, null=True)),
                    ("rollover_max", models.BigIntegerField(blank=True, null=True)),
                    ("rollover_months", models.PositiveSmallIntegerField(blank=True, null=True)),
                    ("reference", models.CharField(blank=True, default="", max_length=200)),
                    ("actor", models.CharField(editable=False, max_length=300)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "rolled_from",
                        models.ForeignKey(
                            null=True, on_delete=models.deletion.PROTECT, to="billing.creditgrant"
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "customer",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT,
                            related_name="credit_grants",
                            to="billing.customer",
                        ),
                    ),
                ],
                options={
                    "db_table": "credit_grant",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("balance__gt", 0)),
                            fields=["customer"],
                            name="credit_grant_with_balance",
                        ),
                        models.Index(
                            condition=models.Q(("state", "expired"), _negated=True),
                            fields=["tenant", "expires_at"],
                            name="credit_grant_expiring",
                        ),
                        models.Index(
                            condition=models.Q(("state", "scheduled")),
                            fields=["tenant", "effective_at"],
                            name="credit_grant_beginning",
                        ),
                    ],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(("amount__gt", 0)), name="credit_grant_of_something"
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("balance__gte", 0), ("balance__lte", models.F("amount"))
                            ),
                            name="credit_grant_balance",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("expires_at", None),
                                ("effective_at__lt", models.F("expires_at")),
                                _connector="OR",
                            ),
                            name="credit_grant_lasts",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                models.Q(("expired_at__isnull", False), ("state", "expired")),
                                models.Q(
                                    models.Q(("state", "expired"), _negated=True),
                                    ("expired_at", None),
                                ),
                                _connector="OR",
                            ),
                            name="credit_grant_expired_at",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                models.Q(
                                    ("rollover_max__isnull", True),
                                    ("rollover_months__isnull", True),
                                    ("rollover_percent", None),
                                ),
                                models.Q(
                                    ("rollover_percent__gte", 1),
                                    ("rollover_percent__lte", 100),
                                    models.Q(
                                        ("rollover_max", None),
                                        ("rollover_max__gt", 0),
                                        _connector="OR",
                                    ),
                                    models.Q(
                                        ("rollover_months", None),
                                        ("rollover_months__gt", 0),
                                        _connector="OR",
                                    ),
                                    ("expires_at__isnull", False),
                                ),
                                _connector="OR",
                            ),
                            name="credit_grant_rollover",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="Coupon",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("name", models.CharField(max_length=200)),
                    (
                        "percent",
                        models.DecimalField(blank=True, decimal_places=4, max_digits=7, null=True),
                    ),
                    ("amount", models.BigIntegerField(blank=True, null=True)),
                    ("starts_at", models.DateTimeField()),
                    ("ends_at", models.DateTimeField(blank=True, null=True)),
                    ("statements_max", models.PositiveSmallIntegerField(blank=True, null=True)),
                    ("actor", models.CharField(editable=False, max_length=300)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "customer",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT,
                            related_name="coupons",
                            to="billing.customer",
                        ),
                    ),
                ],
                options={
                    "db_table": "coupon",
                    "indexes": [
                        models.Index(fields=["customer", "starts_at"], name="coupon_of_customer")
                    ],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                models.Q(
                                    ("amount", None), ("percent__gt", 0), ("percent__lte", 100)
                                ),
                                models.Q(("amount__gt", 0), ("percent", None)),
                                _connector="OR",
                            ),
                            name="coupon_percent_or_amount",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("ends_at", None),
                                ("starts_at__lte", models.F("ends_at")),
                                _connector="OR",
                            ),
                            name="coupon_lasts",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("statements_max", None), ("statements_max__gt", 0), _connector="OR"
                            ),
                            name="coupon_statements_max",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="CustomerLink",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("dimension", models.CharField(max_length=20)),
                    ("value", models.CharField(db_collation="C", max_length=200)),
                    ("starts_at", models.DateTimeField(blank=True, null=True)),
                    ("ends_at", models.DateTimeField(blank=True, null=True)),
                    (
                        "customer",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="links",
                            to="billing.customer",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "customer_link",
                    "indexes": [
                        models.Index(
                            fields=["tenant", "dimension", "value"], name="customer_link_of_value"
                        )
                    ],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                ("starts_at", None),
                                ("ends_at", None),
                                ("starts_at__lt", models.F("ends_at")),
                                _connector="OR",
                            ),
                            name="customer_link_lasts",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Plan",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("name", models.CharField(max_length=200)),
                    ("currency", models.CharField(default="USD", max_length=3)),
                    (
                        "interval",
                        models.CharField(
                            choices=[("month", "Month"), ("quarter", "Quarter"), ("year", "Year")],
                            default="month",
                            max_length=10,
                        ),
                    ),
                    (
                        "anchor",
                        models.CharField(
                            choices=[("calendar", "Calendar"), ("subscription", "Subscription")],
                            default="calendar",
                            max_length=12,
                        ),
                    ),
                    ("timezone", models.CharField(default="UTC", max_length=64)),
                    ("trial_days", models.PositiveSmallIntegerField(default=0)),
                    ("archived_at", models.DateTimeField(blank=True, editable=False, null=True)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "tenant",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="plans",
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "plan",
                    "constraints": [
                        models.UniqueConstraint(fields=("tenant", "name"), name="plan_name_once")
                    ],
                },
            ),
            migrations.CreateModel(
                name="PlanVersion",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("number", models.PositiveIntegerField()),
                    ("starts_at", models.DateTimeField(blank=True, null=True)),
                    ("terms", models.JSONField()),
                    ("actor", models.CharField(max_length=300)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "plan",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="versions",
                            to="billing.plan",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "plan_version",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("plan", "number"), name="plan_version_once"
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("number", 1), ("starts_at__isnull", False), _connector="OR"
                            ),
                            name="plan_version_starts",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="ProviderBillLine",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("provider", models.CharField(max_length=50)),
                    ("account", models.CharField(blank=True, default="", max_length=200)),
                    ("day", models.DateField()),
                    ("model", models.CharField(blank=True, default="", max_length=200)),
                    ("line_item", models.CharField(blank=True, default="", max_length=200)),
                    ("amount_nanos", metering.models.sums.SumField()),
                    ("source", models.CharField(max_length=20)),
                    (
                        "imported_at",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "provider_bill_line",
                    "indexes": [
                        models.Index(fields=["tenant", "day"], name="provider_bill_line_by_day"),
                        models.Index(
                            fields=["tenant", "imported_at"], name="provider_bill_line_newest"
                        ),
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "provider", "account", "day", "model", "line_item"),
                            name="provider_bill_line_once",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Reconciliation",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("first_day", models.DateField()),
                    ("last_day", models.DateField()),
                    ("kinds", models.JSONField()),
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
                    ("threshold_percent", models.DecimalField(decimal_places=2, max_digits=6)),
                    ("threshold_nanos", models.BigIntegerField()),
                    ("kind_place", models.PositiveSmallIntegerField(default=0)),
                    ("after", models.BigIntegerField(default=0)),
                    ("results", models.JSONField(default=dict)),
                    ("actor", models.CharField(max_length=300)),
                    ("failures", models.PositiveSmallIntegerField(default=0)),
                    ("error", models.CharField(blank=True, default="", max_length=300)),
                    (
                        "created_at",
                        models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                    ),
                    ("stepped_at", models.DateTimeField(null=True)),
                    ("finished_at", models.DateTimeField(null=True)),
                    ("judged_at", models.DateTimeField(null=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "reconciliation",
                    "indexes": [
                        models.Index(fields=["tenant", "-id"], name="reconciliation_newest"),
                        models.Index(
                            condition=models.Q(("state__in", ["waiting", "running"])),
                            fields=["tenant"],
                            name="reconciliation_unfinished",
                        ),
                        models.Index(
                            condition=models.Q(("judged_at", None), ("state", "done")),
                            fields=["tenant"],
                            name="reconciliation_unjudged",
                        ),
                    ],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(("first_day__lte", models.F("last_day"))),
                            name="reconciliation_lasts",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="ReconciliationSettings",
                fields=[
                    (
                        "tenant",
                        models.OneToOneField(
                            on_delete=models.deletion.CASCADE,
                            primary_key=True,
                            serialize=False,
                            to="tenants.tenant",
                        ),
                    ),
                    (
                        "threshold_percent",
                        models.DecimalField(decimal_places=2, default=Decimal("1"), max_digits=6),
                    ),
                    ("threshold_nanos", models.BigIntegerField(default=1000000000)),
                    ("is_daily", models.BooleanField(default=True)),
                ],
                options={
                    "db_table": "reconciliation_settings",
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                ("threshold_nanos__gte", 0), ("threshold_percent__gte", 0)
                            ),
                            name="reconciliation_settings_thresholds",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Series",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    (
                        "name",
                        models.CharField(
                            choices=[("statement", "Statement"), ("credit_note", "Credit Note")],
                            max_length=20,
                        ),
                    ),
                    ("last", models.BigIntegerField(default=0)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "billing_series",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "name"), name="billing_series_once"
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Statement",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("period_start", models.DateTimeField()),
                    ("period_end", models.DateTimeField()),
                    ("timezone", models.CharField(max_length=64)),
                    ("currency", models.CharField(max_length=3)),
                    (
                        "state",
                        models.CharField(
                            choices=[("draft", "Draft"), ("final", "Final"), ("void", "Void")],
                            default="draft",
                            max_length=5,
                        ),
                    ),
                    ("sequence", models.BigIntegerField(null=True)),
                    ("number", models.CharField(blank=True, default="", max_length=40)),
                    ("finalized_at", models.DateTimeField(null=True)),
                    ("finalized_by", models.CharField(blank=True, default="", max_length=300)),
                    ("voided_at", models.DateTimeField(null=True)),
                    ("held_until", models.DateTimeField(null=True)),
                    ("due_on", models.DateField(null=True)),
                    ("parties", models.JSONField(default=dict)),
                    ("unpriced", models.BigIntegerField(default=0)),
                    ("inputs", models.CharField(blank=True, default="", max_length=64)),
                    ("subtotal", models.BigIntegerField(default=0)),
                    ("coupon", models.JSONField(null=True)),
                    ("coupon_amount", models.BigIntegerField(default=0)),
                    ("coupon_adjustments", models.JSONField(default=dict)),
                    ("taxable", models.BigIntegerField(default=0)),
                    ("taxes", models.JSONField(default=list)),
                    ("total", models.BigIntegerField(default=0)),
                    ("credit_notes_applied", models.BigIntegerField(default=0)),
                    ("credit_applied", models.BigIntegerField(default=0)),
                    ("amount_due", models.BigIntegerField(default=0)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "customer",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT,
                            related_name="statements",
                            to="billing.customer",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="statements",
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "statement",
                    "indexes": [
                        models.Index(
                            fields=["tenant", "-period_start", "-id"], name="statement_newest"
                        ),
                        models.Index(
                            fields=["customer", "period_end"], name="statement_of_customer"
                        ),
                        models.Index(
                            condition=models.Q(("state", "draft")),
                            fields=["tenant", "period_end", "id"],
                            name="statement_due",
                        ),
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("state", "void"), _negated=True),
                            fields=("customer", "period_start", "period_end"),
                            name="statement_once",
                        ),
                        models.UniqueConstraint(
                            fields=("tenant", "sequence"), name="statement_number_once"
                        ),
                        models.CheckConstraint(
                            condition=models.Q(("period_start__lt", models.F("period_end"))),
                            name="statement_lasts",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                models.Q(("sequence", None), ("state", "draft")),
                                models.Q(
                                    models.Q(("state", "draft"), _negated=True),
                                    ("sequence__isnull", False),
                                ),
                                _connector="OR",
                            ),
                            name="statement_numbered_once_final",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                (
                                    "amount_due",
                                    django.db.models.expressions.CombinedExpression(
                                        django.db.models.expressions.CombinedExpression(
                                            models.F("total"), "-", models.F("credit_notes_applied")
                                        ),
                                        "-",
                                        models.F("credit_applied"),
                                    ),
                                )
                            ),
                            name="statement_adds_up",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="Drift",
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
                                ("providers", "Providers"),
                                ("statements", "Statements"),
                                ("stripe", "Stripe"),
                            ],
                            max_length=10,
                        ),
                    ),
                    ("day", models.DateField(null=True)),
                    ("provider", models.CharField(blank=True, default="", max_length=50)),
                    ("model", models.CharField(blank=True, default="", max_length=200)),
                    ("line_item", models.CharField(blank=True, default="", max_length=200)),
                    ("line", models.CharField(blank=True, default="", max_length=300)),
                    ("unit", models.CharField(max_length=20)),
                    ("expected", models.DecimalField(decimal_places=9, max_digits=50)),
                    ("found", models.DecimalField(decimal_places=9, max_digits=50)),
                    ("difference", models.DecimalField(decimal_places=9, max_digits=50)),
                    ("note", models.CharField(blank=True, default="", max_length=300)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "reconciliation",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="drifts",
                            to="billing.reconciliation",
                        ),
                    ),
                    (
                        "statement",
                        models.ForeignKey(
                            null=True, on_delete=models.deletion.CASCADE, to="billing.statement"
                        ),
                    ),
                ],
                options={
                    "db_table": "reconciliation_drift",
                    "indexes": [
                        models.Index(
                            fields=["reconciliation", "id"], name="reconciliation_drift_in_order"
                        )
                    ],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                (
                                    "difference",
                                    django.db.models.expressions.CombinedExpression(
                                        models.F("found"), "-", models.F("expected")
                                    ),
                                ),
                                models.Q(("difference", 0), _negated=True),
                            ),
                            name="reconciliation_drift_differs",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="CreditNoteApplication",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("amount", models.BigIntegerField()),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "credit_note",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT,
                            related_name="applications",
                            to="billing.creditnote",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "statement",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT,
                            related_name="credit_note_applications",
                            to="billing.statement",
                        ),
                    ),
                ],
                options={
                    "db_table": "credit_note_application",
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(("amount", 0), _negated=True),
                            name="credit_note_application_amount",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="CouponUse",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    (
                        "coupon",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT,
                            related_name="uses",
                            to="billing.coupon",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "statement",
                        models.OneToOneField(
                            on_delete=models.deletion.PROTECT,
                            related_name="coupon_use",
                            to="billing.statement",
                        ),
                    ),
                ],
                options={
                    "db_table": "coupon_use",
                },
            ),
            migrations.CreateModel(
                name="StatementFile",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("kind", models.CharField(max_length=4)),
                    ("content", models.BinaryField()),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "statement",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="files",
                            to="billing.statement",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "statement_file",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("statement", "kind"), name="statement_file_once"
                        )
                    ],
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
                            on_delete=models.deletion.CASCADE,
                            related_name="stripe_accounts",
                            to="billing.customer",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "stripe_account",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("judge_at__isnull", False)),
                            fields=["judge_at"],
                            name="stripe_account_to_judge",
                        )
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("customer", "is_live"), name="stripe_account_once"
                        )
                    ],
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
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "stripe_event",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("processed_at", None)),
                            fields=["tenant", "next_attempt_at"],
                            name="stripe_event_due",
                        ),
                        models.Index(fields=["processed_at"], name="stripe_event_processed"),
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "is_live", "event_id"), name="stripe_event_once"
                        )
                    ],
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
                            on_delete=models.deletion.PROTECT,
                            related_name="invoices",
                            to="billing.stripeaccount",
                        ),
                    ),
                    (
                        "statement",
                        models.OneToOneField(
                            on_delete=models.deletion.PROTECT,
                            related_name="stripe_invoice",
                            to="billing.statement",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "stripe_invoice",
                    "indexes": [
                        models.Index(
                            condition=models.Q(
                                models.Q(("step__in", ["done", "voided"]), _negated=True),
                                ("reads_wanted__gt", models.F("reads_done")),
                                _connector="OR",
                            ),
                            fields=["tenant", "next_attempt_at"],
                            name="stripe_invoice_due",
                        )
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("stripe_id", ""), _negated=True),
                            fields=("tenant", "is_live", "stripe_id"),
                            name="stripe_invoice_once",
                        )
                    ],
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
                            on_delete=models.deletion.PROTECT,
                            related_name="stripe_meters",
                            to="billing.plan",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "stripe_meter",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("plan", "is_live", "charge"), name="stripe_meter_once"
                        )
                    ],
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
                            on_delete=models.deletion.CASCADE,
                            related_name="values",
                            to="billing.stripeaccount",
                        ),
                    ),
                    (
                        "meter",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="values",
                            to="billing.stripemeter",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "stripe_meter_value",
                    "indexes": [
                        models.Index(
                            condition=models.Q(
                                ("sent_value", None),
                                models.Q(("sent_value", models.F("value")), _negated=True),
                                _connector="OR",
                            ),
                            fields=["tenant", "next_attempt_at"],
                            name="stripe_meter_value_due",
                        )
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("meter", "account", "hour"), name="stripe_meter_value_once"
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Subscription",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("starts_at", models.DateTimeField()),
                    ("ends_at", models.DateTimeField(blank=True, null=True)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "customer",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="subscriptions",
                            to="billing.customer",
                        ),
                    ),
                    (
                        "plan",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT,
                            related_name="subscriptions",
                            to="billing.plan",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "subscription",
                    "indexes": [
                        models.Index(
                            fields=["customer", "starts_at"], name="subscription_of_customer"
                        )
                    ],
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                ("ends_at", None),
                                ("starts_at__lte", models.F("ends_at")),
                                _connector="OR",
                            ),
                            name="subscription_lasts",
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="StatementLine",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("position", models.PositiveIntegerField()),
                    (
                        "kind",
                        models.CharField(
                            choices=[
                                ("flat", "Flat"),
                                ("usage", "Usage"),
                                ("minimum", "Minimum"),
                                ("cap", "Cap"),
                                ("adjustment", "Adjustment"),
                            ],
                            max_length=10,
                        ),
                    ),
                    ("name", models.CharField(max_length=300)),
                    ("key", models.CharField(max_length=500)),
                    ("starts_at", models.DateTimeField()),
                    ("ends_at", models.DateTimeField()),
                    ("quantity", models.CharField(max_length=100)),
                    ("exact_amount", models.TextField()),
                    ("amount", models.BigIntegerField()),
                    ("detail", models.JSONField(default=dict)),
                    (
                        "adjusts",
                        models.ForeignKey(
                            db_index=False,
                            null=True,
                            on_delete=models.deletion.PROTECT,
                            related_name="adjusted_by",
                            to="billing.statement",
                        ),
                    ),
                    (
                        "statement",
                        models.ForeignKey(
                            db_index=False,
                            on_delete=models.deletion.CASCADE,
                            related_name="lines",
                            to="billing.statement",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(
                            db_constraint=False,
                            db_index=False,
                            on_delete=models.deletion.DO_NOTHING,
                            to="tenants.tenant",
                        ),
                    ),
                    (
                        "subscription",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT, to="billing.subscription"
                        ),
                    ),
                ],
                options={
                    "db_table": "statement_line",
                    "indexes": [
                        models.Index(
                            condition=models.Q(("adjusts__isnull", False)),
                            fields=["adjusts"],
                            name="statement_line_of_adjusted",
                        ),
                    ],
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("statement", "position"), name="statement_line_once"
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                models.Q(("adjusts__isnull", False), ("kind", "adjustment")),
                                models.Q(
                                    models.Q(("kind", "adjustment"), _negated=True),
                                    ("adjusts", None),
                                ),
                                _connector="OR",
                            ),
                            name="statement_line_adjusts",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="Wallet",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("percent", models.DecimalField(decimal_places=10, max_digits=20)),
                    ("opened_at", models.DateTimeField()),
                    ("ended_at", models.DateTimeField(null=True)),
                    ("actor", models.CharField(max_length=300)),
                    (
                        "budget",
                        models.OneToOneField(
                            on_delete=models.deletion.PROTECT,
                            related_name="wallet",
                            to="metering.budget",
                        ),
                    ),
                    (
                        "customer",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT,
                            related_name="wallets",
                            to="billing.customer",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "wallet",
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("ended_at", None)),
                            fields=("customer",),
                            name="wallet_once_a_customer",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(("percent__gte", 0)), name="wallet_percent"
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="CreditEntry",
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
                                ("granted", "Granted"),
                                ("applied", "Applied"),
                                ("returned", "Returned"),
                                ("expired", "Expired"),
                                ("voided", "Voided"),
                                ("rolled_over", "Rolled Over"),
                            ],
                            max_length=11,
                        ),
                    ),
                    ("amount", models.BigIntegerField()),
                    ("note", models.CharField(blank=True, default="", max_length=1000)),
                    ("actor", models.CharField(max_length=300)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "grant",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT,
                            related_name="entries",
                            to="billing.creditgrant",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "statement",
                        models.ForeignKey(
                            null=True,
                            on_delete=models.deletion.PROTECT,
                            related_name="credit_entries",
                            to="billing.statement",
                        ),
                    ),
                    (
                        "wallet",
                        models.ForeignKey(
                            null=True,
                            on_delete=models.deletion.PROTECT,
                            related_name="entries",
                            to="billing.wallet",
                        ),
                    ),
                ],
                options={
                    "db_table": "credit_entry",
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(
                                models.Q(("amount__gt", 0), ("kind__in", ["granted", "returned"])),
                                models.Q(
                                    ("amount__lt", 0),
                                    ("kind__in", ["applied", "expired", "voided"]),
                                ),
                                models.Q(
                                    ("kind", "rolled_over"), models.Q(("amount", 0), _negated=True)
                                ),
                                _connector="OR",
                            ),
                            name="credit_entry_sign",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                models.Q(
                                    ("kind__in", ["applied", "returned"]),
                                    ("statement__isnull", False),
                                ),
                                models.Q(
                                    models.Q(("kind__in", ["applied", "returned"]), _negated=True),
                                    ("statement", None),
                                    ("wallet", None),
                                ),
                                _connector="OR",
                            ),
                            name="credit_entry_of_statement",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="CreditCover",
                fields=[
                    (
                        "grant",
                        models.OneToOneField(
                            on_delete=models.deletion.CASCADE,
                            primary_key=True,
                            related_name="cover",
                            serialize=False,
                            to="billing.creditgrant",
                        ),
                    ),
                    ("kept", models.BigIntegerField()),
                    ("paid_before", models.BigIntegerField()),
                    ("spent_nanos", models.BigIntegerField()),
                    (
                        "in_flight",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.UUIDField(), size=None
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                    (
                        "wallet",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="billing.wallet"),
                    ),
                ],
                options={
                    "db_table": "credit_cover",
                    "constraints": [
                        models.CheckConstraint(
                            condition=models.Q(("kept__gte", 0)), name="credit_cover_kept"
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="CreditNoteLine",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("position", models.PositiveIntegerField()),
                    ("amount", models.BigIntegerField()),
                    (
                        "credit_note",
                        models.ForeignKey(
                            on_delete=models.deletion.PROTECT,
                            related_name="lines",
                            to="billing.creditnote",
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "credit_note_line",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("credit_note", "position"), name="credit_note_line_once"
                        ),
                        models.CheckConstraint(
                            condition=models.Q(("amount__gt", 0)), name="credit_note_line_amount"
                        ),
                    ],
                },
            ),
        ),
        *STORAGE,
    ]
