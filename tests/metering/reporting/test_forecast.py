"""Forecasts start from what is spent, in the zone's own periods, and read exact past days."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from metering.reporting import InvalidQuestion, forecast
from metering.reporting.forecast import Forecast
from tests.factories import Account, make_event, send
from tests.metering.reporting.test_usage import snapshot
from tests.metering.rollups.test_batches import roll_everything_up

pytestmark = pytest.mark.django_db(transaction=True)
USD = 10**9


@pytest.fixture
def noon() -> datetime:
    return datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)


def spend(account: Account, noon: datetime, days: range, **fields: object) -> None:
    """Two dollars on each of these days before `noon`, one of them in the afternoon."""
    moments = [
        noon - timedelta(days=day) + timedelta(hours=hours) for day in days for hours in (-2, 2)
    ]
    send(
        account,
        [
            make_event(**{"time": at.isoformat(), "cost_usd": "1", "team": "growth"} | fields)
            for at in moments
            if at < noon
        ],
    )


def ask(account: Account, noon: datetime, **fields: object) -> Forecast:
    with snapshot(account):
        asked: dict[str, Any] = {"period": "day", "timezone": "UTC", "now": noon, **fields}
        return forecast(tenant_id=account.tenant.id, **asked)


def test_nothing_before_today_is_a_forecast_of_what_is_spent(
    account: Account, noon: datetime
) -> None:
    assert ask(account, noon)[2:] == (0, 0, 0, 0, "none")
    spend(account, noon, range(1))
    assert ask(account, noon)[2:] == (USD, USD, USD, USD, "none")


@pytest.mark.parametrize("is_rolled_up", [False, True])
def test_the_afternoon_costs_what_afternoons_cost(
    account: Account, noon: datetime, is_rolled_up: bool
) -> None:
    spend(account, noon, range(29))
    if is_rolled_up:
        roll_everything_up(account)
    today = ask(account, noon)
    assert today == Forecast(
        period_start=noon.replace(hour=0),
        period_end=noon.replace(hour=0) + timedelta(days=1),
        spent_nanos=USD,
        forecast_nanos=2 * USD,
        low_nanos=2 * USD,
        high_nanos=2 * USD,
        method="day_of_week",
    )
    week = ask(account, noon, period="week")
    left = 7 - noon.weekday()
    assert week.forecast_nanos == pytest.approx(week.spent_nanos + (2 * left - 1) * USD, abs=10)
    assert week.period_end - week.period_start == timedelta(days=7)


def test_filters_and_zones(account: Account, noon: datetime) -> None:
    spend(account, noon, range(8), user="u-1")
    spend(account, noon, range(8), team="platform", user="u-2")
    roll_everything_up(account)
    both = ask(account, noon)
    assert (both.spent_nanos, both.forecast_nanos, both.method) == (2 * USD, 4 * USD, "run_rate")
    each = ask(account, noon, filters={"team": ("growth",)})
    assert (each.spent_nanos, each.forecast_nanos) == (USD, 2 * USD)
    # Users have sums of days alone: half of the day is left, so half of a day's cost.
    user = ask(account, noon, filters={"user": ("u-1",)})
    assert (user.spent_nanos, user.forecast_nanos) == (USD, 2 * USD)
    # No roll-up has these two and the zone's days: from events.
    kolkata = ask(
        account,
        noon,
        timezone="Asia/Kolkata",
        filters={"team": ("growth",), "user": ("u-1",), "status": ("success",)},
    )
    assert (kolkata.spent_nanos, kolkata.forecast_nanos) == (USD, 2 * USD)
    assert kolkata.period_start == noon.replace(hour=18, minute=30) - timedelta(days=1)


def test_what_cannot_be_asked(account: Account, noon: datetime) -> None:
    for fields in ({"period": "year"}, {"timezone": "Mars/Base"}, {"filters": {"nobody": ("x",)}}):
        with pytest.raises(InvalidQuestion):
            ask(account, noon, **fields)
