"""What a period will have cost when it ends, by the run rate of the weeks before."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import dropwhile
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from django.utils import timezone as clock

from metering.calls.seals import read_sealed
from metering.core.periods import PeriodClock, Span
from metering.reporting.bounded import require_few_events
from metering.reporting.intervals import Bucket
from metering.reporting.kept import require_sums
from metering.reporting.question import EVERYTHING, Filters, InvalidQuestion, UsageQuestion
from metering.reporting.run_rate import HISTORY_DAYS_MAX, PastDay, outlook
from metering.reporting.sources import has_quarters, sets_for
from metering.reporting.usage import Measures, measures_in, total_usage
from metering.reporting.usage_branches import hides_values
from metering.rollups.sets import QUARTER_SECONDS
from tenants.scope import once_a_snapshot

PERIODS: Final = ("day", "week", "month", "quarter")


class Forecast(NamedTuple):
    """What was spent in a period so far, and what is expected at its end, with a band of 80%."""

    period_start: datetime
    period_end: datetime
    spent_nanos: int
    forecast_nanos: int
    low_nanos: int
    high_nanos: int
    method: str


def forecast(
    *,
    tenant_id: int,
    period: str,
    timezone: str,
    filters: Filters = EVERYTHING,
    now: datetime | None = None,
) -> Forecast:
    """Return the forecast of the present day, week, month or quarter of a zone. Raises
    InvalidQuestion.
    """
    now = now or clock.now()
    if period not in PERIODS:
        raise InvalidQuestion("unknown_period", f"period is one of {', '.join(PERIODS)}.")
    asked = UsageQuestion(
        tenant_id=tenant_id,
        starts_at=now - timedelta(days=1),
        ends_at=now,
        timezone=timezone,
        filters=filters,
    )
    starts_at, ends_at = PeriodClock(period=period, timezone=timezone).span(now)
    assert ends_at is not None, "a period of the calendar ends"
    days = PeriodClock(period="day", timezone=timezone)
    today = days.span(now)
    spent = _spent(asked, Span(starts_at, ends_at))
    zone = ZoneInfo(timezone)
    expected = outlook(
        _past_days(asked, now),
        today=today.starts_at.astimezone(zone).weekday(),
        to_come=_weekdays_to_come(days, today, ends_at, zone),
    )
    return Forecast(
        period_start=starts_at,
        period_end=ends_at,
        spent_nanos=spent,
        forecast_nanos=spent + expected.nanos,
        low_nanos=spent + expected.low_nanos,
        high_nanos=spent + expected.high_nanos,
        method=expected.method,
    )


def _spent(asked: UsageQuestion, period: Span) -> int:
    assert period.ends_at is not None, "a period of the calendar ends"
    whole = replace(asked, starts_at=period.starts_at, ends_at=period.ends_at, interval="none")
    require_sums(whole)
    return total_usage(whole).cost_nanos


def _weekdays_to_come(
    days: PeriodClock, today: Span, ends_at: datetime, zone: ZoneInfo
) -> list[int]:
    weekdays = []
    at = today.ends_at
    assert at is not None, "a day ends"
    while at < ends_at:
        weekdays.append(at.astimezone(zone).weekday())
        at = days.span(at).ends_at
        assert at is not None, "a day ends"
    return weekdays


@once_a_snapshot
def _past_days(asked: UsageQuestion, now: datetime) -> Sequence[PastDay]:
    """Return the days before today, from the first with usage on, each cut at the time of now.

    Where roll-ups have nothing but whole days of UTC, days are those, and evenly spent.
    """
    days = PeriodClock(period="day", timezone=asked.timezone)
    sets = sets_for(frozenset(asked.filters))
    are_days = bool(sets) and not has_quarters(sets)
    if are_days:
        days = PeriodClock(period="day", timezone="UTC")
    today = days.span(now)
    assert today.ends_at is not None, "a day ends"
    kept_from = read_sealed(asked.tenant_id).sealed_until
    past: list[Span] = []
    day = days.before(today)
    while len(past) < HISTORY_DAYS_MAX and day.starts_at >= kept_from:
        past.append(day)
        day = days.before(day)
    if not past:
        return []
    past.reverse()
    elapsed = now - today.starts_at
    history = replace(asked, starts_at=past[0].starts_at, ends_at=today.starts_at, interval="none")
    if not sets or hides_values(history, sets):
        require_few_events(history, [(history.starts_at, history.ends_at)], what="The past days")
    if are_days:
        cut = timedelta()
        rest_share = 1 - elapsed / (today.ends_at - today.starts_at)
    else:
        quarter = timedelta(seconds=QUARTER_SECONDS)
        cut, rest_share = -(-elapsed // quarter) * quarter, 1.0
    return _cut_days(history, past, days.zone, cut, rest_share)


def _cut_days(
    history: UsageQuestion, past: Sequence[Span], zone: ZoneInfo, cut: timedelta, rest_share: float
) -> list[PastDay]:
    """Return what each day cost, and the share of it that came `cut` after its start or later."""
    portion: list[Bucket] = []
    for starts_at, ends_at in past:
        assert ends_at is not None, "a day ends"
        cut_at = min(starts_at + cut, ends_at)
        portion += [Bucket(starts_at, starts_at, cut_at), Bucket(cut_at, cut_at, ends_at)]
    used = measures_in(history, portion, (), {()})
    read = []
    for index, day in enumerate(past):
        early = used.get((2 * index + 1, ()), Measures()).cost_nanos
        late = used.get((2 * index + 2, ()), Measures()).cost_nanos
        weekday = day.starts_at.astimezone(zone).weekday()
        read.append(PastDay(weekday, early + late, round(late * rest_share)))
    return list(dropwhile(lambda day: day.cost_nanos == 0, read))
