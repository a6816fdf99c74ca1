"""When people are left in peace: midnight, clock changes, pauses that follow each other."""

from datetime import UTC, datetime, time, timedelta

import pytest

from alerts.models import MaintenanceWindow
from alerts.quiet import covers, paused_until, quiet_until

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "ends"),
    [
        ("2026-03-10T21:59:59+00:00", None),
        ("2026-03-10T22:00:00+00:00", "2026-03-11T07:00:00+00:00"),
        ("2026-03-11T00:30:00+00:00", "2026-03-11T07:00:00+00:00"),
        ("2026-03-11T06:59:59+00:00", "2026-03-11T07:00:00+00:00"),
        ("2026-03-11T07:00:00+00:00", None),
    ],
)
def test_quiet_hours_go_past_midnight(now: str, ends: str | None) -> None:
    result = quiet_until(datetime.fromisoformat(now), begins=time(22), ends=time(7), timezone="UTC")
    assert result == (None if ends is None else datetime.fromisoformat(ends))


def test_quiet_hours_of_equal_ends_are_none() -> None:
    assert quiet_until(NOON, begins=time(12), ends=time(12), timezone="UTC") is None


def test_quiet_hours_end_by_the_local_clock_when_clocks_change() -> None:
    # Berlin goes from +1 to +2 at 01:00 UTC: seven o'clock comes an hour earlier.
    night = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)
    result = quiet_until(night, begins=time(22), ends=time(7), timezone="Europe/Berlin")
    assert result == datetime(2026, 3, 29, 5, tzinfo=UTC)
    # And back: it comes an hour later.
    night = datetime(2026, 10, 24, 23, 30, tzinfo=UTC)
    result = quiet_until(night, begins=time(22), ends=time(7), timezone="Europe/Berlin")
    assert result == datetime(2026, 10, 25, 6, tzinfo=UTC)


def test_a_pause_that_begins_as_another_ends_goes_on() -> None:
    hours = [NOON + timedelta(hours=number) for number in range(-1, 4)]
    pauses = [
        MaintenanceWindow(starts_at=hours[2], ends_at=hours[3], match={}),
        MaintenanceWindow(starts_at=hours[0], ends_at=hours[2], match={}),
        MaintenanceWindow(starts_at=hours[3], ends_at=hours[4], match={"team": "other"}),
    ]
    assert paused_until(NOON, pauses, {"team": "growth"}) == hours[3]
    assert paused_until(hours[3], pauses, {"team": "growth"}) is None


@pytest.mark.parametrize(
    ("wanted", "match", "is_covered"),
    [
        ({}, {"agent": "a"}, True),
        ({"agent": "a"}, {"agent": "a", "team": "t"}, True),
        ({"agent": ["a", "b"]}, {"agent": "b"}, True),
        ({"agent": "a"}, {"agent": ["a", "b"]}, False),
        ({"agent": "a"}, {"team": "t"}, False),
        ({"agent": None}, {"agent": None}, True),
    ],
)
def test_a_pause_covers_what_lies_within_it(
    wanted: dict[str, object], match: dict[str, object], is_covered: bool
) -> None:
    assert covers(wanted, match) is is_covered
