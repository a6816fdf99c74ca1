"""The range that a range is compared with: the same elapsed time before it. Pure.

By months where the interval is one, else by the fewest whole days (with weeks: whole weeks) that
lie between, all by the wall clock of the question's zone: today until now is compared with
yesterday until the same time. Neighboring buckets stay neighbors, so every moment before counts
in one bucket only: where a clock change repeats an hour, the second one has nothing before it;
where the day before has an hour twice or lacks it, the bucket is so much longer or shorter.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta

from metering.core.periods import PeriodClock, floor_seconds
from metering.reporting.intervals import Bucket
from metering.reporting.question import UsageQuestion, check_range
from metering.rollups.sets import QUARTER_SECONDS

_QUARTER: Final = timedelta(seconds=QUARTER_SECONDS)
_MOMENT: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)
_WEEK: Final = timedelta(weeks=1)


class Comparison:
    """Finds the bucket before each bucket of a question. Raises InvalidQuestion if the range before
    begins too early.
    """

    def __init__(self, question: UsageQuestion, *, now: datetime) -> None:
        self._zone = ZoneInfo(question.timezone)
        self._now = now
        self._until = question.ends_at
        if question.starts_at < now < question.ends_at:
            self._until = now
        self._months: PeriodClock | None = None
        if question.interval == "month":
            self._months = PeriodClock(period="month", timezone=question.timezone)
        self._step = self._step_of(question)
        self.starts_at = self._before(question.starts_at, is_end=False)
        self.ends_at = self._before(self._until)
        check_range(self.starts_at, max(self.ends_at, self.starts_at + _MOMENT))

    def bucket(self, bucket: Bucket) -> Bucket:
        """Return what a bucket is compared with. It may be empty."""
        reads_from = self._before(min(bucket.reads_from, self._until), is_end=False)
        reads_to = self._before(min(bucket.reads_to, self._until))
        return Bucket(reads_from, reads_from, max(reads_from, reads_to))

    def buckets(self, buckets: Iterable[Bucket]) -> list[Bucket]:
        """Return what each of these is compared with."""
        return [self.bucket(bucket) for bucket in buckets]

    def _step_of(self, question: UsageQuestion) -> relativedelta | timedelta:
        first, last = question.starts_at, self._until - _MOMENT
        if self._months is not None:
            begins, ends = first.astimezone(self._zone), last.astimezone(self._zone)
            months = (ends.year - begins.year) * 12 + ends.month - begins.month + 1
            return relativedelta(months=months)
        unit = _WEEK if question.interval == "week" else _DAY
        elapsed = self._wall(self._until) - self._wall(first)
        return max(1, -(-elapsed // unit)) * unit

    def _before(self, at: datetime, *, is_end: bool = True) -> datetime:
        if self._months is None:
            return self._instant(self._wall(at) - self._step)
        month = self._months.span(at - _MOMENT if is_end else at)
        assert month.ends_at is not None, "a month ends"
        earlier = self._months.span(self._instant(self._wall(month.starts_at) - self._step))
        assert earlier.ends_at is not None, "a month ends"
        if at == month.ends_at:
            return earlier.ends_at
        elapsed = self._wall(at) - self._wall(month.starts_at)
        return min(self._instant(self._wall(earlier.starts_at) + elapsed), earlier.ends_at)

    def _wall(self, at: datetime) -> datetime:
        """Return what the clock shows when the moment comes; it stands still at its latest while an
        hour is repeated.
        """
        local = (at - _MOMENT).astimezone(self._zone)
        if not local.fold:
            return local.replace(tzinfo=None) + _MOMENT
        before = floor_seconds(at - _MOMENT, QUARTER_SECONDS)
        while before.astimezone(self._zone).fold:
            before -= _QUARTER
        return before.astimezone(self._zone).replace(tzinfo=None) + _QUARTER

    def _instant(self, wall: datetime) -> datetime:
        """Return when the clock first shows this, or passes over it."""
        at = wall.replace(tzinfo=self._zone).astimezone(UTC)
        if at.astimezone(self._zone).replace(tzinfo=None) == wall:
            return at
        seconds = wall.hour * 3600 + wall.minute * 60 + wall.second
        before = wall.replace(microsecond=0) - timedelta(seconds=seconds % QUARTER_SECONDS)
        while (at := _utc(before, self._zone)).astimezone(self._zone).replace(
            tzinfo=None
        ) != before:
            before -= _QUARTER
        return at + _QUARTER


def _utc(wall: datetime, zone: ZoneInfo) -> datetime:
    return wall.replace(tzinfo=zone).astimezone(UTC)


def range_before(question: UsageQuestion, *, now: datetime) -> tuple[datetime, datetime]:
    """Return the range that the question's is compared with."""
    comparison = Comparison(question, now=now)
    return comparison.starts_at, comparison.ends_at
