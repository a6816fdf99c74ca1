"""What will be spent until a period ends, from what past days cost. Pure.

With 4 weeks or more of days, each day to come costs the level of the last two weeks times what its
weekday costs against the average of up to 8 weeks. With fewer, it costs the average of up to two
weeks. What is left of today costs the share of a day that came at this time of day or later.

The band is 80%: the same rule is applied to each past day that enough days follow, for as many days
as are to come (10 at most), and the band is between the 10th and 90th percentile of the ratios of
what was spent to what the rule had said. Further ahead it widens with the square root of the days,
as it does for a level that wanders. With fewer than three ratios it is from nothing to twice.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WEEK: Final = 7
HISTORY_DAYS_MAX: Final = 8 * WEEK
BY_WEEKDAY_DAYS_MIN: Final = 4 * WEEK
LEVEL_DAYS: Final = 2 * WEEK
HORIZON_DAYS_MAX: Final = 10
RATIOS_MIN: Final = 3
TAIL: Final = 0.1

DAY_OF_WEEK: Final = "day_of_week"
RUN_RATE: Final = "run_rate"
NONE: Final = "none"
METHODS: Final = (DAY_OF_WEEK, RUN_RATE, NONE)


class PastDay(NamedTuple):
    """A day that is over, and what of it came at the present time of day or later."""

    weekday: int
    cost_nanos: int
    rest_nanos: int


class Outlook(NamedTuple):
    """What is still to come, in nano-dollars."""

    nanos: int
    low_nanos: int
    high_nanos: int
    method: str


def outlook(days: Sequence[PastDay], *, today: int, to_come: Sequence[int]) -> Outlook:
    """Return what the rest of today and the days to come will cost, by their weekdays.

    `days` are in order, up to yesterday, and begin with the first that had usage.
    """
    days = days[-HISTORY_DAYS_MAX:]
    if not any(day.cost_nanos for day in days):
        return Outlook(0, 0, 0, NONE)
    method = DAY_OF_WEEK if len(days) >= BY_WEEKDAY_DAYS_MIN else RUN_RATE
    costs = np.array([day.cost_nanos for day in days], np.float64)
    weekdays = np.array([day.weekday for day in days])
    factors = _weekday_factors(costs, weekdays) if method == DAY_OF_WEEK else np.ones(WEEK)
    rest_share = sum(day.rest_nanos for day in days) / sum(day.cost_nanos for day in days)
    level = float(costs[-LEVEL_DAYS:].mean())
    nanos = level * (rest_share * factors[today] + factors[list(to_come)].sum())
    low, high = _band(costs, factors[weekdays], horizon=max(1, len(to_come)))
    return Outlook(round(nanos), int(nanos * low), -int(-nanos * high // 1), method)


def _weekday_factors(costs: Floats, weekdays: NDArray[np.int64]) -> Floats:
    """Return what each weekday costs against the average day, from whole weeks."""
    whole = len(costs) // WEEK * WEEK
    sums = np.bincount(weekdays[-whole:], costs[-whole:], minlength=WEEK)
    mean = costs[-whole:].mean()
    factors: Floats = sums / (whole // WEEK) / mean if mean else np.ones(WEEK)
    return factors


def _band(costs: Floats, factors: Floats, *, horizon: int) -> tuple[float, float]:
    """Return the ratios to what is expected that the band is between."""
    count = len(costs)
    is_long = count >= BY_WEEKDAY_DAYS_MIN
    window = LEVEL_DAYS if is_long else min(WEEK, max(1, count // 3))
    known = min(horizon, HORIZON_DAYS_MAX if is_long else max(1, count // 3))
    ratios = []
    for at in range(window, count - known + 1):
        expected = costs[at - window : at].mean() * factors[at : at + known].sum()
        if expected > 0:
            ratios.append(costs[at : at + known].sum() / expected)
    if len(ratios) < RATIOS_MIN:
        return 0.0, 2.0
    ratios.sort()
    index = max(0, int((len(ratios) + 1) * TAIL) - 1)
    width = (horizon / known) ** 0.5
    return min(1.0, float(ratios[index])) ** width, max(1.0, float(ratios[-1 - index])) ** width
