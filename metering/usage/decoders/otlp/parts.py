"""Limits the resources, scopes and spans of an export.

They are counted while it is cut, so that one of a million empty parts ends at the first that is too
many.
"""

import threading
from collections import Counter
from typing import Final

import msgspec

from common.errors import MalformedBody, TooManyEvents
from metering.usage.decoders.native import EVENTS_MAX

# What a part has beside its own parts: a resource or a scope, and the address of a schema.
_FIELDS_MAX: Final = 5 * EVENTS_MAX
# Of a body whose parts cannot be counted: some 64 bytes are kept of each.
_COMMAS_MAX: Final = 2_000_000


class Parts:
    """The parts of one export that were found so far."""

    def __init__(self) -> None:
        self._found: Counter[str] = Counter()

    def count(self, what: str) -> None:
        """Count one more. Raises TooManyEvents."""
        self._found[what] += 1
        most = _FIELDS_MAX if what == "further fields" else EVENTS_MAX
        if self._found[what] > most:
            raise TooManyEvents(what=what, most=most)


class _JsonParts(threading.local):
    """The parts of the export that this thread decodes: they are counted by being made."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget what was counted of another export."""
        self._parts = Parts()

    def count(self, what: str) -> None:
        """Count one more. Raises TooManyEvents."""
        self._parts.count(what)


json_parts: Final = _JsonParts()


class _Span(msgspec.Struct):
    def __post_init__(self) -> None:
        json_parts.count("spans")


class _Scope(msgspec.Struct):
    spans: list[_Span] | None = None

    def __post_init__(self) -> None:
        json_parts.count("scopes")


class _Group(msgspec.Struct):
    scopes: list[_Scope | None] | None = msgspec.field(name="scopeSpans", default=None)
    snake_scopes: list[_Scope | None] | None = msgspec.field(name="scope_spans", default=None)

    def __post_init__(self) -> None:
        json_parts.count("resources")


class _Request(msgspec.Struct):
    groups: list[_Group] | None = msgspec.field(name="resourceSpans", default=None)
    snake_groups: list[_Group] | None = msgspec.field(name="resource_spans", default=None)


_count_request = msgspec.json.Decoder(_Request).decode


def require_few_parts(body: bytes) -> None:
    """Raise TooManyEvents for JSON of too many parts, before any is kept.

    A part of another form ends the count. Then the commas of the body are the most that its parts
    can be; raises MalformedBody where these are too many.
    """
    json_parts.begin()
    try:
        _count_request(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if body.count(b",") > _COMMAS_MAX:
            detail = f"The body is not an OTLP export request: {error}."
            raise MalformedBody("malformed_json", detail) from error
