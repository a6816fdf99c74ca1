"""What every JSON body must be: UTF-8, shallow, and without NUL."""

import codecs
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from common.errors import MalformedBody

DEPTH_MAX: Final = 32
# A JSON object, or one that becomes one: its members, each of any kind that JSON has.
JsonObject = dict[str, Any]
_UTF8_PIECE_BYTES: Final = 1 << 20
# Possessive, and a string that never ends ends with the text: every byte is looked at once.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)


def require_utf8(body: bytes) -> None:
    """Raise MalformedBody for bytes that are not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    begin = 0
    try:
        # Piece by piece: the text of a large body would take several times its bytes.
        while len(body) - begin > _UTF8_PIECE_BYTES:
            waiting = len(decoder.getstate()[0])
            decoder.decode(memoryview(body)[begin : begin + _UTF8_PIECE_BYTES])
            begin += _UTF8_PIECE_BYTES
        waiting = len(decoder.getstate()[0])
        decoder.decode(memoryview(body)[begin:], True)
    except UnicodeDecodeError as error:
        at = begin - waiting + error.start
        raise MalformedBody(
            "invalid_utf8", f"The body is not UTF-8: byte {at} cannot be read."
        ) from error


def require_shallow(raw: bytes, *, depth: int = 0) -> None:
    """Raise MalformedBody when the JSON, itself `depth` levels down, nests deeper than allowed."""
    # Brackets bound the depth from above; only a text with many is walked.
    if raw.count(b"{") + raw.count(b"[") + depth <= DEPTH_MAX:
        return
    for token in _BRACKETS.finditer(raw):
        mark = token[0]
        if mark in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise MalformedBody("too_deep", f"JSON nests deeper than {DEPTH_MAX} levels.")
        elif mark in b"]}":
            depth -= 1


def holds_nul(value: object) -> bool:
    """Whether a string anywhere in the value holds NUL, which PostgreSQL cannot store."""
    return any("\x00" in text for text in _strings(msgspec.to_builtins(value)))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
