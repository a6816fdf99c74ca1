"""A span as this decoder sees it, whichever of OTLP's encodings it came in."""

from collections.abc import Mapping
from typing import Final

import msgspec

from metering.usage.decoders.otlp.dialects import KINDS

Attributes = dict[str, object]

STATUS_ERROR = 2
# Structured attributes are kept so deep; only their hashes are ever looked at.
VALUE_LEVELS_MAX: Final = 32


class Span(msgspec.Struct, gc=False):
    """Ids are lower-case hex. Times are nanoseconds since 1970, 0 if the sender gave none."""

    trace: str
    span: str
    parent: str | None
    name: str
    scope: str
    started_nanos: int
    ended_nanos: int
    status_code: int
    status_message: str
    exception: str | None
    attributes: Attributes
    resource: Mapping[str, object]

    @property
    def key(self) -> tuple[str, str]:
        return self.trace, self.span

    @property
    def event_id(self) -> str:
        return f"{self.trace}-{self.span}"


def first(attributes: Mapping[str, object], keys: tuple[str, ...]) -> object:
    """Return the first of these attributes that says something."""
    for key in keys:
        value = attributes.get(key)
        if value is not None and value != "":
            return value
    return None


def is_needed(key: str) -> bool:
    """Return whether this attribute is read."""
    return not key.startswith(KINDS.unused)


def is_id(text: str, length: int) -> bool:
    """Return whether this is a span's or trace's id: hex of that length, and not only zeros."""
    return len(text) == length and not set(text) <= {"0"} and set(text) <= _HEX


TRACE_LENGTH = 32
SPAN_LENGTH = 16
_HEX = frozenset("0123456789abcdef")
