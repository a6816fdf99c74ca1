"""What is stored encrypted: unreadable without SECRET_KEY, and for one purpose each."""

import base64
from functools import lru_cache

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.utils.crypto import salted_hmac

from common.json_bodies import JsonObject


class Unreadable(ValueError):
    """It was sealed for another purpose, or SECRET_KEY was replaced since."""


def seal(value: object, *, purpose: str) -> bytes:
    """Encrypt a JSON value to be stored."""
    return _cipher(purpose, settings.SECRET_KEY).encrypt(msgspec.json.encode(value))


def unseal(sealed: bytes | memoryview, *, purpose: str) -> JsonObject:
    """Decrypt a stored object. Raises Unreadable."""
    try:
        opened = _cipher(purpose, settings.SECRET_KEY).decrypt(bytes(sealed))
    except InvalidToken as error:
        raise Unreadable from error
    value: JsonObject = msgspec.json.decode(opened)
    return value


@lru_cache(maxsize=8)
def _cipher(purpose: str, secret_key: str) -> Fernet:
    digest = salted_hmac("common.sealing", purpose, secret=secret_key, algorithm="sha256").digest()
    return Fernet(base64.urlsafe_b64encode(digest))
