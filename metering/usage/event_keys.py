"""What reports are known by: hashes of their own ids, and of what identifies their calls."""

from hashlib import blake2b
from typing import Final

# What servers that number nothing put where an id belongs.
NO_IDS: Final = frozenset(
    {"", "0", "-", "none", "null", "nil", "undefined", "unknown", "n/a", "na", "nan", "string"}
)


# Copied for each key, which takes half of the time of a new one.
_ID, _RESPONSE, _REQUEST, _SPAN = (
    blake2b(digest_size=16, person=person) for person in (b"id", b"response", b"request", b"span")
)


def key_of_id(source: str, sent_id: str) -> str:
    """Return what an event's own id is known by: 128 bits of hash, as hexadecimal."""
    return _hexadecimal(_ID, f"{source}\x00{sent_id}")


def key_of_response(response_id: str | None) -> str | None:
    """Return what a provider's response is known by, by whichever way it is reported.

    The provider is not part of it: not every report names it. Responses of two providers contradict
    each other (`metering.calls.merging`).
    """
    return _key_of(response_id, _RESPONSE)


def key_of_request(request_id: str | None) -> str | None:
    """Return what a provider's request is known by: the id that it answers in a header."""
    return _key_of(request_id, _REQUEST)


def _key_of(id_: str | None, kind: blake2b) -> str | None:
    if id_ is None or id_.strip().lower() in NO_IDS:
        return None
    return _hexadecimal(kind, id_)


def key_of_span(trace: str, span: str) -> str | None:
    """Return what a span is known by, by whichever way it is reported; hex in either case."""
    if span.lower() in NO_IDS:
        return None
    return _hexadecimal(_SPAN, f"{trace}\x00{span}".lower())


def _hexadecimal(kind: blake2b, text: str) -> str:
    hash_ = kind.copy()
    hash_.update(text.encode())
    return hash_.hexdigest()
