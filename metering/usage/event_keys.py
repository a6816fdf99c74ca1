"""What reports are known by: hashes of their own ids, and of what identifies their calls."""

from hashlib import blake2b
from typing import Final

# What servers that number nothing put where an id belongs.
NO_IDS: Final = frozenset(
    {"", "0", "-", "none", "null", "nil", "undefined", "unknown", "n/a", "na", "nan", "string"}
)


def key_of_id(source: str, sent_id: str) -> str:
    """Return what an event's own id is known by: 128 bits of hash, as hexadecimal."""
    return blake2b(f"{source}\x00{sent_id}".encode(), digest_size=16, person=b"id").hexdigest()


def key_of_response(response_id: str | None) -> str | None:
    """Return what a provider's response is known by, by whichever way it is reported.

    The provider is not part of it: not every report names it. Responses of two providers contradict
    each other (`metering.calls.merging`).
    """
    return _key_of(response_id, b"response")


def key_of_request(request_id: str | None) -> str | None:
    """Return what a provider's request is known by: the id that it answers in a header."""
    return _key_of(request_id, b"request")


def _key_of(id_: str | None, person: bytes) -> str | None:
    if id_ is None or id_.strip().lower() in NO_IDS:
        return None
    return blake2b(id_.encode(), digest_size=16, person=person).hexdigest()


def key_of_span(trace: str, span: str) -> str | None:
    """Return what a span is known by, by whichever way it is reported; hex in either case."""
    text = f"{trace}\x00{span}".lower()
    if span.lower() in NO_IDS:
        return None
    return blake2b(text.encode(), digest_size=16, person=b"span").hexdigest()
