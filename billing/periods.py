"""When a subscription's periods begin and end, and what parts they have. Pure: no clock, no
database.

Two stretches of time make a period: the scheduled one, which is a whole month, quarter or year by
the plan's calendar, and what the subscription covers of it.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from billing.terms import Version
from metering.core.periods import PeriodClock

# The anchor of periods that begin on the subscription's day of the month.
ON_SUBSCRIPTION: Final = "subscription"
_MICROSECOND: Final = timedelta(microseconds=1)


class Period(NamedTuple):
    """A scheduled period, by which statements are merged, and what a subscription covers of it.
    Times are in UTC; ends are not included.
    """

    scheduled_start: datetime
    scheduled_end: datetime
    starts_at: datetime
    ends_at: datetime


class Part(NamedTuple):
    """A part of a period under one version, in the trial or after it, with its share of the whole
    scheduled period by days and by seconds.
    """

    version: Version
    starts_at: datetime
    ends_at: datetime
    is_trial: bool
    day_share: Fraction
    second_share: Fraction


class Schedule:
    """The periods of a subscription, in the plan's time zone.

    `interval` is month, quarter or year. With the anchor `subscription` each period begins at
    midnight of the day of the month on which the subscription began, or of the last day of a
    shorter month. The first begins when the subscription does, and the last ends when it does.
    """

    def __init__(
        self,
        *,
        interval: str,
        anchor: str,
        timezone: str,
        starts_at: datetime,
        ends_at: datetime | None = None,
    ) -> None:
        assert ends_at is None or starts_at <= ends_at, "no subscription ends before it begins"
        self._zone = ZoneInfo(timezone)
        self.starts_at = starts_at.astimezone(UTC)
        self.ends_at = None if ends_at is None else ends_at.astimezone(UTC)
        anchor_at = self._midnight(starts_at) if anchor == ON_SUBSCRIPTION else None
        self._clock = PeriodClock(period=interval, timezone=timezone, anchor_at=anchor_at)

    def period_at(self, at: datetime) -> Period | None:
        """Return the period that holds a moment; None where the subscription does not."""
        if at < self.starts_at or (self.ends_at is not None and at >= self.ends_at):
            return None
        scheduled_start, scheduled_end = self._clock.span(at)
        assert scheduled_end is not None, "no plan is for life"
        return Period(
            scheduled_start=scheduled_start,
            scheduled_end=scheduled_end,
            starts_at=max(scheduled_start, self.starts_at),
            ends_at=scheduled_end if self.ends_at is None else min(scheduled_end, self.ends_at),
        )

    def periods_between(self, starts_at: datetime, ends_at: datetime) -> Iterator[Period]:
        """Yield the periods that hold a moment from `starts_at` up to `ends_at`, oldest first."""
        at = max(starts_at, self.starts_at)
        while at < ends_at and (period := self.period_at(at)) is not None:
            yield period
            at = period.ends_at

    def cut(self, starts_at: datetime, ends_at: datetime) -> Period | None:
        """Return what the subscription covers of a period of someone's own; None: nothing."""
        first = max(starts_at, self.starts_at)
        last = ends_at if self.ends_at is None else min(ends_at, self.ends_at)
        return Period(starts_at, ends_at, first, last) if first < last else None

    def trial_end(self, days: int) -> datetime | None:
        """Return when a trial ends: this many days after the subscription began, at the same local
        time of day. None without days.
        """
        local = self.starts_at.astimezone(self._zone)
        return (local + timedelta(days=days)).astimezone(UTC) if days else None

    def parts(
        self,
        period: Period,
        versions: Sequence[Version],
        trial_ends_at: datetime | None = None,
    ) -> list[Part]:
        """Split a period where a version begins and where the trial ends.

        Versions are in order; the first is also in force before its begin.

        A part's days are the local dates from that on which it begins up to that on which it ends,
        which is not included: the day of a change counts whole for the part that begins on it. So
        however a period is cut, also among several subscriptions, the days of all parts add up to
        no more than the whole.
        """
        assert versions, "a plan has a version"
        cuts = {trial_ends_at, *(version.starts_at for version in versions)}
        inside = sorted(
            cut.astimezone(UTC)
            for cut in cuts
            if cut is not None and period.starts_at < cut < period.ends_at
        )
        bounds = [period.starts_at, *inside, period.ends_at]
        scheduled = (period.scheduled_start, period.scheduled_end)
        return [
            Part(
                version=version_at(versions, starts_at),
                starts_at=starts_at,
                ends_at=ends_at,
                is_trial=trial_ends_at is not None and starts_at < trial_ends_at,
                day_share=Fraction(self._days(starts_at, ends_at), self._days(*scheduled)),
                second_share=Fraction(_micros(starts_at, ends_at), _micros(*scheduled)),
            )
            for starts_at, ends_at in pairwise(bounds)
        ]

    def _midnight(self, at: datetime) -> datetime:
        local = at.astimezone(self._zone)
        return local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)

    def _days(self, starts_at: datetime, ends_at: datetime) -> int:
        first, end = (at.astimezone(self._zone).date() for at in (starts_at, ends_at))
        return (end - first).days


def version_at(versions: Sequence[Version], at: datetime) -> Version:
    """Return the version in force at a moment: the last that has begun, else the first."""
    begun = [
        version for version in versions if version.starts_at is not None and version.starts_at <= at
    ]
    return begun[-1] if begun else versions[0]


def _micros(starts_at: datetime, ends_at: datetime) -> int:
    return (ends_at - starts_at) // _MICROSECOND
