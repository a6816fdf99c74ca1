"""Cursors: what a page handed out is read again, and nothing else is."""

import base64
from datetime import UTC, datetime

import pytest

from common.cursors import InvalidCursor, read_cursor, read_sort_key, write_cursor

AT = datetime(2026, 11, 21, 12, 0, 0, 123, tzinfo=UTC)


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def test_a_sort_key_is_read_as_it_was_written() -> None:
    assert read_sort_key(write_cursor([AT, 7]), (datetime, int)) == (AT, 7)


@pytest.mark.parametrize(
    "text",
    ["", "x", "\u00e9", "WzFd!", encoded("[1"), encoded('["\\u0000"]'), encoded('["\\ud800"]')],
)
def test_what_no_page_handed_out_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        read_cursor(text)


@pytest.mark.parametrize(
    "text",
    ["null", "{}", "[]", "[1, 2]", "[true]", '["1"]', "[1.0]", str([2**63]), str([10**30])],
)
def test_another_sort_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        read_sort_key(encoded(text), (int,))


@pytest.mark.parametrize("text", ['["2026-11-21T12:00:00"]', '["0001-01-01T00:00:00+14:00"]'])
def test_a_time_without_a_zone_or_beyond_the_calendar_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        read_sort_key(encoded(text), (datetime,))
