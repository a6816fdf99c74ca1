"""The buckets of an interval, in a time zone. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from metering.core.periods import PeriodClock, Span, floor_seconds
from metering.rollups.sets import QUARTER_SECONDS


class Bucket(NamedTuple):
    """A bucket as its interval has it, and the part of it that was asked for."""

    start: datetime
    reads_from: datetime
    reads_to: datetime


def buckets(
    *, interval: str, timezone: str, starts_at: datetime, ends_at: datetime
) -> Iterator[Bucket]:
    """Yield the buckets that hold the range, in order; the first and the last are cut to it."""
    if interval == "none":
        yield Bucket(starts_at, starts_at, ends_at)
        return
    clock = None if interval == "15min" else PeriodClock(period=interval, timezone=timezone)
    at = starts_at
    while at < ends_at:
        quarter = floor_seconds(at, QUARTER_SECONDS)
        quarter_span = Span(quarter, quarter + timedelta(seconds=QUARTER_SECONDS))
        start, end = quarter_span if clock is None else clock.span(at)
        assert end is not None, "an interval ends"
        yield Bucket(start, max(start, starts_at), min(end, ends_at))
        at = end
