"""Cursors of usage: where a page ended, and which groups the pages before it have shown."""

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Final

import msgspec

from common.cursors import InvalidCursor
from metering.reporting.cursors import Time, fingerprint, position_after
from metering.reporting.question import UsageQuestion

# The number of groups a cursor names, so that an address with it stays below 8 KB.
SHOWN_MAX: Final = 600
MARK_BYTES: Final = 6
MARK_CHARACTERS: Final = 8


class UsagePosition(msgspec.Struct):
    """Where a page ended: at a bucket and, unless rows come by cost, a group. `shown` has the marks
    of the groups that came by cost.
    """

    start: Time
    group: list[str] | None
    shown: str = ""


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


def shown_by(position: UsagePosition | None) -> list[str]:
    """Return the marks of the groups that earlier pages have shown while they came by cost."""
    text = "" if position is None else position.shown
    return [text[at : at + MARK_CHARACTERS] for at in range(0, len(text), MARK_CHARACTERS)]


def end_of_page(
    question: UsageQuestion,
    keys: Sequence[Sequence[str]],
    *,
    start: datetime,
    before: UsagePosition | None,
) -> UsagePosition:
    """Return where a page of groups ended that began after `before`; its last row is of `start`."""
    end = UsagePosition(start, list(keys[-1]))
    if question.interval != "none":
        return end
    shown = shown_by(before)
    if before is None or before.group is None:
        shown += map(mark_of_group, keys)
        # What follows comes by cost as long as its marks find room, too. Beyond what is named,
        # groups come by their values, from the first one on.
        end.group = None if len(shown) + len(keys) <= SHOWN_MAX else []
    end.shown = "".join(shown)
    return end


def position_of(cursor: str | None, mark: str, question: UsageQuestion) -> UsagePosition | None:
    """Return where the page before ended, None without one. Raises InvalidCursor for a cursor of
    another question.
    """
    if cursor is None:
        return None
    position = position_after(cursor, mark, UsagePosition)
    is_by_cost = question.interval == "none"
    width = None if position.group is None else len(position.group)
    if width != len(question.group_by) and not (is_by_cost and width in (None, 0)):
        raise InvalidCursor
    return position
