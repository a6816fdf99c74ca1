"""Which period a report is of, and when it is due, through clock changes and odd zones."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Cadence
from dashboard.reports.periods import due_after, period_before, period_of

ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Kathmandu")


def test_reports_are_of_whole_days_weeks_and_months() -> None:
    monday = date(2026, 11, 30)
    assert period_before("daily", monday) == (date(2026, 11, 29), date(2026, 11, 29))
    assert period_before("weekly", monday) == (date(2026, 11, 23), date(2026, 11, 29))
    assert period_before("monthly", monday) == (date(2026, 10, 1), date(2026, 10, 31))
    assert period_before("monthly", date(2026, 3, 1)) == (date(2026, 2, 1), date(2026, 2, 28))
    assert period_before("weekly", date(2027, 1, 1)) == (date(2026, 12, 21), date(2026, 12, 27))


@pytest.mark.parametrize(
    ("zone", "hour", "now", "due"),
    [
        # 8:00 in New York is 13:00 UTC in winter and 12:00 in summer.
        ("America/New_York", 8, "2026-03-07T14:00", "2026-03-08T12:00"),
        ("America/New_York", 8, "2026-10-31T13:00", "2026-11-01T13:00"),
        # 2:00 does not come on March 8; 1:00 comes twice on November 1, and counts once.
        ("America/New_York", 2, "2026-03-08T00:00", "2026-03-08T07:00"),
        ("America/New_York", 2, "2026-03-08T07:00", "2026-03-09T06:00"),
        ("America/New_York", 1, "2026-11-01T04:30", "2026-11-01T05:00"),
        ("America/New_York", 1, "2026-11-01T05:00", "2026-11-02T06:00"),
        # Half-hour zones.
        ("Asia/Kolkata", 8, "2026-11-30T02:00", "2026-11-30T02:30"),
        ("Asia/Kolkata", 0, "2026-11-30T18:29", "2026-11-30T18:30"),
        ("Australia/Lord_Howe", 8, "2026-10-03T21:30", "2026-10-04T21:00"),
    ],
)
def test_a_daily_report_is_due_at_the_hour_of_the_zone(
    zone: str, hour: int, now: str, due: str
) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    expected = datetime.fromisoformat(due).replace(tzinfo=UTC)
    assert due_after("daily", hour, ZoneInfo(zone), at) == expected


def test_weekly_and_monthly_reports_are_due_on_mondays_and_firsts() -> None:
    zone = ZoneInfo("America/New_York")
    now = datetime(2026, 11, 30, 12, 59, tzinfo=UTC)
    assert due_after("weekly", 8, zone, now) == datetime(2026, 11, 30, 13, tzinfo=UTC)
    later = now + timedelta(minutes=1)
    assert due_after("weekly", 8, zone, later) == datetime(2026, 12, 7, 13, tzinfo=UTC)
    assert due_after("monthly", 8, zone, later) == datetime(2026, 12, 1, 13, tzinfo=UTC)
    leap = datetime(2028, 2, 10, tzinfo=UTC)
    assert due_after("monthly", 8, zone, leap) == datetime(2028, 3, 1, 13, tzinfo=UTC)


@given(
    zone=st.sampled_from(ZONES),
    cadence=st.sampled_from(Cadence.values),
    hour=st.integers(0, 23),
    at=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),  # noqa: DTZ001 - UTC below
)
def test_each_period_is_due_once_and_is_over_by_then(
    zone: str, cadence: str, hour: int, at: datetime
) -> None:
    clock = ZoneInfo(zone)
    due = due_after(cadence, hour, clock, at.replace(tzinfo=UTC))
    following = due_after(cadence, hour, clock, due)
    today, next_day = (moment.astimezone(clock).date() for moment in (due, following))
    period, after = period_before(cadence, today), period_before(cadence, next_day)
    assert at.replace(tzinfo=UTC) < due < following
    assert period.last + timedelta(days=1) == after.first
    assert period.last < today
    assert period_of(cadence, today).first == today
