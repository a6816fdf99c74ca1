"""Dimensions of a decoded body, brought into the form in which they are stored and compared."""

from operator import attrgetter
from typing import Final, TypeVar

import msgspec

from common.errors import RejectEvent
from common.values import normal_value
from metering.core.dimensions import DIMENSIONS, VALUE_CHARACTERS_MAX

_NORMALISED: Final = (*DIMENSIONS, "provider", "tool", "source")
_values_of = attrgetter(*_NORMALISED)
Body = TypeVar("Body", bound=msgspec.Struct)


def with_normal_values(body: Body) -> Body:
    """Return the body of an event or an ask with its dimensions' values as they are stored.

    Raises RejectEvent for a value that is too long, or of which nothing is left to see.
    """
    text = "".join(filter(None, _values_of(body)))
    is_plain = len(text) <= VALUE_CHARACTERS_MAX and text.isascii() and text.isprintable()
    if is_plain and " " not in text:
        return body
    changes = {}
    for name, value in zip(_NORMALISED, _values_of(body), strict=True):
        if value is None:
            continue
        normal = normal_value(value)
        if len(normal) > VALUE_CHARACTERS_MAX or (value and not normal):
            detail = f"{name!r} must be 1 to {VALUE_CHARACTERS_MAX} visible characters."
            raise RejectEvent("invalid_value", detail, pointer=f"/{name}")
        if normal != value:
            changes[name] = normal
    return msgspec.structs.replace(body, **changes) if changes else body
