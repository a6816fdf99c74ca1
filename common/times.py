"""Times at the edge: RFC 3339 with a zone, read the same way wherever one comes in."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from common.expectations import TIMESTAMP

# With the two liberties that msgspec takes in events: a space for the T, which RFC 3339 allows and
# Python writes, and an offset without its colon.
_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))"
)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LENGTH_MAX: Final = 64


def parse_timestamp(text: str) -> datetime:
    """The time, in the zone it names. Raises ValueError with a sentence for what is none.

    Digits finer than a microsecond are cut off, never rounded: the last moment of a day stays in
    that day. So does a leap second, which is read as the last microsecond before it ends the
    minute, since no clock here has a place for it.
    """
    match = _TIME.fullmatch(text) if len(text) <= _LENGTH_MAX else None
    if match is None:
        raise ValueError(TIMESTAMP)
    year, month, day, hour, minute, second = (int(digits) for digits in match.groups()[:6])
    micros = int((match[7] or "")[:6].ljust(6, "0"))
    zone = _zone(match)
    if second == 60:
        _require_leap_second(minute)
        second, micros = 59, 999_999
    try:
        return datetime(year, month, day, hour, minute, second, micros, tzinfo=zone)
    except ValueError as error:
        raise ValueError(f"must exist: {error}") from error


def parse_timestamp_or_date(text: str) -> datetime:
    """As `parse_timestamp`; a date alone is its first moment in UTC."""
    return parse_timestamp(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)


def _zone(match: re.Match[str]) -> tzinfo:
    if match[8] is None:
        return UTC
    hours, minutes = int(match[9]), int(match[10])
    if hours > 23 or minutes > 59:
        raise ValueError("must have an offset from -23:59 to +23:59")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if match[8] == "-" else offset)


def _require_leap_second(minute: int) -> None:
    """Leap seconds end an hour of UTC, which is a half or quarter one in some zones."""
    if minute % 15 != 14:
        raise ValueError("must have seconds from 00 to 59, or 60 where a leap second may be")
