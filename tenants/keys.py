"""API keys: made, shown once, found again by their hash, revoked."""

import hashlib
import hmac
import re
import secrets
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.db import connection, transaction
from django.utils import timezone

from tenants.audit import audited_change, create_audited
from tenants.changes import tell_change
from tenants.limits import require_room
from tenants.models import ApiKey, Tenant, User
from tenants.remembered import Remembered
from tenants.roles import ALL_SCOPES
from tenants.scope import platform_scope

PREFIX_LENGTH = 12
KEY_TEXT = re.compile(r"sg_([A-Za-z0-9]{1,40})_([A-Za-z0-9_-]{1,150})")
# Those that a process remembers, at about 1 KB each.
KNOWN_KEYS_MAX = 10_000
LAST_USED_GRAIN = timedelta(minutes=1)


class KeyHolder(NamedTuple):
    """Who a key stands for."""

    key_id: int
    tenant_id: int
    tenant_name: str
    prefix: str
    scopes: frozenset[str]


class _KnownKey(NamedTuple):
    secret_hash: bytes
    holder: KeyHolder
    expires_at: datetime | None


@transaction.atomic
def create_api_key(
    *,
    tenant: Tenant,
    name: str,
    actor: str,
    scopes: list[str] | None = None,
    expires_at: datetime | None = None,
    created_by: User | None = None,
) -> tuple[ApiKey, str]:
    """Make a key and answer it with its text, which is shown this once and kept only as a hash."""
    in_use = ApiKey.objects.filter(tenant_id=tenant.id, revoked_at=None)
    require_room(tenant.id, "keys", in_use)
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    prefix = "".join(secrets.choice(alphabet) for _ in range(PREFIX_LENGTH))
    secret = secrets.token_urlsafe(32)
    key = ApiKey(
        tenant=tenant,
        name=name,
        prefix=prefix,
        secret_hash=_hash(secret),
        scopes=sorted(set(scopes)) if scopes is not None else ALL_SCOPES,
        expires_at=expires_at,
        created_by=created_by,
    )
    return create_audited(key, actor=actor), f"sg_{prefix}_{secret}"


@transaction.atomic
def revoke_api_key(*, key: ApiKey, actor: str) -> ApiKey:
    """Refuse the key from now on, everywhere within a second. Revoking twice changes nothing."""
    with audited_change(key, actor=actor) as change:
        if change.row.revoked_at is None:
            change.row.revoked_at = timezone.now()
            tell_change("key", key.prefix)
    return change.row


_KNOWN: Final = Remembered[str, _KnownKey]("key", str, size_max=KNOWN_KEYS_MAX)


def find_key_holder(text: str) -> KeyHolder | None:
    """Who this key text stands for; None for a key that is malformed, unknown, expired or revoked.

    The secret has 256 random bits, so one round of SHA-256 is as good as a slow hash and leaves
    room for thousands of requests a second.
    """
    prefix, secret = _parts_of(text)
    if not prefix:
        return None
    known = _KNOWN.current(prefix, lambda _: _read_key(prefix))
    return None if known is None else _holder_of(known, secret)


def _parts_of(text: str) -> tuple[str, str]:
    """The prefix and the secret of a key's text, or two empty strings where it is no key's."""
    match = KEY_TEXT.fullmatch(text)
    return (match[1], match[2]) if match is not None else ("", "")


def _holder_of(known: _KnownKey, secret: str) -> KeyHolder | None:
    if not hmac.compare_digest(known.secret_hash, _hash(secret)):
        return None
    if known.expires_at is not None and known.expires_at <= timezone.now():
        return None
    return known.holder


def remembered_key_holder(text: str) -> KeyHolder | None:
    """Who this key text stood for when it was last looked up: for refusals while the database is
    away, and never for more than that, since the key may have been revoked.
    """
    prefix, secret = _parts_of(text)
    known = _KNOWN.last_known(prefix)
    return None if known is None else _holder_of(known, secret)


def forget_known_keys() -> None:
    """Empty this process's memory of keys (tests change keys under it)."""
    _KNOWN.forget_all()


def _read_key(prefix: str) -> _KnownKey | None:
    # The tenant is not known before its key is found: a look-up for the platform.
    with platform_scope("key look-up"):
        key = ApiKey.objects.filter(prefix=prefix, revoked_at=None).select_related("tenant").first()
        if key is not None:
            _note_use(key)
    if key is None:
        return None
    return _KnownKey(
        secret_hash=bytes(key.secret_hash),
        holder=KeyHolder(
            key_id=key.id,
            tenant_id=key.tenant_id,
            tenant_name=key.tenant.name,
            prefix=key.prefix,
            scopes=frozenset(key.scopes),
        ),
        expires_at=key.expires_at,
    )


def _note_use(key: ApiKey) -> None:
    now = timezone.now()
    if key.last_used_at is None or key.last_used_at < now - LAST_USED_GRAIN:
        # SKIP LOCKED: a note of use must never make a caller wait for another.
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE api_key SET last_used_at = %s WHERE id ="
                " (SELECT id FROM api_key WHERE id = %s FOR UPDATE SKIP LOCKED)",
                [now, key.id],
            )


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
