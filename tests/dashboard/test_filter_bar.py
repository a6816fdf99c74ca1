"""The filter bar: what a URL means, and what is said about what it does not."""

from datetime import UTC, datetime, timedelta

import pytest
from django.http import QueryDict

from dashboard.filter_bar import FilterBar, read_filter_bar

NOW = datetime(2026, 11, 18, 12, 30, tzinfo=UTC)


def bar(query: str = "", *, timezone: str = "UTC", now: datetime = NOW) -> FilterBar:
    return read_filter_bar(QueryDict(query), timezone=timezone, now=now)


def test_the_default_is_the_last_seven_days_against_as_much_of_the_seven_before() -> None:
    assert bar().range.starts_at == datetime(2026, 11, 12, tzinfo=UTC)
    assert bar().range.until == NOW
    assert bar().previous.starts_at == datetime(2026, 11, 5, tzinfo=UTC)
    assert bar().previous.until == datetime(2026, 11, 11, 12, 30, tzinfo=UTC)


def test_months_end_with_the_month_and_compare_with_the_one_before() -> None:
    month = bar("period=month")
    assert (month.range.starts_at, month.range.ends_at) == (
        datetime(2026, 11, 1, tzinfo=UTC),
        datetime(2026, 12, 1, tzinfo=UTC),
    )
    assert month.previous.ends_at == datetime(2026, 11, 1, tzinfo=UTC)
    assert bar("period=last_month").range.until == datetime(2026, 11, 1, tzinfo=UTC)


def test_a_long_month_is_not_compared_with_days_that_a_short_one_lacks() -> None:
    march = bar("period=month", now=datetime(2026, 3, 31, 12, tzinfo=UTC))
    assert march.previous.until == datetime(2026, 3, 1, tzinfo=UTC)


def test_days_begin_at_the_tenants_midnight_across_a_clock_change() -> None:
    now = datetime(2026, 10, 26, 12, tzinfo=UTC)
    berlin = bar("from=2026-10-25&to=2026-10-25", timezone="Europe/Berlin", now=now)
    assert berlin.range.starts_at == datetime(2026, 10, 24, 22, tzinfo=UTC)
    assert berlin.range.ends_at - berlin.range.starts_at == timedelta(hours=25)
    assert berlin.interval == "hour"


@pytest.mark.parametrize(
    "query",
    [
        "period=century",
        "from=2026-11-10&to=2026-11-01",
        "from=yesterday&to=today",
        "from=0001-01-01&to=0001-01-02",
        "from=2020-01-01&to=2026-01-01",
        "by=shoe_size",
        "&".join(f"agent=a{number}" for number in range(30)),
        "from=2026-11-01",
    ],
)
def test_what_is_not_understood_is_said_and_left_out(query: str) -> None:
    read = bar(query)
    assert len(read.notices) == 1
    assert read.preset == "7d"
    assert read.split == "model"
    assert len(read.chips) <= 20


def test_values_that_no_event_can_have_are_left_out() -> None:
    assert bar("agent=%00&agent=" + "x" * 300 + "&agent=fine&nothing=1").chips == (
        ("agent", "fine"),
    )
    assert bar("status=unheard_of&status=error").chips == (("status", "error"),)


def test_the_query_of_a_bar_means_the_bar() -> None:
    query = "?from=2026-11-01&to=2026-11-03&by=agent&compare=off&team=a%26b&agent=%3Cx%3E&agent="
    assert bar(query[1:]).query() == query
    assert bar().query() == "?"
    assert bar("period=7d&by=model").query() == "?"


def test_chips_are_added_once_and_removed() -> None:
    chosen = bar("team=a").with_chip("team", "b").with_chip("team", "b")
    assert chosen.filters == {"team": ["a", "b"]}
    assert chosen.without_chip("team", "a").chips == (("team", "b"),)
    assert chosen.with_only("team", "c").filters == {"team": ["c"]}
    assert chosen.without_chips().chips == ()
