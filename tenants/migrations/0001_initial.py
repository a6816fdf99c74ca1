"""Tables of tenants, the people in them, and their keys."""

import django.contrib.postgres.fields
import django.db.models.functions.text
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

from common.create_models import CreateModels
from tenants.migrations._storage import STORAGE


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        CreateModels(
            migrations.CreateModel(
                name="Team",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("name", models.CharField(max_length=200)),
                    (
                        "former_names",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.CharField(max_length=200),
                            default=list,
                            editable=False,
                            size=None,
                        ),
                    ),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "tenant",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="teams",
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "team",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "name"), name="team_name_once_a_tenant"
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Tenant",
                fields=[
                    ("id", models.AutoField(primary_key=True, serialize=False)),
                    ("name", models.CharField(max_length=200, unique=True)),
                    ("timezone", models.CharField(default="UTC", max_length=64)),
                    (
                        "unpriced_policy",
                        models.CharField(
                            choices=[
                                ("refuse", "Refuse"),
                                ("assume", "Assume"),
                                ("allow", "Allow"),
                            ],
                            default="refuse",
                            max_length=10,
                        ),
                    ),
                    ("assumed_input_nanos_per_mtok", models.BigIntegerField(blank=True, null=True)),
                    (
                        "assumed_output_nanos_per_mtok",
                        models.BigIntegerField(blank=True, null=True),
                    ),
                    (
                        "trusts_given_costs",
                        models.BooleanField(
                            default=False,
                            help_text="Take cost attributes inside OTLP and LiteLLM payloads as true.",
                        ),
                    ),
                    ("configuration_version", models.BigIntegerField(default=1, editable=False)),
                    ("limits", models.JSONField(blank=True, default=dict, editable=False)),
                    ("is_demo_complete", models.BooleanField(default=False, editable=False)),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                ],
                options={
                    "db_table": "tenant",
                },
            ),
            migrations.CreateModel(
                name="LoginSession",
                fields=[
                    (
                        "session_key",
                        models.CharField(
                            max_length=40,
                            primary_key=True,
                            serialize=False,
                            verbose_name="session key",
                        ),
                    ),
                    ("session_data", models.TextField(verbose_name="session data")),
                    (
                        "expire_date",
                        models.DateTimeField(db_index=True, verbose_name="expire date"),
                    ),
                    ("user_id", models.BigIntegerField(db_index=True, null=True)),
                ],
                options={"db_table": "login_session"},
            ),
            migrations.CreateModel(
                name="User",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("password", models.CharField(max_length=128, verbose_name="password")),
                    (
                        "last_login",
                        models.DateTimeField(blank=True, null=True, verbose_name="last login"),
                    ),
                    (
                        "is_superuser",
                        models.BooleanField(
                            default=False,
                            help_text="Designates that this user has all permissions without explicitly assigning them.",
                            verbose_name="superuser status",
                        ),
                    ),
                    (
                        "first_name",
                        models.CharField(blank=True, max_length=150, verbose_name="first name"),
                    ),
                    (
                        "last_name",
                        models.CharField(blank=True, max_length=150, verbose_name="last name"),
                    ),
                    (
                        "is_staff",
                        models.BooleanField(
                            default=False,
                            help_text="Designates whether the user can log into this admin site.",
                            verbose_name="staff status",
                        ),
                    ),
                    (
                        "is_active",
                        models.BooleanField(
                            default=True,
                            help_text="Designates whether this user should be treated as active. Unselect this instead of deleting accounts.",
                            verbose_name="active",
                        ),
                    ),
                    (
                        "date_joined",
                        models.DateTimeField(
                            default=django.utils.timezone.now, verbose_name="date joined"
                        ),
                    ),
                    (
                        "email",
                        models.EmailField(
                            max_length=254, unique=True, verbose_name="email address"
                        ),
                    ),
                    ("is_address_proven", models.BooleanField(default=False, editable=False)),
                    ("timezone", models.CharField(blank=True, editable=False, max_length=64)),
                    ("session_salt", models.CharField(blank=True, editable=False, max_length=32)),
                    (
                        "groups",
                        models.ManyToManyField(
                            blank=True,
                            help_text="The groups this user belongs to. A user will get all permissions granted to each of their groups.",
                            related_name="user_set",
                            related_query_name="user",
                            to="auth.group",
                            verbose_name="groups",
                        ),
                    ),
                    (
                        "user_permissions",
                        models.ManyToManyField(
                            blank=True,
                            help_text="Specific permissions for this user.",
                            related_name="user_set",
                            related_query_name="user",
                            to="auth.permission",
                            verbose_name="user permissions",
                        ),
                    ),
                ],
                options={
                    "db_table": "user_account",
                    "constraints": [
                        models.UniqueConstraint(
                            django.db.models.functions.text.Lower("email"),
                            name="user_email_in_any_case",
                        )
                    ],
                },
            ),
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
                    "indexes": [models.Index(fields=["tried_at"], name="sign_in_attempt_oldest")],
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
                    ("email", models.EmailField(max_length=254, verbose_name="email address")),
                    ("used_at", models.DateTimeField(editable=False, null=True)),
                ],
                options={
                    "db_table": "password_reset",
                    "indexes": [models.Index(fields=["expires_at"], name="password_reset_by_end")],
                },
            ),
            migrations.CreateModel(
                name="TeamMember",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("is_lead", models.BooleanField(default=False)),
                    (
                        "team",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="members",
                            to="tenants.team",
                        ),
                    ),
                    (
                        "user",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE, to=settings.AUTH_USER_MODEL
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "team_member",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("team", "user"), name="team_member_once_a_team"
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="Membership",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
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
                            default="viewer",
                            max_length=10,
                        ),
                    ),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "user",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="memberships",
                            to=settings.AUTH_USER_MODEL,
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="memberships",
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "membership",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "user"), name="membership_once_a_tenant"
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("role__in", ["owner", "admin", "finance", "engineer", "viewer"])
                            ),
                            name="membership_role",
                        ),
                    ],
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
                    ("email", models.EmailField(max_length=254, verbose_name="email address")),
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
                    (
                        "team_ids",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.BigIntegerField(),
                            default=list,
                            editable=False,
                            size=None,
                        ),
                    ),
                    ("invited_by", models.CharField(editable=False, max_length=300)),
                    ("accepted_at", models.DateTimeField(editable=False, null=True)),
                    ("revoked_at", models.DateTimeField(editable=False, null=True)),
                    (
                        "tenant",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="invitations",
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "invitation",
                    "indexes": [models.Index(fields=["expires_at"], name="invitation_by_end")],
                    "constraints": [
                        models.UniqueConstraint(
                            condition=models.Q(("accepted_at", None), ("revoked_at", None)),
                            fields=("tenant", "email"),
                            name="invitation_open_once_an_address",
                        ),
                        models.CheckConstraint(
                            condition=models.Q(
                                ("role__in", ["owner", "admin", "finance", "engineer", "viewer"])
                            ),
                            name="invitation_role",
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="IdempotencyRecord",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("key", models.CharField(max_length=200)),
                    ("request_hash", models.BinaryField()),
                    ("status", models.PositiveSmallIntegerField(null=True)),
                    ("body", models.TextField(default="")),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "db_table": "idempotency_record",
                    "constraints": [
                        models.UniqueConstraint(
                            fields=("tenant", "key"), name="idempotency_key_once_a_tenant"
                        )
                    ],
                },
            ),
            migrations.CreateModel(
                name="AuditEntry",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("at", models.DateTimeField(auto_now_add=True)),
                    (
                        "actor",
                        models.CharField(
                            help_text="A person's address, a key, or a command.", max_length=300
                        ),
                    ),
                    ("action", models.CharField(max_length=20)),
                    ("object_type", models.CharField(max_length=40)),
                    ("object_id", models.CharField(max_length=64)),
                    (
                        "changes",
                        models.JSONField(default=dict, help_text='{"field": [before, after]}'),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(on_delete=models.deletion.CASCADE, to="tenants.tenant"),
                    ),
                ],
                options={
                    "verbose_name_plural": "audit entries",
                    "db_table": "audit_entry",
                    "indexes": [
                        models.Index(fields=["tenant", "-id"], name="audit_entry_newest"),
                        models.Index(
                            fields=["tenant", "object_type", "-at"], name="audit_entry_of_type"
                        ),
                    ],
                },
            ),
            migrations.CreateModel(
                name="ApiKey",
                fields=[
                    (
                        "id",
                        models.BigAutoField(
                            auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                        ),
                    ),
                    ("name", models.CharField(max_length=200)),
                    ("prefix", models.CharField(editable=False, max_length=16, unique=True)),
                    ("secret_hash", models.BinaryField()),
                    (
                        "scopes",
                        django.contrib.postgres.fields.ArrayField(
                            base_field=models.CharField(max_length=10), size=None
                        ),
                    ),
                    ("created_at", models.DateTimeField(auto_now_add=True)),
                    ("expires_at", models.DateTimeField(blank=True, null=True)),
                    ("revoked_at", models.DateTimeField(blank=True, null=True)),
                    ("last_used_at", models.DateTimeField(blank=True, editable=False, null=True)),
                    (
                        "created_by",
                        models.ForeignKey(
                            blank=True,
                            null=True,
                            on_delete=models.deletion.SET_NULL,
                            to=settings.AUTH_USER_MODEL,
                        ),
                    ),
                    (
                        "tenant",
                        models.ForeignKey(
                            on_delete=models.deletion.CASCADE,
                            related_name="api_keys",
                            to="tenants.tenant",
                        ),
                    ),
                ],
                options={
                    "db_table": "api_key",
                },
            ),
        ),
        *STORAGE,
    ]
