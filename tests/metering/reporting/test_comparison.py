"""The time before a range has the same elapsed time, whatever clocks do."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.reporting import InvalidQuestion, UsageQuestion
from metering.reporting.comparison import Comparison, range_before

ZONES = (
    "UTC",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/New_York",
    "Europe/Berlin",
    "Africa/Cairo",
)
INTERVALS = ("15min", "hour", "day", "week", "month", "none")
FAR = datetime(2099, 1, 1, tzinfo=UTC)


def at(zone: str, text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def ask(zone: str, begins: str, ends: str, interval: str = "day") -> UsageQuestion:
    return UsageQuestion(
        tenant_id=1,
        starts_at=at(zone, begins),
        ends_at=at(zone, ends),
        interval=interval,
        timezone=zone,
    )


@pytest.mark.parametrize(
    ("zone", "begins", "ends", "interval", "now", "before"),
    [
        # Today until now: yesterday until the same time.
        ("UTC", "2026-05-02", "2026-05-03", "day", "2026-05-02T09:30", "2026-05-01T00 01T09:30"),
        ("UTC", "2026-05-02", "2026-05-03", "hour", "2026-05-02T09:30", "2026-05-01T00 01T09:30"),
        ("UTC", "2026-05-02", "2026-05-03", "none", "2026-06-01T00:00", "2026-05-01T00 02T00:00"),
        # The clock goes forward today: at ten, yesterday's ten hours are compared with nine.
        (
            *("Europe/Berlin", "2026-03-29", "2026-03-30", "day"),
            *("2026-03-29T10:00", "2026-03-28T00 28T10:00"),
        ),
        # And back yesterday: a day of 25 hours.
        (
            *("Europe/Berlin", "2026-10-26", "2026-10-27", "day"),
            *("2026-10-26T10:00", "2026-10-25T00 25T10:00"),
        ),
        # Midnight does not exist on the day before.
        (
            *("Africa/Cairo", "2026-04-25", "2026-04-26", "day"),
            *("2026-05-01T00:00", "2026-04-24T01 25T00:00"),
        ),
        ("UTC", "2026-05-04", "2026-05-18", "week", "2026-05-13T12:00", "2026-04-20T00 29T12:00"),
        # Months: the 31st has no counterpart in a month of 28 days.
        ("UTC", "2026-03-01", "2026-04-01", "month", "2026-03-10T06:00", "2026-02-01T00 10T06:00"),
        ("UTC", "2026-03-01", "2026-04-01", "month", "2026-03-31T06:00", "2026-02-01T00 01T00:00"),
        ("UTC", "2026-02-01", "2026-04-01", "month", "2026-05-01T00:00", "2025-12-01T00 01T00:00"),
    ],
)
def test_the_range_before(
    zone: str, begins: str, ends: str, interval: str, now: str, before: str
) -> None:
    starts_at, ends_at = range_before(ask(zone, begins, ends, interval), now=at(zone, now))
    assert starts_at == at(zone, before.split(maxsplit=1)[0])
    assert f"{ends_at.astimezone(ZoneInfo(zone)):%dT%H:%M}" == before.split()[1]


@settings(max_examples=300, deadline=None, print_blob=True)
@given(
    zone=st.sampled_from(ZONES),
    interval=st.sampled_from(INTERVALS),
    begins=st.integers(0, 525_600),
    lasts=st.integers(1, 60_000),
    ahead=st.integers(-1_000, 70_000),
)
def test_buckets_before_follow_one_another_and_end_before_the_range(
    zone: str, interval: str, begins: int, lasts: int, ahead: int
) -> None:
    starts_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=begins)
    question = UsageQuestion(
        tenant_id=1,
        starts_at=starts_at,
        ends_at=starts_at + timedelta(minutes=lasts),
        interval=interval,
        timezone=zone,
    )
    comparison = Comparison(question, now=starts_at + timedelta(minutes=ahead))
    before = comparison.buckets(question.buckets())
    assert before[0].reads_from == comparison.starts_at
    assert max(bucket.reads_to for bucket in before) == comparison.ends_at <= starts_at
    for each, next_ in pairwise(before):
        assert each.reads_to <= next_.reads_from
        # A short month leaves out what a long one has no counterpart for.
        assert interval == "month" or each.reads_to == next_.reads_from


@pytest.mark.parametrize("zone", ["Australia/Lord_Howe", "America/New_York"])
@pytest.mark.parametrize("day", ["2026-04-04", "2026-03-08", "2026-10-03", "2026-11-01"])
@pytest.mark.parametrize("interval", ["15min", "hour"])
def test_hours_never_overlap_where_a_clock_changes(zone: str, day: str, interval: str) -> None:
    begins = at(zone, day)
    question = UsageQuestion(
        tenant_id=1,
        starts_at=begins,
        ends_at=begins + timedelta(days=2),
        interval=interval,
        timezone=zone,
    )
    buckets = list(question.buckets())
    assert all(each.reads_to == next_.start for each, next_ in pairwise(buckets))
    assert all(
        next(question.buckets(starts_at=bucket.start)).start == bucket.start for bucket in buckets
    )


def test_a_range_that_begins_with_time_has_nothing_before_it() -> None:
    with pytest.raises(InvalidQuestion):
        range_before(ask("UTC", "2000-01-01", "2001-01-01"), now=FAR)
