"""Tenants, people, keys, and the log of what was changed."""

import unicodedata
from typing import ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractUser, BaseUserManager
from django.contrib.postgres.fields import ArrayField
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django.db.models.functions import Lower
from django.utils.crypto import salted_hmac
from django.utils.module_loading import import_string

from tenants.roles import Role


def normalize_email(email: str) -> str:
    """The one form of an address in which it is stored, compared and looked up."""
    return unicodedata.normalize("NFC", email.strip()).lower()


class UserManager(BaseUserManager["User"]):
    """Makes people, who are known by their email address."""

    def find(self, email: str) -> "User | None":
        """The person with this address, in whatever case it is written."""
        return self.filter(email=normalize_email(email)).first()

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email=normalize_email(username or ""))

    def create_user(self, email: str, password: str | None = None, **fields: bool) -> "User":
        """Add a person. Raises IntegrityError when the address is taken."""
        user = self.model(email=normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: bool) -> "User":
        """Add an operator of the service, for `manage.py createsuperuser`."""
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractUser):
    """A person. Belongs to tenants through memberships, so it has no tenant of its own."""

    username = None  # type: ignore[assignment]
    email = models.EmailField("email address", unique=True)
    # Whether the person behind the address chose the password: not where it was made with a link
    # that was shown to someone else. What the operator gives goes to proven accounts alone.
    is_address_proven = models.BooleanField(default=False, editable=False)
    # The zone in which pages show the person instants; empty: the browser's.
    timezone = models.CharField(max_length=64, blank=True, editable=False)
    # A new one ends all sessions, as a new password does.
    session_salt = models.CharField(max_length=32, blank=True, editable=False)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects: ClassVar[UserManager] = UserManager()  # type: ignore[assignment]

    class Meta:
        db_table = "user_account"
        constraints = [
            # Addresses are stored in one form; this keeps out what did not come by `create_user`.
            models.UniqueConstraint(Lower("email"), name="user_email_in_any_case")
        ]

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        """What a session must carry to be this person's."""
        return salted_hmac(
            "tenants.models.User.session",
            f"{self.password} {self.session_salt}",
            secret=secret,
            algorithm="sha256",
        ).hexdigest()


class LoginSession(AbstractBaseSession):
    """A browser that is logged in, or is about to. Found by an unguessable key."""

    # Of no one until the login.
    user_id = models.BigIntegerField(null=True, db_index=True)

    class Meta:
        db_table = "login_session"

    @classmethod
    def get_session_store_class(cls) -> "type[SessionBase]":
        store: type[SessionBase] = import_string(f"{settings.SESSION_ENGINE}.SessionStore")
        return store


class UnpricedPolicy(models.TextChoices):
    """What enforcement does with a model that has no price."""

    REFUSE = "refuse"
    ASSUME = "assume"
    ALLOW = "allow"


