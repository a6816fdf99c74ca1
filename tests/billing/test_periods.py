"""Periods of subscriptions: whole years of them, in every kind of zone, over every clock change."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from billing.periods import Period
from billing.terms import Terms, Version
from tests.billing.rating_scene import fee, rate_parts, schedule_of, terms_of, total_of
from tests.seed import dice

ZONES = (
    "UTC",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/New_York",
    "Europe/Berlin",
)
YEARS = (2024, 2025, 2026, 2027)
LENGTHS = {"month": 12, "quarter": 4, "year": 1}


@pytest.fixture
def terms() -> Terms:
    return terms_of(fee("310", when="advance"))


def local(zone: str, year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=ZoneInfo(zone))


def periods_of_year(zone: str, year: int, interval: str) -> list[Period]:
    schedule = schedule_of(local(zone, 2023, 6, 1), interval=interval, timezone=zone)
    return list(schedule.periods_between(local(zone, year, 1, 1), local(zone, year + 1, 1, 1)))


def clock_changes(zone: str, year: int) -> Iterator[datetime]:
    """The days of a year on which a zone's offset changes."""
    for number in range(366):
        at = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=number)
        offsets = {
            (at + timedelta(days=days)).astimezone(ZoneInfo(zone)).utcoffset() for days in (0, 1)
        }
        if len(offsets) == 2:
            yield at


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("year", YEARS)
def test_days_sum_to_months_and_months_to_the_year(zone: str, year: int) -> None:
    first, end = local(zone, year, 1, 1), local(zone, year + 1, 1, 1)
    for interval, count in LENGTHS.items():
        periods = periods_of_year(zone, year, interval)
        assert len(periods) == count
        assert (periods[0].starts_at, periods[-1].ends_at) == (first, end)
        assert all(before.ends_at == after.starts_at for before, after in pairwise(periods))
    # What falls into the days of a month is in the month, whatever the clock does.
    days = [
        local(zone, day.year, day.month, day.day)
        for day in (date(year, 1, 1) + timedelta(days=number) for number in range(367))
        if day <= date(year + 1, 1, 1)
    ]
    months = periods_of_year(zone, year, "month")
    seconds = dict.fromkeys(months, timedelta(0))
    for starts_at, ends_at in pairwise(days):
        (month,) = (each for each in months if each.starts_at <= starts_at < each.ends_at)
        seconds[month] += ends_at.astimezone(UTC) - starts_at.astimezone(UTC)
    assert all(month.ends_at - month.starts_at == seconds[month] for month in months)
    assert sum(seconds.values(), timedelta(0)) == end.astimezone(UTC) - first.astimezone(UTC)


@pytest.mark.parametrize("zone", ZONES)
def test_parts_of_days_sum_to_the_month_over_every_clock_change(zone: str, terms: Terms) -> None:
    changes = [at for year in YEARS for at in clock_changes(zone, year)]
    assert bool(changes) == (zone in ("Australia/Lord_Howe", "America/New_York", "Europe/Berlin"))
    schedule = schedule_of(local(zone, 2023, 6, 1), timezone=zone)
    for at in changes or [datetime(2026, 3, 29, tzinfo=UTC)]:
        period = schedule.period_at(at)
        assert period is not None
        for hours in range(-26, 50):
            cut = at + timedelta(hours=hours)
            if not period.starts_at < cut < period.ends_at:
                continue
            parts = schedule.parts(period, [Version(1, None, terms), Version(2, cut, terms)])
            assert sum(part.day_share for part in parts) == 1
            assert sum(part.second_share for part in parts) == 1
            days = (period.ends_at.astimezone(ZoneInfo(zone)) - timedelta(hours=3)).day
            begun = cut.astimezone(ZoneInfo(zone)).day - 1
            assert parts[0].day_share == Fraction(begun, days)
            assert total_of(rate_parts(parts, {}, {})) == 310


def test_periods_of_a_subscription_on_the_31st_never_drift() -> None:
    zone = "Europe/Berlin"
    schedule = schedule_of(local(zone, 2024, 1, 31, 15, 30), anchor="subscription", timezone=zone)
    begins = [
        period.scheduled_start.astimezone(ZoneInfo(zone))
        for period in schedule.periods_between(schedule.starts_at, local(zone, 2028, 1, 1))
    ]
    assert [begin.day for begin in begins[:13]] == [
        31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31,
    ]  # fmt: skip
    assert {begin.day for begin in begins if begin.month == 2} == {28, 29}
    assert {(begin.hour, begin.minute) for begin in begins} == {(0, 0)}


@pytest.mark.parametrize(
    ("interval", "begins"),
    [
        ("quarter", [date(2024, 2, 29), date(2024, 5, 29), date(2024, 8, 29), date(2024, 11, 29)]),
        ("year", [date(2024, 2, 29), date(2025, 2, 28), date(2026, 2, 28), date(2027, 2, 28)]),
    ],
)
def test_quarters_and_years_of_a_subscription(interval: str, begins: list[date]) -> None:
    schedule = schedule_of(
        datetime(2024, 2, 29, tzinfo=UTC), interval=interval, anchor="subscription"
    )
    periods = schedule.periods_between(schedule.starts_at, datetime(2050, 1, 1, tzinfo=UTC))
    result = [period.starts_at.date() for period in periods]
    assert result[:4] == begins
    assert interval == "quarter" or date(2028, 2, 29) in result


