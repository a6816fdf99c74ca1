"""Cursors of lists: where a page ended, as text that clients hand back unread."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from common.errors import InvalidRequest
from common.json_bodies import holds_nul

ID_MAX: Final = 2**63 - 1


class InvalidCursor(InvalidRequest):
    """A cursor that this list did not hand out."""

    code = "invalid_cursor"

    def __init__(self) -> None:
        super().__init__("'cursor' must be the 'next_cursor' of the page before, unchanged.")


def write_cursor(position: object) -> str:
    """Return where a page ended as text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def read_cursor(text: str) -> object:
    """Return the position in a cursor. Raises InvalidCursor if it holds none."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        position = msgspec.json.decode(raw)
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError) as error:
        raise InvalidCursor from error
    if holds_nul(position):
        raise InvalidCursor
    return position


def read_sort_key(text: str, kinds: Sequence[type]) -> tuple[Any, ...]:
    """Return the sort key in a cursor: whole numbers, texts and times. Raises InvalidCursor."""
    values = read_cursor(text)
    try:
        if not isinstance(values, list):
            raise ValueError(values)
        return tuple(_convert(value, kind) for value, kind in zip(values, kinds, strict=True))
    except (ValueError, OverflowError) as error:
        raise InvalidCursor from error


def _convert(value: object, kind: type) -> object:
    if kind is int and type(value) is int and abs(value) <= ID_MAX:
        return value
    if kind is str and isinstance(value, str):
        return value
    if kind is datetime and isinstance(value, str):
        timestamp = datetime.fromisoformat(value)
        if timestamp.tzinfo is not None:
            return timestamp.astimezone(UTC)
    raise ValueError(value)
