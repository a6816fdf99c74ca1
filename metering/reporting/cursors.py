"""Cursors of lists: where a page ended, and what it was a page of."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from metering.reporting.question import InvalidQuestion

Row = TypeVar("Row")
Position = TypeVar("Position")


class Page(NamedTuple, Generic[Row]):
    """A page of a list; without a cursor it is the last one."""

    rows: Sequence[Row]
    next_cursor: str | None


def cut_page(
    rows: Sequence[Row],
    *,
    limit: int,
    question: str,
    after: Callable[[Row], msgspec.Struct],
    bounds: tuple[datetime, datetime] | None = None,
) -> Page[Row]:
    """Return the page of these rows, of which one more was read than fits.

    `after` is the sort key of a row. With `bounds`, `range_of_cursor` finds the range again.
    """
    page = rows[:limit]
    if len(page) == len(rows):
        return Page(page, None)
    key = msgspec.to_builtins(after(page[-1]))
    range_ = {} if bounds is None else range_part(*bounds)
    return Page(page, write_cursor(question, {**range_, "after": key}))


def position_after(cursor: str, question: str, kind: type[Position]) -> Position:
    """Return the sort key at which the page before ended. Raises InvalidQuestion for a cursor of
    another question, or a key that is not of this kind.
    """
    asked, position = read_cursor(cursor)
    if asked != question:
        raise foreign_cursor()
    try:
        return msgspec.convert(position.get("after"), kind)
    except msgspec.ValidationError as error:
        raise foreign_cursor() from error


def fingerprint(*parts: Any) -> str:
    """Return a short mark of a question, so that its cursor is not used for another one."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_cursor(question: str, position: dict[str, Any]) -> str:
    """Return where the page of this question ended, as text that clients hand back unread."""
    text = json.dumps([question, position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str) -> tuple[str, dict[str, Any]]:
    """Return the mark of the question and the position. Raises InvalidQuestion."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        read = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        question, position = read
        # Half surrogates, which JSON can name and no text can hold.
        written = json.dumps(read, ensure_ascii=False).encode()
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise foreign_cursor() from error
    is_ours = isinstance(question, str) and isinstance(position, dict)
    if not is_ours or b"\\u0000" in written:
        raise foreign_cursor()
    return question, position


def range_part(starts_at: datetime, ends_at: datetime) -> dict[str, Any]:
    """Return what a position says of the range of its question."""
    return {"range": [starts_at.isoformat(), ends_at.isoformat()]}


def range_of_cursor(cursor: str) -> tuple[datetime, datetime]:
    """Return the range of a cursor's question: default ranges move on between two pages."""
    _, position = read_cursor(cursor)
    try:
        starts_at, ends_at = (datetime.fromisoformat(text) for text in position["range"])
    except (KeyError, TypeError, ValueError) as error:
        raise foreign_cursor() from error
    if starts_at.tzinfo is None or ends_at.tzinfo is None:
        raise foreign_cursor()
    return starts_at, ends_at


def foreign_cursor() -> InvalidQuestion:
    """Return the refusal of a cursor."""
    return InvalidQuestion(
        "invalid_cursor", "cursor is the next_cursor of the same question, unchanged."
    )
