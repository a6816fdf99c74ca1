"""`GET /v1/usage` with metrics, comparisons and running sums, and `GET /v1/forecast`, over HTTP."""

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from metering.reporting.metrics import METRICS
from tests.factories import Account, make_event, send
from tests.metering.api.caller import caller
from tests.metering.rollups.test_batches import make_events, roll_everything_up

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def test_without_new_parameters_nothing_but_the_coverage_is_new(account: Account) -> None:
    send(account, [make_event(team="growth", cost_usd="1.5")])
    body = caller(account).get("/v1/usage", group_by="team").body
    (row,) = body["data"]
    assert list(body) == ["data", "total", "next_cursor", "coverage"]
    assert list(row) == [*body["total"], "group", "start"]
    assert list(body["total"])[-1] == "tool_calls"
    assert body["coverage"] == {
        "priced_share": 1.0,
        "unpriced_requests": 0,
        "given_cost_share": 1.0,
    }


def test_coverage_says_what_has_no_price_and_what_was_given(account: Account) -> None:
    api = caller(account)
    assert api.get("/v1/usage").body["coverage"] == {
        "priced_share": None,
        "unpriced_requests": 0,
        "given_cost_share": None,
    }
    send(
        account,
        [
            make_event(model="a model nobody knows"),
            make_event(model="claude-sonnet-4-5", input_tokens=100_000, output_tokens=0),
            make_event(cost_usd="0.9"),
        ],
    )
    assert api.get("/v1/usage").body["coverage"] == {
        "priced_share": 0.666666,
        "unpriced_requests": 1,
        "given_cost_share": 0.75,
    }


def test_metrics_come_when_asked_for(account: Account, today: datetime) -> None:
    send(
        account,
        [
            make_event(session="s-1", user="u-1", cost_usd="1", latency_ms=100),
            make_event(session="s-1", user="u-2", cost_usd="2", status="error", latency_ms=100),
            make_event(session="s-2", user="u-1", customer="acme", cost_usd="1"),
        ],
    )
    api = caller(account)
    assert api.post("/v1/outcomes", {"session": "s-1", "success": True}).status == 200
    body = api.get("/v1/usage", metrics=",".join(METRICS), interval="none").body
    (row,) = body["data"]
    wanted = {
        "cost_per_request": "1.333333333",
        "error_rate": 0.333333,
        "users": 2,
        "sessions": 2,
        "customers": 1,
        "successes": 1,
        "cost_per_success_usd": "4",
    }
    assert {name: row[name] for name in wanted} == wanted
    assert {name: body["total"][name] for name in wanted} == wanted
    assert row["p50_latency_ms"] == pytest.approx(100, rel=0.05)
    assert Decimal(row["p99_cost_usd"]) == pytest.approx(Decimal(2), rel=Decimal("0.05"))


def test_a_day_that_is_not_over_is_compared_with_the_same_time_of_yesterday(
    account: Account, today: datetime
) -> None:
    now = datetime.now(UTC)
    moments = {
        "1": today,
        "2": today - timedelta(days=1),
        # Later than now, yesterday.
        "4": now - timedelta(days=1) + (today + timedelta(days=1) - now) / 2,
    }
    send(account, [make_event(time=at.isoformat(), cost_usd=usd) for usd, at in moments.items()])
    asked = {"from": today.isoformat(), "to": (today + timedelta(days=1)).isoformat()}
    body = caller(account).get("/v1/usage", compare="previous", **asked).body
    (row,) = body["data"]
    assert (row["cost_usd"], row["previous"]["cost_usd"]) == ("1", "2")
    assert body["total"]["previous"]["cost_usd"] == "2"


def test_running_sums_end_at_the_total_over_pages(account: Account) -> None:
    send(account, make_events(80))
    roll_everything_up(account)
    api = caller(account)
    last: dict[str, Any] = {}
    cursor: dict[str, Any] = {}
    while True:
        body = api.get(
            "/v1/usage", cumulative="true", group_by="team", interval="hour", limit=7, **cursor
        ).body
        last |= {row["group"]["team"]: Decimal(row["cost_usd"]) for row in body["data"]}
        if body["next_cursor"] is None:
            break
        cursor = {"cursor": body["next_cursor"]}
    assert sum(last.values()) == Decimal(body["total"]["cost_usd"])
    assert set(last) == {"growth", "platform", ""}


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"metrics": "speed"}, "unknown_metric"),
        ({"metrics": "users", "cumulative": "true"}, "not_additive"),
        ({"compare": "next"}, "invalid_request"),
        ({"cumulative": "yes"}, "invalid_flag"),
    ],
)
def test_what_cannot_be_asked(account: Account, parameters: dict[str, str], code: str) -> None:
    answer = caller(account).get("/v1/usage", **parameters)
    assert (answer.status, answer.body["code"]) == (400, code)


def test_a_forecast_is_in_the_tenants_zone_and_starts_from_what_is_spent(account: Account) -> None:
    send(account, [make_event(cost_usd="1.25")])
    api = caller(account)
    body = api.get("/v1/forecast").body
    assert {body[name] for name in ("spent_usd", "forecast_usd", "low_usd", "high_usd")} == {"1.25"}
    assert body["method"] == "none"
    kolkata = api.get("/v1/forecast", period="day", timezone="Asia/Kolkata").body
    assert kolkata["period_start"].endswith("18:30:00Z")
    assert api.get("/v1/forecast", period="year").status == 400


@pytest.mark.parametrize("filters", [{}, {"filter[team]": "growth"}, {"filter[team]": ""}])
def test_the_export_takes_the_filters_of_usage(
    account: Account, today: datetime, filters: dict[str, str]
) -> None:
    send(account, make_events(60))
    months = {today.strftime("%Y-%m"), (today - timedelta(days=3)).strftime("%Y-%m")}
    api = caller(account)
    exported = Decimal()
    for month in months:
        text = api.get("/v1/export/focus.csv", month=month, **filters).body
        rows = csv.DictReader(io.StringIO(text))
        exported += sum(Decimal(row["BilledCost"]) for row in rows)
    total = api.get("/v1/usage", **filters).body["total"]
    assert exported == Decimal(total["cost_usd"]) > 0
