"""Times at the edge: RFC 3339 with a zone, read the same way wherever one comes in."""

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import cache
from typing import Final
from zoneinfo import available_timezones

from django.core.exceptions import ValidationError

from common.expectations import TIMESTAMP

# With the two liberties that msgspec takes in events: a space for the T, which RFC 3339 allows and
# Python writes, and an offset without its colon.
_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))"
)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LENGTH_MAX: Final = 64
# Of times that people and programs set; arithmetic with them stays far from where dates end.
_YEARS: Final = range(1970, 2201)
YEAR: Final = f"must lie in the years {_YEARS[0]} to {_YEARS[-1]}"


@cache
def zone_names() -> frozenset[str]:
    """Return every time zone, for which Python reads a folder of files. `localtime`, which is also
    there, is what a machine is set to, and PostgreSQL does not know it; `Factory` is a machine that
    is not set.
    """
    return frozenset(available_timezones() - {"localtime", "Factory"})


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


def is_known_year(at: date) -> bool:
    """Whether a time lies in the years that are reckoned with."""
    return at.year in _YEARS


def require_known_year(at: datetime) -> None:
    """Validate a time of a form. Raises ValidationError."""
    if not is_known_year(at):
        raise ValidationError(f"{YEAR[0].upper()}{YEAR[1:]}.")


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
