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
        "group_by=shoe_size",
        "group_by=agent,agent",
        "interval=daily",
        "&".join(f"filter[agent]=a{number}" for number in range(30)),
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
    values = ["%00", "x" * 300, "fine"]
    query = "&".join(f"filter[agent]={value}" for value in values)
    assert bar(f"{query}&nothing=1").chips == (("agent", "fine"),)
    assert bar("filter[status]=unheard_of&filter[status]=error").chips == (("status", "error"),)


def test_the_query_of_a_bar_means_the_bar() -> None:
    query = (
        "?from=2026-11-01&to=2026-11-03&group_by=agent,model&interval=hour&metric=tokens&compare=off"
        "&filter[team]=a%26b&filter[agent]=%3Cx%3E&filter[agent]="
    )
    assert bar(query[1:]).query() == query
    assert bar().query() == "?"
    assert bar("period=7d&group_by=model").query() == "?"


def test_chips_are_added_once_and_removed() -> None:
    chosen = bar("filter[team]=a").with_chip("team", "b").with_chip("team", "b")
    assert chosen.filters == {"team": ["a", "b"]}
    assert chosen.without_chip("team", "a").chips == (("team", "b"),)
    assert chosen.with_only("team", "c").filters == {"team": ["c"]}
    assert chosen.without_chips().chips == ()


def test_the_form_adds_a_filter_to_those_of_the_address() -> None:
    added = bar("filter[team]=a&dimension=agent&value=writer")
    assert added.query() == "?filter[team]=a&filter[agent]=writer"
    assert bar("dimension=shoe&value=x").chips == ()


def test_links_of_the_bar_keep_the_parameters_of_the_page() -> None:
    chosen = bar("filter[team]=a").with_further({"status": "open"})
    assert chosen.with_period("30d").query() == "?period=30d&filter[team]=a&status=open"
    assert chosen.with_further({}).query() == "?filter[team]=a"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("period=today", "Nov 18"),
        ("period=7d", "Nov 12\u201318"),
        ("from=2026-10-28&to=2026-11-03", "Oct 28 \u2013 Nov 3"),
        ("from=2025-12-30&to=2026-01-02", "Dec 30, 2025 \u2013 Jan 2, 2026"),
    ],
)
def test_days_are_named_with_the_year_where_it_is_another(query: str, words: str) -> None:
    assert bar(query).period_words == words
