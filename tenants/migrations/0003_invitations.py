"""Invitations, links to choose a password, delays of sign-in, and addresses in any case.

Locks: `user_account` is locked while its few rows get their index. The tables of the lock-outs before
(django-axes) held addresses and names in plain text; they go. Two accounts whose addresses differ in
case alone stop the migration: one of them must get another address first.
"""

import django.db.models.deletion
import django.db.models.functions.text
from django.db import migrations, models

from tenants.row_security import ForceRowSecurity

DROP_LOCK_OUTS = """
    DROP TABLE IF EXISTS axes_accessattemptexpiration, axes_accessattempt, axes_accessfailurelog,
        axes_accesslog
"""
LOWER = "UPDATE user_account SET email = lower(email) WHERE email <> lower(email)"


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("tenants", "0002_row_security"),
    ]

    operations = [
        migrations.RunSQL(DROP_LOCK_OUTS, migrations.RunSQL.noop),
        migrations.RunSQL(LOWER, migrations.RunSQL.noop),
        migrations.CreateModel(
            name="Attempt",
            fields=[
                ("key", models.BinaryField(primary_key=True, serialize=False)),
                ("failures", models.PositiveSmallIntegerField()),
                ("tried_at", models.DateTimeField()),
                ("free_at", models.DateTimeField()),
            ],
            options={
                "db_table": "sign_in_attempt",
            },
        ),
        migrations.CreateModel(
            name="Invitation",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("token_hash", models.BinaryField(null=True, unique=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("expires_at", models.DateTimeField()),
                ("mail_due_at", models.DateTimeField(editable=False, null=True)),
                ("mail_attempts", models.PositiveSmallIntegerField(default=0, editable=False)),
                ("mailed_at", models.DateTimeField(editable=False, null=True)),
                ("mail_error", models.CharField(blank=True, editable=False, max_length=300)),
                ("email", models.EmailField(max_length=254, verbose_name="e-mail address")),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("owner", "owner"),
                            ("admin", "admin"),
                            ("finance", "finance"),
                            ("engineer", "engineer"),
                            ("viewer", "viewer"),
                        ],
                        max_length=10,
                    ),
                ),
                ("invited_by", models.CharField(editable=False, max_length=300)),
                ("accepted_at", models.DateTimeField(editable=False, null=True)),
                ("revoked_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "db_table": "invitation",
            },
        ),
        migrations.CreateModel(
            name="PasswordReset",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("token_hash", models.BinaryField(null=True, unique=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("expires_at", models.DateTimeField()),
                ("mail_due_at", models.DateTimeField(editable=False, null=True)),
                ("mail_attempts", models.PositiveSmallIntegerField(default=0, editable=False)),
                ("mailed_at", models.DateTimeField(editable=False, null=True)),
                ("mail_error", models.CharField(blank=True, editable=False, max_length=300)),
                ("email", models.EmailField(max_length=254, verbose_name="e-mail address")),
                ("used_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "db_table": "password_reset",
            },
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.UniqueConstraint(
                django.db.models.functions.text.Lower("email"), name="user_email_in_any_case"
            ),
        ),
        migrations.AddIndex(
            model_name="attempt",
            index=models.Index(fields=["tried_at"], name="sign_in_attempt_oldest"),
        ),
        migrations.AddField(
            model_name="invitation",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="invitations",
                to="tenants.tenant",
            ),
        ),
        migrations.AddConstraint(
            model_name="invitation",
            constraint=models.UniqueConstraint(
                condition=models.Q(("accepted_at", None), ("revoked_at", None)),
                fields=("tenant", "email"),
                name="invitation_open_once_an_address",
            ),
        ),
        migrations.AddConstraint(
            model_name="invitation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("role__in", ["owner", "admin", "finance", "engineer", "viewer"])
                ),
                name="invitation_role",
            ),
        ),
        ForceRowSecurity("invitation"),
    ]
