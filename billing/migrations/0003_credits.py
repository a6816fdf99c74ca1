"""Prepaid credit, wallets, coupons and credit notes, with their row security."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

from tenants.row_security import ForceRowSecurity

# metering's function refuses any change. Of a credit note only what is unused changes.
NEVER_CHANGES = """
    CREATE TRIGGER credit_entry_append_only BEFORE UPDATE OR DELETE ON credit_entry
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER credit_note_line_append_only BEFORE UPDATE OR DELETE ON credit_note_line
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER credit_note_application_append_only
        BEFORE UPDATE OR DELETE ON credit_note_application
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE FUNCTION refuse_credit_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND current_setting('spendgate.retention', true) = 'on' THEN
            RETURN OLD;
        END IF;
        IF TG_OP = 'DELETE' OR to_jsonb(OLD) - 'unused' <> to_jsonb(NEW) - 'unused' THEN
            RAISE EXCEPTION 'a credit note never changes';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER credit_note_final BEFORE UPDATE OR DELETE ON credit_note
        FOR EACH ROW EXECUTE FUNCTION refuse_credit_note_change();
"""
MAY_CHANGE = """
    DROP TRIGGER credit_note_final ON credit_note;
    DROP FUNCTION refuse_credit_note_change();
    DROP TRIGGER credit_note_application_append_only ON credit_note_application;
    DROP TRIGGER credit_note_line_append_only ON credit_note_line;
    DROP TRIGGER credit_entry_append_only ON credit_entry;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0002_storage"),
        ("metering", "0004_managed_budget"),
        ("tenants", "0003_audit_entry_of_type"),
    ]

    operations = [
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
                        choices=[("paid", "Paid"), ("promotional", "Promotional")], max_length=11
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
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="credit_grants",
                        to="billing.customer",
                    ),
                ),
                (
                    "rolled_from",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="billing.creditgrant",
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
                "db_table": "credit_grant",
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
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="coupons",
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
                "db_table": "coupon",
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
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="uses",
                        to="billing.coupon",
                    ),
                ),
                (
                    "statement",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="coupon_use",
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
                "db_table": "coupon_use",
            },
        ),
        migrations.CreateModel(
            name="CreditCover",
            fields=[
                (
                    "grant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
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
            ],
            options={
                "db_table": "credit_cover",
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
                    "statement",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="credit_notes",
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
                "db_table": "credit_note",
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
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="applications",
                        to="billing.creditnote",
                    ),
                ),
                (
                    "statement",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="credit_note_applications",
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
                "db_table": "credit_note_application",
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
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="lines",
                        to="billing.creditnote",
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
                "db_table": "credit_note_line",
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
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="wallet",
                        to="metering.budget",
                    ),
                ),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="wallets",
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
                "db_table": "wallet",
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
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="entries",
                        to="billing.creditgrant",
                    ),
                ),
                (
                    "statement",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="credit_entries",
                        to="billing.statement",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="tenants.tenant"
                    ),
                ),
                (
                    "wallet",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="entries",
                        to="billing.wallet",
                    ),
                ),
            ],
            options={
                "db_table": "credit_entry",
            },
        ),
        migrations.AddIndex(
            model_name="coupon",
            index=models.Index(fields=["customer", "starts_at"], name="coupon_of_customer"),
        ),
        migrations.AddConstraint(
            model_name="coupon",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("amount", None), ("percent__gt", 0), ("percent__lte", 100)),
                    models.Q(("amount__gt", 0), ("percent", None)),
                    _connector="OR",
                ),
                name="coupon_percent_or_amount",
            ),
        ),
        migrations.AddConstraint(
            model_name="coupon",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("ends_at", None), ("starts_at__lte", models.F("ends_at")), _connector="OR"
                ),
                name="coupon_lasts",
            ),
        ),
        migrations.AddConstraint(
            model_name="coupon",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("statements_max", None), ("statements_max__gt", 0), _connector="OR"
                ),
                name="coupon_statements_max",
            ),
        ),
        migrations.AddField(
            model_name="creditcover",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, to="tenants.tenant"
            ),
        ),
        migrations.AddField(
            model_name="creditcover",
            name="wallet",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, to="billing.wallet"
            ),
        ),
        migrations.AddIndex(
            model_name="creditgrant",
            index=models.Index(
                condition=models.Q(("balance__gt", 0)),
                fields=["customer"],
                name="credit_grant_with_balance",
            ),
        ),
        migrations.AddIndex(
            model_name="creditgrant",
            index=models.Index(
                condition=models.Q(("state", "expired"), _negated=True),
                fields=["tenant", "expires_at"],
                name="credit_grant_expiring",
            ),
        ),
        migrations.AddIndex(
            model_name="creditgrant",
            index=models.Index(
                condition=models.Q(("state", "scheduled")),
                fields=["tenant", "effective_at"],
                name="credit_grant_beginning",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount__gt", 0)), name="credit_grant_of_something"
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(("balance__gte", 0), ("balance__lte", models.F("amount"))),
                name="credit_grant_balance",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("expires_at", None),
                    ("effective_at__lt", models.F("expires_at")),
                    _connector="OR",
                ),
                name="credit_grant_lasts",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("expired_at__isnull", False), ("state", "expired")),
                    models.Q(models.Q(("state", "expired"), _negated=True), ("expired_at", None)),
                    _connector="OR",
                ),
                name="credit_grant_expired_at",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("rollover_max__isnull", True),
                        ("rollover_months__isnull", True),
                        ("rollover_percent", None),
                    ),
                    models.Q(
                        ("rollover_percent__gte", 1),
                        ("rollover_percent__lte", 100),
                        models.Q(("rollover_max", None), ("rollover_max__gt", 0), _connector="OR"),
                        models.Q(
                            ("rollover_months", None), ("rollover_months__gt", 0), _connector="OR"
                        ),
                        ("expires_at__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="credit_grant_rollover",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnote",
            constraint=models.UniqueConstraint(
                fields=("tenant", "sequence"), name="credit_note_number_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnote",
            constraint=models.CheckConstraint(
                condition=models.Q(("net__gt", 0)), name="credit_note_of_something"
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnote",
            constraint=models.CheckConstraint(
                condition=models.Q(("unused__gte", 0), ("unused__lte", models.F("total"))),
                name="credit_note_unused",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnoteapplication",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount", 0), _negated=True),
                name="credit_note_application_amount",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnoteline",
            constraint=models.UniqueConstraint(
                fields=("credit_note", "position"), name="credit_note_line_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="creditnoteline",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount__gt", 0)), name="credit_note_line_amount"
            ),
        ),
        migrations.AddConstraint(
            model_name="wallet",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_at", None)),
                fields=("customer",),
                name="wallet_once_a_customer",
            ),
        ),
        migrations.AddConstraint(
            model_name="wallet",
            constraint=models.CheckConstraint(
                condition=models.Q(("percent__gte", 0)), name="wallet_percent"
            ),
        ),
        migrations.AddConstraint(
            model_name="creditentry",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("amount__gt", 0), ("kind__in", ["granted", "returned"])),
                    models.Q(("amount__lt", 0), ("kind__in", ["applied", "expired", "voided"])),
                    models.Q(("kind", "rolled_over"), models.Q(("amount", 0), _negated=True)),
                    _connector="OR",
                ),
                name="credit_entry_sign",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditentry",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("kind__in", ["applied", "returned"]), ("statement__isnull", False)),
                    models.Q(
                        models.Q(("kind__in", ["applied", "returned"]), _negated=True),
                        ("statement", None),
                        ("wallet", None),
                    ),
                    _connector="OR",
                ),
                name="credit_entry_of_statement",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditcover",
            constraint=models.CheckConstraint(
                condition=models.Q(("kept__gte", 0)), name="credit_cover_kept"
            ),
        ),
        ForceRowSecurity(
            "coupon",
            "coupon_use",
            "credit_cover",
            "credit_entry",
            "credit_grant",
            "credit_note",
            "credit_note_application",
            "credit_note_line",
            "wallet",
        ),
        migrations.RunSQL(NEVER_CHANGES, MAY_CHANGE),
    ]
