"""Months that margins are for, and how an amount is spread over those a line covers. Pure."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from fractions import Fraction
from functools import lru_cache
from zoneinfo import ZoneInfo

from billing.totals import to_minor


def next_month(month: date) -> date:
    """Return the first day of the month after one, which is given by its own."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def months_between(first: date, last: date) -> list[date]:
    """Return the first days of the months from one to another, both included."""
    months = []
    while first <= last:
        months.append(first)
        first = next_month(first)
    return months


# The lines of thousands of statements lie in few months.
@lru_cache(1_000)
def month_begin(month: date, timezone: str = "UTC") -> datetime:
    """Return when a month begins in a zone."""
    return datetime(month.year, month.month, 1, tzinfo=ZoneInfo(timezone)).astimezone(UTC)


def split(amount: int, weights: Sequence[int]) -> list[int]:
    """Return whole parts of an amount in proportion to these weights, which add up to it."""
    total = sum(weights)
    return to_minor([Fraction(amount * weight, total) for weight in weights], 0)


def spread(
    amount: int, starts_at: datetime, ends_at: datetime, timezone: str
) -> Iterator[tuple[date, int]]:
    """Yield what of an amount is for each calendar month in the zone that a line covers, by the
    seconds of each. The parts add up to the amount.
    """
    zone = ZoneInfo(timezone)
    month = starts_at.astimezone(zone).date().replace(day=1)
    if ends_at <= month_begin(next_month(month), timezone):
        yield month, amount
        return
    months: list[date] = []
    seconds: list[int] = []
    begin = starts_at
    while begin < ends_at or not months:
        end = min(ends_at, month_begin(next_month(month), timezone))
        months.append(month)
        seconds.append(max(1, int((end - begin).total_seconds())))
        begin, month = end, next_month(month)
    yield from zip(months, split(amount, seconds), strict=True)
