"""Cursors of lists: where a page ended, and what it was a page of."""

import base64
import binascii
import hashlib
import json
from datetime import datetime
from typing import Any

from metering.reporting.question import InvalidQuestion


def fingerprint(*parts: Any) -> str:
    """A short mark of what was asked, so that a cursor is not used for another question."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_cursor(question: str, position: dict[str, Any]) -> str:
    """Where the page of this question ended, as text without meaning to others."""
    text = json.dumps([question, position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str) -> tuple[str, dict[str, Any]]:
    """The mark of the question and the position. Raises InvalidQuestion when it is none of ours."""
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
    """What a position says of the range of its question."""
    return {"range": [starts_at.isoformat(), ends_at.isoformat()]}


def range_of_cursor(cursor: str) -> tuple[datetime, datetime]:
    """The range of the question that a cursor belongs to: defaults move on between two pages."""
    _, position = read_cursor(cursor)
    try:
        starts_at, ends_at = (datetime.fromisoformat(text) for text in position["range"])
    except (KeyError, TypeError, ValueError) as error:
        raise foreign_cursor() from error
    if starts_at.tzinfo is None or ends_at.tzinfo is None:
        raise foreign_cursor()
    return starts_at, ends_at


def foreign_cursor() -> InvalidQuestion:
    """The refusal of a cursor."""
    return InvalidQuestion(
        "invalid_cursor", "cursor is the next_cursor of the same question, unchanged."
    )
