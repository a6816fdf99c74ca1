"""Cursors of lists: where a page ended, and what it was a page of."""

import base64
import binascii
import hashlib
import json
from typing import Any

from metering.queries.question import InvalidQuestion


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
        question, position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise foreign_cursor() from error
    if not isinstance(question, str) or not isinstance(position, dict):
        raise foreign_cursor()
    return question, position


def foreign_cursor() -> InvalidQuestion:
    """The refusal of a cursor."""
    return InvalidQuestion(
        "invalid_cursor", "cursor is the next_cursor of the same question, unchanged."
    )
