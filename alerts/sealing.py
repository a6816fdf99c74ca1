"""Secrets of channels at rest: unreadable without SECRET_KEY."""

import base64
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.utils.crypto import salted_hmac

from alerts.errors import SecretsUnreadable


def seal(secrets: Mapping[str, Any]) -> bytes:
    """Encrypt secrets to be stored."""
    return _cipher(settings.SECRET_KEY).encrypt(json.dumps(dict(secrets)).encode())


def unseal(sealed: bytes | memoryview) -> dict[str, Any]:
    """Decrypt stored secrets. Raises SecretsUnreadable if SECRET_KEY was replaced."""
    try:
        opened = _cipher(settings.SECRET_KEY).decrypt(bytes(sealed))
    except InvalidToken as error:
        raise SecretsUnreadable(
            "The secrets of this channel can no longer be read, because the service's SECRET_KEY"
            " was replaced: enter them again."
        ) from error
    secrets: dict[str, Any] = json.loads(opened)
    return secrets


@lru_cache(maxsize=4)
def _cipher(secret_key: str) -> Fernet:
    digest = salted_hmac(
        "alerts.sealing", "channel secrets", secret=secret_key, algorithm="sha256"
    ).digest()
    return Fernet(base64.urlsafe_b64encode(digest))
