"""Protobuf's wire format, as far as it takes to cut a message into fields without reading them.

The protobuf library reads a message as a whole or not at all; cutting it first keeps what is wrong
with one span from losing the others.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5
_VARINT_BYTES_MAX: Final = 10
_FIXED_BYTES: Final = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """A field as it stands on the wire: `whole` with its tag, `content` without tag and length."""

    number: int
    wire_type: int
    content: memoryview
    whole: memoryview


def fields_of(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a message, in order. Raises ValueError for what is no message."""
    at, end = 0, len(message)
    while at < end:
        begin = at
        tag, at = _varint(message, at)
        wire_type = tag & 7
        if wire_type == LENGTH:
            length, at = _varint(message, at)
            start, at = at, at + length
        elif wire_type == VARINT:
            start = at
            _, at = _varint(message, at)
        elif wire_type in _FIXED_BYTES:
            start, at = at, at + _FIXED_BYTES[wire_type]
        else:
            raise ValueError(f"wire type {wire_type} is not in use")
        if at > end or not tag >> 3:
            raise ValueError("a field reaches beyond its message")
        yield Field(tag >> 3, wire_type, message[start:at], message[begin:at])


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    byte = message[at] if at < len(message) else 0x80
    if byte < 0x80:
        return byte, at + 1
    value = shift = 0
    for index in range(at, min(at + _VARINT_BYTES_MAX, len(message))):
        byte = message[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise ValueError("a number has no end")