def test_the_first_period_begins_with_the_subscription_and_the_last_ends_with_it() -> None:
    starts_at, ends_at = datetime(2026, 1, 20, 14, tzinfo=UTC), datetime(2026, 3, 5, 9, tzinfo=UTC)
    schedule = schedule_of(starts_at, ends_at)
    periods = list(schedule.periods_between(datetime(2025, 1, 1, tzinfo=UTC), ends_at))
    assert [period.starts_at.month for period in periods] == [1, 2, 3]
    assert periods[0].starts_at == starts_at
    assert periods[0].scheduled_start == datetime(2026, 1, 1, tzinfo=UTC)
    assert periods[-1].ends_at == ends_at
    assert periods[-1].scheduled_end == datetime(2026, 4, 1, tzinfo=UTC)
    assert schedule.period_at(starts_at - timedelta(microseconds=1)) is None
    assert schedule.period_at(ends_at) is None
    anniversary = schedule_of(starts_at, anchor="subscription").period_at(starts_at)
    assert anniversary is not None
    assert anniversary.scheduled_start == datetime(2026, 1, 20, tzinfo=UTC)
    assert anniversary.starts_at == starts_at


def test_a_subscription_that_ends_as_it_begins_has_no_period() -> None:
    at = datetime(2026, 1, 20, 14, tzinfo=UTC)
    schedule = schedule_of(at, at)
    assert schedule.period_at(at) is None
    assert list(schedule.periods_between(at, at + timedelta(days=100))) == []


def test_the_day_of_a_change_counts_for_what_begins_on_it(terms: Terms) -> None:
    """Also from one subscription to the next: days are never counted twice."""
    at = datetime(2026, 11, 16, 13, 45, tzinfo=UTC)
    first = schedule_of(datetime(2026, 11, 1, tzinfo=UTC), at)
    second = schedule_of(at)
    shares = []
    for schedule in (first, second):
        period = schedule.period_at(max(schedule.starts_at, datetime(2026, 11, 1, tzinfo=UTC)))
        assert period is not None
        (part,) = schedule.parts(period, [Version(1, None, terms)])
        shares.append(part.day_share)
    assert shares == [Fraction(15, 30), Fraction(15, 30)]


@pytest.mark.parametrize("zone", ZONES)
def test_however_a_period_is_cut_its_shares_sum_to_the_whole(zone: str, terms: Terms) -> None:
    chances = dice("cuts", zone)
    for _ in range(200):
        starts_at = local(zone, 2024, 1, 1) + timedelta(minutes=chances.randrange(60 * 24 * 1400))
        schedule = schedule_of(
            starts_at.astimezone(UTC),
            anchor=chances.choice(["calendar", "subscription"]),
            interval=chances.choice(list(LENGTHS)),
            timezone=zone,
        )
        at = starts_at.astimezone(UTC) + timedelta(days=chances.randrange(400))
        period = schedule.period_at(at)
        assert period is not None
        length = period.ends_at - period.starts_at
        cuts = sorted(period.starts_at + length * chances.random() for _ in range(4))
        versions = [Version(number, cut, terms) for number, cut in enumerate(cuts, 1)]
        parts = schedule.parts(period, versions, cuts[1])
        assert (parts[0].starts_at, parts[-1].ends_at) == (period.starts_at, period.ends_at)
        assert all(before.ends_at == after.starts_at for before, after in pairwise(parts))
        assert [part.is_trial for part in parts] == [True, True, False, False, False][: len(parts)]
        assert [part.version.number for part in parts] == [1, 1, 2, 3, 4]
        whole = period.starts_at == period.scheduled_start
        for shares in ([p.day_share for p in parts], [p.second_share for p in parts]):
            assert min(shares) >= 0
            assert sum(shares) == 1 if whole else sum(shares) <= 1


def test_a_trial_ends_at_the_time_of_day_at_which_it_began() -> None:
    zone = "America/New_York"
    schedule = schedule_of(local(zone, 2026, 10, 25, 9), timezone=zone)
    assert schedule.trial_end(14) == local(zone, 2026, 11, 8, 9)
    assert schedule.trial_end(0) is None


@pytest.mark.parametrize("zone", ["America/Havana", "America/Santiago", "Asia/Beirut"])
def test_a_month_may_begin_on_a_day_without_midnight(zone: str) -> None:
    """Clocks that are put forward at midnight skip it: such a day begins at one o'clock."""
    changes = [at for year in YEARS for at in clock_changes(zone, year)]
    for change in changes:
        day = (change + timedelta(days=1)).astimezone(ZoneInfo(zone))
        schedule = schedule_of(
            local(zone, day.year, day.month, day.day, 12), anchor="subscription", timezone=zone
        )
        periods = list(
            schedule.periods_between(schedule.starts_at, schedule.starts_at + timedelta(days=800))
        )
        assert all(before.ends_at == after.starts_at for before, after in pairwise(periods))
        days = [period.scheduled_start.astimezone(ZoneInfo(zone)).date() for period in periods]
        assert days[0] == day.date()
        assert {each.day for each in days if each.month != 2} <= {day.day, 30, 31}
