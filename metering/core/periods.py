"""When a budget's windows begin and end. Pure: no database, no clock."""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Every zone's offset and every clock change is a multiple of this, so within it a period cannot
# change.
QUANTUM_SECONDS: Final = 900
KNOWN_QUANTA_MAX: Final = 20_000

STEPS: Final[dict[str, relativedelta]] = {
    "hour": relativedelta(hours=1),
    "day": relativedelta(days=1),
    "week": relativedelta(weeks=1),
    "month": relativedelta(months=1),
    "quarter": relativedelta(months=3),
    "year": relativedelta(years=1),
}
# How long a rolling window looks back.
ROLLING_SECONDS: Final = {
    "hour": 3600,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 30 * 86_400,
    "quarter": 91 * 86_400,
    "year": 365 * 86_400,
}
# In what portions usage leaves a rolling window: a window looks back its length and up to one grain
# more.
GRAIN_SECONDS: Final = {
    "hour": 60,
    "day": 900,
    "week": 3600,
    "month": 6 * 3600,
    "quarter": 86_400,
    "year": 86_400,
}


class Span(NamedTuple):
    """A stretch of time, its end excluded; no end means forever."""

    starts_at: datetime
    ends_at: datetime | None


class PeriodClock:
    """Tells which period a time falls into.

    Calendar periods begin at the zone's midnight (weeks on Monday), whatever the clock does then:
    a day has 23, 24 or 25 hours. With an anchor, periods begin at the anchor and its repetitions by
    the zone's wall clock; a month from the 31st begins on the last day of a shorter month.
    """

    def __init__(self, *, period: str, timezone: str, anchor_at: datetime | None = None) -> None:
        assert period in STEPS or period == "lifetime", period
        self.period = period
        self.zone = ZoneInfo(timezone)
        self.anchor = anchor_at.astimezone(self.zone) if anchor_at is not None else None
        self._known: dict[int, Span] = {}
        self.is_aligned = anchor_at is None or anchor_at.timestamp() % QUANTUM_SECONDS == 0

    def span(self, at: datetime) -> Span:
        """The period that holds `at` (aware); its ends in UTC."""
        if not self.is_aligned:
            return self._span(at)
        quantum = int(at.timestamp()) // QUANTUM_SECONDS
        known = self._known.get(quantum)
        if known is None:
            if len(self._known) >= KNOWN_QUANTA_MAX:
                self._known.clear()
            known = self._known[quantum] = self._span(at)
        return known

    def before(self, span: Span) -> Span:
        """The period that ends where this one begins."""
        return self.span(span.starts_at - timedelta(microseconds=1))

    def _span(self, at: datetime) -> Span:
        if self.period == "lifetime":
            return Span(EPOCH, None)
        local = at.astimezone(self.zone)
        if self.anchor is not None:
            return self._anchored(at)
        if self.period == "hour":
            # In UTC from the local full hour, so that the hour which a clock change repeats is two
            # hours.
            starts_at = at.astimezone(UTC) - timedelta(
                minutes=local.minute, seconds=local.second, microseconds=local.microsecond
            )
            ends_at = starts_at + timedelta(hours=1)
            # After a change by half an hour, the hour before it is over: this one begins there.
            change = _offset(at, self.zone) - _offset(starts_at, self.zone)
            return Span(starts_at + abs(change), ends_at)
        first = self._calendar_start(local)
        return Span(_utc(first), _utc(first + STEPS[self.period]))

    def _calendar_start(self, local: datetime) -> datetime:
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if self.period == "week":
            return midnight - timedelta(days=local.weekday())
        if self.period == "month":
            return midnight.replace(day=1)
        if self.period == "quarter":
            return midnight.replace(day=1, month=local.month - (local.month - 1) % 3)
        if self.period == "year":
            return midnight.replace(day=1, month=1)
        return midnight

    def _anchored(self, at: datetime) -> Span:
        assert self.anchor is not None
        if self.period == "hour":
            seconds = (at - self.anchor).total_seconds() // 3600 * 3600
            starts_at = self.anchor.astimezone(UTC) + timedelta(seconds=seconds)
            return Span(starts_at, starts_at + timedelta(hours=1))
        step = STEPS[self.period]
        count = self._guess_count(at, step)
        while _utc(self.anchor + step * count) > at:
            count -= 1
        while _utc(self.anchor + step * (count + 1)) <= at:
            count += 1
        # Counted from the anchor each time, so that a short month does not shift all later ones.
        return Span(_utc(self.anchor + step * count), _utc(self.anchor + step * (count + 1)))

    def _guess_count(self, at: datetime, step: relativedelta) -> int:
        assert self.anchor is not None
        months = step.months + 12 * step.years
        if months:
            local = at.astimezone(self.zone)
            passed = (local.year - self.anchor.year) * 12 + local.month - self.anchor.month
            return passed // months
        return int((at - self.anchor).total_seconds() // (step.days * 86_400))


def _utc(local: datetime) -> datetime:
    return local.astimezone(UTC)


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    offset = at.astimezone(zone).utcoffset()
    assert offset is not None, "a zone has an offset"
    return offset


def floor_seconds(at: datetime, seconds: int) -> datetime:
    """The last multiple of `seconds` since the epoch that is not after `at`, in UTC."""
    return datetime.fromtimestamp(int(at.timestamp()) // seconds * seconds, UTC)
