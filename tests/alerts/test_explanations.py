"""What is wrong, in words that people can act on."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alerts.explanations import Narrative, describe_end, describe_shares, subject_of, summary, title
from alerts.series import TENANT, SeriesKey
from common.formats import format_share, format_times
from common.json_bodies import JsonObject
from tests.factories import NANOS

AT = datetime(2026, 3, 4, 12, 15, tzinfo=UTC)
RESEARCH = SeriesKey("agent", "research")


def narrative_of(**fields: Any) -> Narrative:
    """An agent that costs 12 times the usual."""
    return Narrative(
        **{
            "key": RESEARCH,
            "measure": "cost",
            "is_fall": False,
            "actual": 12.0 * NANOS,
            "expected": 1.0 * NANOS,
            "began_at": AT,
            "cost_nanos": 48 * NANOS,
            "excess_nanos": 44 * NANOS,
            "excess_nanos_per_hour": 88 * NANOS // 2,
            **fields,
        }
    )


TITLES = [
    ({}, "Agent 'research' costs 12 times the usual"),
    ({"key": TENANT}, "Spend is 12 times the usual"),
    ({"key": SeriesKey("agent", "")}, "Usage without an agent costs 12 times the usual"),
    (
        {"measure": "cost_per_request"},
        "A request of agent 'research' costs 12 times the usual",
    ),
    ({"measure": "tokens"}, "Agent 'research' uses 12 times the usual tokens"),
    ({"measure": "requests", "key": TENANT}, "Requests are 12 times the usual"),
    (
        {"measure": "error_rate", "actual": 0.38, "expected": 0.021},
        "38% of the calls of agent 'research' fail, usually 2.1%",
    ),
    (
        {"measure": "cache_hit_share", "actual": 0.0, "expected": 0.71, "key": TENANT},
        "0% of all input is read from the cache, usually 71%",
    ),
    ({"expected": 0.0}, "Agent 'research' costs $44.00 an hour, unlike anything seen before"),
    (
        {"expected": 0.0, "measure": "tokens", "excess_nanos": 0},
        "Usage of agent 'research' is unlike anything seen before",
    ),
    ({"is_fall": True, "measure": "requests"}, "Agent 'research' has stopped"),
    ({"is_fall": True, "measure": "requests", "key": TENANT}, "All requests have stopped"),
]


@pytest.mark.parametrize(("fields", "expected"), TITLES)
def test_a_title_says_what_is_wrong_with_what(fields: JsonObject, expected: str) -> None:
    assert title(narrative_of(**fields)) == expected


def test_a_summary_has_the_money_and_where_it_comes_from() -> None:
    shares = [
        (SeriesKey("team", "growth"), 1.0),
        (SeriesKey("feature", "email"), 0.9),
        (SeriesKey("model", "gpt-5"), 0.81),
        (SeriesKey("customer", "acme"), 0.49),
    ]
    assert summary(narrative_of(shares=shares)) == (
        "Since Mar 4, 2026, 12:15 PM UTC it has cost $48.00 instead of the expected $4.00: $44.00"
        " too much so far, $44.00 an hour. Of this 81% by model 'gpt-5', 90% in feature 'email',"
        " 100% in team 'growth'."
    )


def test_a_summary_of_what_costs_nothing_names_the_measure() -> None:
    free = narrative_of(measure="tokens", excess_nanos=0, actual=120_000.0, expected=10_000.0)
    assert summary(free) == (
        "Since Mar 4, 2026, 12:15 PM UTC it used 120,000 tokens in 15 minutes; 10,000 is usual."
    )
    failing = narrative_of(measure="error_rate", excess_nanos=0, actual=0.4, expected=0.02)
    assert summary(failing).endswith("it is 40%; 2% is usual.")
    stopped = narrative_of(is_fall=True, measure="requests", actual=0.0, expected=120.0)
    assert summary(stopped).endswith("there were no requests; 120 in 15 minutes are usual.")


def test_values_without_a_name_explain_nothing() -> None:
    assert describe_shares([(SeriesKey("agent", ""), 1.0)]) == ""


def test_a_long_value_is_cut() -> None:
    assert subject_of(SeriesKey("model", "m" * 200)) == f"Model '{'m' * 80}…'"


def test_the_end_says_how_long_it_was_and_what_it_cost() -> None:
    assert describe_end(AT, AT + timedelta(minutes=45), 0) == "Back to the usual after 45 minutes."
    assert describe_end(AT, AT + timedelta(hours=6), 3 * NANOS) == (
        "Back to the usual after 6 hours; $3.00 was spent beyond the expected."
    )


def test_figures_are_as_fine_as_they_tell() -> None:
    assert [format_times(actual, 2.0) for actual in (3.0, 19.8, 20.0, 1_998.0, 2_000.0)] == [
        "1.5 times",
        "9.9 times",
        "10 times",
        "999 times",
        "more than 1,000 times",
    ]
    assert [format_share(share) for share in (0.0, 0.004, 0.0996, 0.5, 1.2)] == [
        "0%",
        "0.4%",
        "10%",
        "50%",
        "100%",
    ]
