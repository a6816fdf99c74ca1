"""Cursors of usage: where a page ended, and which groups the pages before it have shown."""

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final

from common.cursors import InvalidCursor
from metering.reporting.cursors import fingerprint, range_part, read_cursor
from metering.reporting.question import UsageQuestion

# The number of groups a cursor names, so that an address with it stays below 8 KB.
SHOWN_MAX: Final = 600
MARK_BYTES: Final = 6
MARK_CHARACTERS: Final = 8


def mark_of_question(question: UsageQuestion) -> str:
    """Return what tells this question from others in a cursor."""
    return fingerprint(
        question.group_by,
        question.interval,
        question.timezone,
        {name: sorted(values) for name, values in question.filters.items()},
        question.starts_at,
        question.ends_at,
    )


def mark_of_group(key: Sequence[str]) -> str:
    """Return a group in few characters: that one of a million is taken for another happens in one
    of 400,000 listings.
    """
    digest = blake2b("\x00".join(key).encode(), digest_size=MARK_BYTES).digest()
    return urlsafe_b64encode(digest).decode()


def shown_by(position: dict[str, Any] | None) -> list[str]:
    """Return the marks of the groups that earlier pages have shown while they came by cost."""
    text = "" if position is None else position.get("shown", "")
    return [text[at : at + MARK_CHARACTERS] for at in range(0, len(text), MARK_CHARACTERS)]


def end_of_page(
    question: UsageQuestion,
    page: Sequence[Sequence[str]],
    *,
    start: datetime,
    before: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return where a page of groups ended that began after `before`; its last row is of `start`."""
    end: dict[str, Any] = {
        **range_part(question.starts_at, question.ends_at),
        "start": start.isoformat(),
        "group": list(page[-1]),
    }
    if question.interval != "none":
        return end
    shown = shown_by(before)
    if before is None or "group" not in before:
        shown += [mark_of_group(key) for key in page]
        # What follows comes by cost as long as its marks find room, too.
        if len(shown) + len(page) <= SHOWN_MAX:
            del end["group"]
        else:
            # Beyond what is named, groups come by their values, from the first one on.
            end["group"] = []
    return {**end, "shown": "".join(shown)}


def position_of(cursor: str | None, mark: str, question: UsageQuestion) -> dict[str, Any] | None:
    """Return where the page before ended, None without one. Raises InvalidQuestion for a cursor of
    another question.
    """
    if cursor is None:
        return None
    asked, position = read_cursor(cursor)
    if asked != mark or not _is_position(position, question):
        raise InvalidCursor
    return position


def _is_position(position: dict[str, Any], question: UsageQuestion) -> bool:
    is_by_cost = question.interval == "none"
    group = position.get("group", [] if is_by_cost else None)
    widths = {0, len(question.group_by)} if is_by_cost else {len(question.group_by)}
    try:
        datetime.fromisoformat(position["start"]).astimezone()
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    return (
        isinstance(group, list)
        and len(group) in widths
        and all(isinstance(value, str) for value in group)
        and isinstance(position.get("shown", ""), str)
    )
