"""Forecasts by run rate: exact where the past is regular, and a band that holds what comes."""

import numpy as np
import pytest

from metering.reporting.run_rate import DAY_OF_WEEK, NONE, RUN_RATE, Outlook, PastDay, outlook

USD = 10**9
WEEK = [10, 10, 10, 10, 10, 2, 1]


def days(costs: list[int], *, rest: float = 0.5) -> list[PastDay]:
    return [PastDay(index % 7, cost, round(cost * rest)) for index, cost in enumerate(costs)]


def test_without_a_day_that_cost_something_nothing_is_expected() -> None:
    assert outlook([], today=0, to_come=[1, 2]) == Outlook(0, 0, 0, NONE)
    assert outlook(days([0, 0]), today=2, to_come=[3]).method == NONE


def test_weekdays_repeat() -> None:
    past = days([usd * USD for usd in WEEK * 5])
    expected = outlook(past, today=0, to_come=[1, 2, 3, 4, 5, 6])
    nanos = 48 * USD  # half of Monday, then the rest of the week
    assert expected.method == DAY_OF_WEEK
    assert expected.nanos == pytest.approx(nanos, abs=10)
    assert expected.low_nanos == pytest.approx(nanos, abs=10)
    assert expected.high_nanos == pytest.approx(nanos, abs=10)
    weekend = outlook(past[:-2], today=5, to_come=[6])
    assert weekend.nanos == pytest.approx(2 * USD, rel=0.2)


def test_with_little_history_every_day_is_the_same() -> None:
    expected = outlook(days([4 * USD, 6 * USD]), today=2, to_come=[3, 4, 5])
    assert expected == Outlook(
        nanos=17_500_000_000, low_nanos=0, high_nanos=35_000_000_000, method=RUN_RATE
    )


def test_the_level_is_that_of_the_last_two_weeks() -> None:
    past = days([usd * USD for usd in WEEK * 4 + [2 * usd for usd in WEEK] * 2], rest=0)
    expected = outlook(past, today=0, to_come=[1])
    assert expected.nanos == pytest.approx(20 * USD, rel=0.01)


@pytest.mark.parametrize("horizon", [1, 6, 27])
@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_the_band_holds_about_80_of_100_outcomes(horizon: int, noise: float) -> None:
    chance = np.random.default_rng(7)
    shape = np.array(WEEK * 20, np.float64)
    held = []
    for _ in range(150):
        # Days that differ by chance around a level that wanders.
        level = np.exp(np.cumsum(chance.normal(0, 0.02, shape.size)))
        costs = (shape * level * chance.lognormal(0, noise, shape.size) * USD).astype(np.int64)
        today = int(chance.integers(56, 90))
        past = days(costs[today - 56 : today].tolist())
        past = [day._replace(weekday=(today - 56 + at) % 7) for at, day in enumerate(past)]
        coming = [(today + 1 + at) % 7 for at in range(horizon)]
        expected = outlook(past, today=today % 7, to_come=coming)
        actual = costs[today] / 2 + costs[today + 1 : today + 1 + horizon].sum()
        assert expected.low_nanos <= expected.nanos <= expected.high_nanos
        held.append(expected.low_nanos <= actual <= expected.high_nanos)
    assert 0.68 <= np.mean(held) <= 0.92, np.mean(held)
