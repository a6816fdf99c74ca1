"""Cutting large bodies into items without building them, and dropping what nests too deeply.

An item that is broken in itself must not take its neighbors with it, and a part that no one needs
must not make an item unreadable.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, TypeVar

import msgspec

from common.errors import MalformedBody, TooManyEvents
from metering.usage.decoders.native import EVENTS_MAX

# What nests deeper than this is dropped where a reader cannot skip it.
KEPT_LEVELS: Final = 100
# A body with more brackets is not cut here: it would take seconds.
_BRACKETS_MAX: Final = 2_000_000
# Possessive, and a string that never ends ends with the text: each byte is looked at only once.
_TOKENS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)

# Escapes one by one, so that a backslash that is escaped itself begins none.
_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_REPLACEMENT: Final = rb"\ufffd"

# A member that is decoded where it is needed, if at all.
Part = msgspec.Raw | msgspec.UnsetType
T = TypeVar("T")

# By the type that they decode: to make one takes longer than to use it.
_decoders: Final[dict[object, msgspec.json.Decoder[Any]]] = {}
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_part(raw: str | Part, form: type[T]) -> T | None:
    """Return a part of a payload; None where there is none, or it has another form."""
    if isinstance(raw, msgspec.UnsetType):
        return None
    decoder = _decoders.get(form) or _decoders.setdefault(form, msgspec.json.Decoder(form))
    try:
        part: T = decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    return part


def items_of(body: bytes) -> Iterator[bytes]:
    """Return the items of a JSON array, each still to be read.

    An item that is no JSON, or nests too deeply, comes out like the others as long as its brackets
    and quotes are paired.

    Raises MalformedBody for what is no array, TooManyEvents beyond the limit.
    """
    try:
        items: list[msgspec.Raw] | list[bytes] = _decode_items(body)
    except (msgspec.DecodeError, RecursionError) as error:
        items = _cut(body, error)
    if len(items) > EVENTS_MAX:
        raise TooManyEvents(len(items))
    return (bytes(item) for item in items)


def without_deep_parts(raw: bytes, *, levels: int = KEPT_LEVELS) -> bytes:
    """Return the JSON with null in place of each object or array more than `levels` deep."""
    if raw.count(b"{") + raw.count(b"[") <= levels:
        return raw
    kept: list[bytes] = []
    begin = depth = 0
    for token in _TOKENS.finditer(raw):
        mark = raw[token.start()]
        if mark in b"[{":
            depth += 1
            if depth == levels + 1:
                kept.append(raw[begin : token.start()])
        elif mark in b"]}":
            if depth == levels + 1:
                kept.append(b"null")
                begin = token.end()
            depth -= 1
    if depth > levels:
        return raw  # it never closes, and is no JSON
    return b"".join([*kept, raw[begin:]])


def without_lone_surrogates(raw: bytes) -> bytes:
    """Return the JSON with a replacement character for each half of a character that lacks the
    other.

    Senders that cut a prompt to length cut through characters, and write the half as an escape.
    """
    if b"\\ud" not in raw and b"\\uD" not in raw:
        return raw
    return _ESCAPES.sub(lambda escape: _REPLACEMENT if escape[1] else escape[0], raw)


def _cut(body: bytes, error: Exception) -> list[bytes]:
    """Return the items between the commas of the outermost array, by looking at brackets alone."""
    refusal = MalformedBody("malformed_json", f"The body is not JSON: {error}.")
    if body.count(b"{") + body.count(b"[") > _BRACKETS_MAX:
        raise refusal from error
    marks = list(_outermost(body))
    items = [body[begin + 1 : end] for begin, end in pairwise(marks)]
    # What is no object is a fault of the array, not of one item in it.
    is_array = bool(marks) and not body[: marks[0]].strip() and body[marks[0]] in b"["
    is_closed = is_array and body[marks[-1]] in b"]" and not body[marks[-1] + 1 :].strip()
    if not is_closed or not all(item.strip()[:1] == b"{" for item in items):
        raise refusal from error
    return items


def _outermost(body: bytes) -> Iterator[int]:
    """Yield where the outermost brackets and the commas between them stand."""
    depth = 0
    for token in _TOKENS.finditer(body):
        at = token.start()
        mark = body[at]
        if mark in b"[{":
            depth += 1
            if depth == 1:
                yield at
        elif mark in b"]}":
            if depth == 1:
                yield at
            depth -= 1
        elif mark in b"," and depth == 1:
            yield at
