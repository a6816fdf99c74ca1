"""Cursors of reports: where a page ended, and which question it is a page of."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Generic, NamedTuple, TypeVar

import msgspec

from common import cursors
from common.cursors import InvalidCursor

Row = TypeVar("Row")
Position = TypeVar("Position")
Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Page(NamedTuple, Generic[Row]):
    """A page of a list; without a cursor it is the last one."""

    rows: Sequence[Row]
    next_cursor: str | None


def cut_page(
    rows: Sequence[Row],
    *,
    limit: int,
    question: str,
    after: Callable[[Row], object],
    bounds: tuple[datetime, datetime] | None = None,
) -> Page[Row]:
    """Return the page of these rows, of which one more was read than fits.

    `after` is the sort key of a row. With `bounds`, `range_of_cursor` finds the range again.
    """
    page = rows[:limit]
    if len(page) == len(rows):
        return Page(page, None)
    range_ = {} if bounds is None else {"range": bounds}
    return Page(page, write_cursor(question, {**range_, "after": after(page[-1])}))


def position_after(cursor: str, question: str, kind: type[Position]) -> Position:
    """Return the sort key at which the page before ended. Raises InvalidCursor for one of
    another question, or a key that is not of this kind.
    """
    mark, position = read_cursor(cursor)
    if mark != question:
        raise InvalidCursor
    try:
        return msgspec.convert(position.get("after"), kind)
    except msgspec.ValidationError as error:
        raise InvalidCursor from error


def fingerprint(*parts: object) -> str:
    """Return a short mark of a question, so that its cursors serve no other."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_cursor(question: str, position: Mapping[str, object]) -> str:
    """Return where the page of this question ended as text."""
    return cursors.write_cursor([question, position])


def read_cursor(text: str) -> tuple[str, dict[str, object]]:
    """Return the mark of the question and the position. Raises InvalidCursor."""
    match cursors.read_cursor(text):
        case [str(question), dict(position)]:
            return question, position
    raise InvalidCursor


def range_of_cursor(cursor: str) -> tuple[datetime, datetime]:
    """Return the range of the question that a cursor belongs to: defaults move on between two
    pages.
    """
    _, position = read_cursor(cursor)
    try:
        return msgspec.convert(position.get("range"), tuple[Time, Time])
    except msgspec.ValidationError as error:
        raise InvalidCursor from error
