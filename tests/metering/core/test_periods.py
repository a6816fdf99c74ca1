"""When periods begin and end, through clock changes, short months and odd zones."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.core.periods import STEPS, PeriodClock


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "timezone", "moment", "starts", "ends"),
    [
        ("hour", "UTC", "2026-03-29T01:30", "2026-03-29T01:00", "2026-03-29T02:00"),
        ("hour", "Asia/Kolkata", "2026-03-29T01:15", "2026-03-29T00:30", "2026-03-29T01:30"),
        ("day", "UTC", "2026-03-29T23:59", "2026-03-29T00:00", "2026-03-30T00:00"),
        # Clocks go forward: a day of 23 hours; and back: a day of 25.
        ("day", "Europe/Berlin", "2026-03-29T10:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("day", "Europe/Berlin", "2026-10-25T10:00", "2026-10-24T22:00", "2026-10-25T23:00"),
        # Midnight does not exist there that night: the day begins when the clock jumps.
        ("day", "Asia/Beirut", "2026-03-29T10:00", "2026-03-28T22:00", "2026-03-29T21:00"),
        ("week", "America/New_York", "2026-11-01T12:00", "2026-10-26T04:00", "2026-11-02T05:00"),
        ("month", "Asia/Tokyo", "2026-02-28T15:00", "2026-02-28T15:00", "2026-03-31T15:00"),
        ("quarter", "UTC", "2026-11-22T00:00", "2026-10-01T00:00", "2027-01-01T00:00"),
        ("year", "Pacific/Auckland", "2026-12-31T11:00", "2026-12-31T11:00", "2027-12-31T11:00"),
    ],
)
def test_calendar_periods(period: str, timezone: str, moment: str, starts: str, ends: str) -> None:
    span = PeriodClock(period=period, timezone=timezone).span(at(moment))
    assert (span.starts_at, span.ends_at) == (at(starts), at(ends))


@pytest.mark.parametrize(
    ("period", "anchor", "moment", "starts", "ends"),
    [
        ("month", "2026-01-31T00:00", "2026-02-15T00:00", "2026-01-31T00:00", "2026-02-28T00:00"),
        ("month", "2026-01-31T00:00", "2026-03-30T23:59", "2026-02-28T00:00", "2026-03-31T00:00"),
        ("month", "2026-01-15T09:30", "2025-12-15T09:29", "2025-11-15T09:30", "2025-12-15T09:30"),
        ("week", "2026-11-18T12:00", "2026-11-25T11:59", "2026-11-18T12:00", "2026-11-25T12:00"),
        ("quarter", "2026-02-01T00:00", "2026-04-30T00:00", "2026-02-01T00:00", "2026-05-01T00:00"),
        ("hour", "2026-11-18T12:20", "2026-11-25T11:19", "2026-11-25T10:20", "2026-11-25T11:20"),
        ("year", "2024-02-29T00:00", "2026-02-28T00:00", "2026-02-28T00:00", "2027-02-28T00:00"),
    ],
)
def test_anchored_periods(period: str, anchor: str, moment: str, starts: str, ends: str) -> None:
    span = PeriodClock(period=period, timezone="UTC", anchor_at=at(anchor)).span(at(moment))
    assert (span.starts_at, span.ends_at) == (at(starts), at(ends))


def test_a_lifetime_has_no_end() -> None:
    assert PeriodClock(period="lifetime", timezone="UTC").span(at("2026-01-01")).ends_at is None


ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"]


@given(
    period=st.sampled_from(sorted(STEPS)),
    timezone=st.sampled_from(ZONES),
    minutes=st.integers(0, 60 * 24 * 1500),
    anchor=st.one_of(st.none(), st.integers(0, 60 * 24 * 800)),
)
def test_periods_follow_each_other_without_gap_or_overlap(
    period: str, timezone: str, minutes: int, anchor: int | None
) -> None:
    beginning = at("2025-01-01")
    moment = beginning + timedelta(minutes=minutes)
    anchor_at = None if anchor is None else beginning + timedelta(minutes=anchor)
    clock = PeriodClock(period=period, timezone=timezone, anchor_at=anchor_at)
    span = clock.span(moment)
    assert span.ends_at is not None
    assert span.starts_at <= moment < span.ends_at
    assert clock.span(span.ends_at).starts_at == span.ends_at
    assert clock.before(span).ends_at == span.starts_at
    assert clock.span(span.ends_at - timedelta(microseconds=1)) == span
