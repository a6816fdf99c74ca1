"""Builds an event from fields that were read out of another format."""

import hashlib
import math
import re
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from common.errors import EventRejected
from common.json_bodies import holds_nul
from common.money import USD_DECIMALS_MAX
from common.values import COUNT_MAX, RAW_CHARACTERS_MAX, normal_value
from metering.usage.decoders.native import (
    TAGS_MAX,
    Decoded,
    EventBody,
    TagValue,
    refused_value,
    rejected,
)

NAME_MAX = 200
TEXT_MAX = 1000
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?")


def assemble(fields: Mapping[str, object]) -> Decoded:
    """Return the event with these fields, or why there is none. None is a field left out."""
    try:
        event = msgspec.convert({key: v for key, v in fields.items() if v is not None}, EventBody)
    except msgspec.ValidationError as error:
        return rejected(error, msgspec.json.encode({"id": fields.get("id")}))
    if holds_nul(event):
        detail = "A string holds the character NUL."
        return EventRejected("invalid_value", detail, event_id=event.id)
    return refused_value(event) or event


def name(value: object) -> str | None:
    """Return a short string out of a foreign value, or None.

    It is cut rather than refused: exporters do not send again, so a refusal would lose the spend.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        value = str(value) if abs(value) < 10**NAME_MAX else None
    if not isinstance(value, str):
        return None
    if "\x00" in value:
        return value[:NAME_MAX]  # which no event may hold
    return normal_value(value[:RAW_CHARACTERS_MAX])[:NAME_MAX].rstrip() or None


def identity(value: object) -> str | None:
    """Return an id out of a foreign value, hashed when too long: a cut may not tell two apart."""
    if not isinstance(value, str) or not value:
        return None
    return value if len(value) <= NAME_MAX else "sha256:" + digest(value)


def digest(text: str) -> str:
    """Return a short stand-in for a text whose content is not kept."""
    return hashlib.sha256(text.encode()).hexdigest()


def count(value: object) -> int | None:
    """Return a whole number out of a foreign value, None when there is none.

    Raises ValueError for what is there and is no count: never read it as zero.
    """
    if value is None or value == "":
        return None
    if (
        isinstance(value, str)
        and value.isascii()
        and value.isdigit()
        and len(value) <= len(str(COUNT_MAX))
    ):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise ValueError(f"{str(value)[:50]!r} is no number of tokens")
    return value


def usd(value: object) -> str | None:
    """Return a decimal string of USD out of a foreign number, None when there is none.

    Raises ValueError for what is there and is no amount.
    """
    if value is None:
        return None
    text = repr(value) if isinstance(value, float) else str(value)
    is_number = isinstance(value, str | int | float) and not isinstance(value, bool)
    # An exponent is how languages print small floats; anything else is no number as JSON has it.
    if not is_number or not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:50]!r} is no amount in USD")
    digits = f"{Decimal(text):f}"
    has_more = len(digits.partition(".")[2]) > USD_DECIMALS_MAX
    return f"{Decimal(text):.{USD_DECIMALS_MAX}f}" if has_more else digits


def milliseconds(seconds: object) -> int | None:
    """Return whole milliseconds out of a duration in seconds, None for what is no duration."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    if not 0 <= seconds < COUNT_MAX / 1000:
        return None
    return round(seconds * 1000)


def tags(pairs: Mapping[str, object]) -> dict[str, TagValue] | None:
    """Return as many of these pairs as an event may hold, cut to size; what is no plain value is
    left.
    """
    kept: dict[str, TagValue] = {}
    for key, value in pairs.items():
        if len(kept) == TAGS_MAX:
            break
        if not key or (isinstance(value, float) and not math.isfinite(value)):
            continue
        if isinstance(value, str):
            kept[key[:NAME_MAX]] = value[:TEXT_MAX]
        elif isinstance(value, bool | float) or (
            isinstance(value, int) and abs(value) <= COUNT_MAX
        ):
            kept[key[:NAME_MAX]] = value
    return kept or None