class Tenant(models.Model):
    """An organization that uses the service; owns everything below."""

    # Four bytes: it is in every row of every fact.
    id = models.AutoField(primary_key=True)
    name = models.CharField(max_length=200, unique=True)
    timezone = models.CharField(max_length=64, default="UTC")
    unpriced_policy = models.CharField(
        max_length=10, choices=UnpricedPolicy.choices, default=UnpricedPolicy.REFUSE
    )
    assumed_input_nanos_per_mtok = models.BigIntegerField(null=True, blank=True)
    assumed_output_nanos_per_mtok = models.BigIntegerField(null=True, blank=True)
    trusts_given_costs = models.BooleanField(
        default=False, help_text="Take cost attributes inside OTLP and LiteLLM payloads as true."
    )
    # Raised by every change of what usage is judged by: budgets, prices, settings.
    configuration_version = models.BigIntegerField(default=1, editable=False)
    # What the operator allows this tenant instead of `tenants.limits.LIMITS`, by name.
    limits = models.JSONField(default=dict, blank=True, editable=False)
    is_demo_complete = models.BooleanField(default=False, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "tenant"

    def __str__(self) -> str:
        return self.name


class Team(models.Model):
    """People inside a tenant. Its name is what events carry in their `team` dimension."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="teams")
    name = models.CharField(max_length=200)
    # What events carried before: still this team's, and no other's.
    former_names = ArrayField(models.CharField(max_length=200), default=list, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "team"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="team_name_once_a_tenant")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which usage is this team's, the present one first."""
        return (self.name, *self.former_names)


class Membership(models.Model):
    """A person in a tenant, in one role."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(
        max_length=10,
        choices=[(role.value, role.value) for role in Role],
        default=Role.VIEWER.value,
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "membership"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "user"], name="membership_once_a_tenant"),
            models.CheckConstraint(
                condition=models.Q(role__in=[role.value for role in Role]), name="membership_role"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user.email} ({self.role})"


class TeamMember(models.Model):
    """A member of a team; leads hear of the team's budgets."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="members")
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    is_lead = models.BooleanField(default=False)

    class Meta:
        db_table = "team_member"
        constraints = [
            models.UniqueConstraint(fields=["team", "user"], name="team_member_once_a_team")
        ]

    def __str__(self) -> str:
        return f"{self.user.email} in {self.team.name}"


class ApiKey(models.Model):
    """A key of a tenant. Only the hash of its secret is kept."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=200)
    prefix = models.CharField(max_length=16, unique=True, editable=False)
    secret_hash = models.BinaryField(editable=False)
    scopes = ArrayField(models.CharField(max_length=10))
    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "api_key"

    def __str__(self) -> str:
        return f"{self.name} (sg_{self.prefix}_…)"


class Link(models.Model):
    """A link that one person may use once, until it expires. Only the hash of its token is kept.

    What is to be mailed is a row with `mail_due_at`; the worker that mails it makes the token, so
    that no message or log ever holds one.
    """

    token_hash = models.BinaryField(null=True, editable=False, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    mail_due_at = models.DateTimeField(null=True, editable=False)
    mail_attempts = models.PositiveSmallIntegerField(default=0, editable=False)
    mailed_at = models.DateTimeField(null=True, editable=False)
    mail_error = models.CharField(max_length=300, blank=True, editable=False)

    class Meta:
        abstract = True


class Invitation(Link):
    """An address that may join a tenant in a role. The membership exists once it is accepted."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField("email address")
    role = models.CharField(max_length=10, choices=[(role.value, role.value) for role in Role])
    # Teams that the person joins with the tenant; those that are gone by then are left out.
    team_ids = ArrayField(models.BigIntegerField(), default=list, editable=False)
    invited_by = models.CharField(max_length=300, editable=False)
    accepted_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        db_table = "invitation"
        indexes = [models.Index(fields=["expires_at"], name="invitation_by_end")]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "email"],
                condition=models.Q(accepted_at=None, revoked_at=None),
                name="invitation_open_once_an_address",
            ),
            models.CheckConstraint(
                condition=models.Q(role__in=[role.value for role in Role]), name="invitation_role"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.email} ({self.role})"


class PasswordReset(Link):
    """Someone requested a new password for an address, whether or not it has an account."""

    email = models.EmailField("email address")
    used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        db_table = "password_reset"
        indexes = [models.Index(fields=["expires_at"], name="password_reset_by_end")]

    def __str__(self) -> str:
        return self.email


class Attempt(models.Model):
    """How often something was tried in vain of late, and when it may be tried again.

    Keys are hashes of addresses and accounts, so the table tells no one who signs in.
    """

    key = models.BinaryField(primary_key=True)
    failures = models.PositiveSmallIntegerField()
    tried_at = models.DateTimeField()
    free_at = models.DateTimeField()

    class Meta:
        db_table = "sign_in_attempt"
        indexes = [models.Index(fields=["tried_at"], name="sign_in_attempt_oldest")]

    def __str__(self) -> str:
        return f"{self.failures} failures"


class AuditEntry(models.Model):
    """One change of configuration: who, what, from what to what. Never changed, and removed by
    retention alone.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    at = models.DateTimeField(auto_now_add=True)
    actor = models.CharField(max_length=300, help_text="A person's address, a key, or a command.")
    action = models.CharField(max_length=20)
    object_type = models.CharField(max_length=40)
    object_id = models.CharField(max_length=64)
    changes = models.JSONField(default=dict, help_text='{"field": [before, after]}')

    class Meta:
        db_table = "audit_entry"
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["tenant", "-id"], name="audit_entry_newest"),
            models.Index(fields=["tenant", "object_type", "-at"], name="audit_entry_of_type"),
        ]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.object_type} {self.object_id}"


class IdempotencyRecord(models.Model):
    """The answer to a POST that carried an Idempotency-Key, for a retry to get again."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    key = models.CharField(max_length=200)
    request_hash = models.BinaryField()
    status = models.PositiveSmallIntegerField(null=True)
    body = models.TextField(default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "idempotency_record"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "key"], name="idempotency_key_once_a_tenant")
        ]

    def __str__(self) -> str:
        return self.key
