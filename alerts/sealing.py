"""Secrets of channels at rest: unreadable without SECRET_KEY."""

from alerts.errors import SecretsUnreadable
from common import sealing
from common.json_bodies import JsonObject

PURPOSE = "channel secrets"


def seal(secrets: JsonObject) -> bytes:
    """Encrypt secrets to be stored."""
    return sealing.seal(secrets, purpose=PURPOSE)


def unseal(sealed: bytes | memoryview) -> JsonObject:
    """Decrypt stored secrets. Raises SecretsUnreadable if SECRET_KEY was replaced."""
    try:
        return sealing.unseal(sealed, purpose=PURPOSE)
    except sealing.Unreadable as error:
        raise SecretsUnreadable(
            "The secrets of this channel can no longer be read, because the service's SECRET_KEY"
            " was replaced: enter them again."
        ) from error
