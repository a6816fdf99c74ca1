"""Cursors of reports: where a page ended, and which question it is a page of."""

import hashlib
import json
from datetime import datetime
from typing import Any

from common import cursors
from common.cursors import InvalidCursor


def fingerprint(*parts: Any) -> str:
    """Return a short mark of a question, so that its cursors serve no other."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_cursor(question: str, position: dict[str, Any]) -> str:
    """Return where the page of this question ended as text."""
    return cursors.write_cursor([question, position])


def read_cursor(text: str) -> tuple[str, dict[str, Any]]:
    """Return the mark of the question and the position. Raises InvalidCursor."""
    match cursors.read_cursor(text):
        case [str(question), dict(position)]:
            return question, position
    raise InvalidCursor


def range_part(starts_at: datetime, ends_at: datetime) -> dict[str, Any]:
    """Return what a position says of the range of its question."""
    return {"range": [starts_at.isoformat(), ends_at.isoformat()]}


def range_of_cursor(cursor: str) -> tuple[datetime, datetime]:
    """Return the range of the question that a cursor belongs to: defaults move on between two
    pages.
    """
    _, position = read_cursor(cursor)
    try:
        starts_at, ends_at = (datetime.fromisoformat(text) for text in position["range"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidCursor from error
    if starts_at.tzinfo is None or ends_at.tzinfo is None:
        raise InvalidCursor
    return starts_at, ends_at
