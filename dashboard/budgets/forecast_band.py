"""How far a forecast of a window may be off. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final, NamedTuple

from dashboard.budgets.burn import Burn

# Eight of ten futures lie within it, if what is used in one bucket does not depend on the others.
DEVIATIONS: Final = Decimal("1.2816")
BUCKETS_MIN: Final = 4
POINTS: Final = 24


class Band(NamedTuple):
    """Between what a window will have used at least and at most."""

    times: Sequence[datetime]
    low: Sequence[int]
    high: Sequence[int]


def band_of(burn: Burn, *, highest: int | None) -> Band | None:
    """The band around the forecast; None without one, or where too few buckets are over.

    It is that of a random walk with drift, DEVIATIONS * s * sqrt(h * (1 + h / n)) for h buckets
    after n whose uses deviate by s (Hyndman and Athanasopoulos, "Forecasting: Principles and
    Practice", section "Prediction intervals"). What was used stays used. No more than `highest` is
    used where a budget refuses beyond it.
    """
    # The last bucket is still running.
    uses = [after - before for before, after in pairwise(burn.used[:-1])]
    if burn.ahead is None or len(uses) < BUCKETS_MIN:
        return None
    now, used = burn.times[-1], burn.used[-1]
    reached_at, amount = burn.ahead
    length, distance = (burn.times[-2] - burn.times[0]) / len(uses), reached_at - now
    last = max(burn.ends_at, reached_at)
    times = [now + (last - now) * at / POINTS for at in range(POINTS + 1)]
    low, high = [], []
    for at in times:
        middle = used + (amount - used) * _ratio(at - now, distance)
        off = _half_width(uses, _ratio(at - now, length))
        low.append(max(used, _whole(middle - off, highest)))
        high.append(max(used, _whole(middle + off, highest)))
    return Band(times, low, high)


def _half_width(uses: Sequence[int], ahead: Decimal) -> Decimal:
    """How far off the sum of the uses of so many buckets ahead may be."""
    number = len(uses)
    mean = Decimal(sum(uses)) / number
    squares = sum(((use - mean) ** 2 for use in uses), Decimal(0))
    deviation = (squares / (number - 1)).sqrt()
    return DEVIATIONS * deviation * (ahead * (1 + ahead / number)).sqrt()


def _ratio(part: timedelta, whole: timedelta) -> Decimal:
    microsecond = timedelta(microseconds=1)
    return Decimal(part // microsecond) / max(whole // microsecond, 1)


def _whole(amount: Decimal, highest: int | None) -> int:
    return round(amount) if highest is None else min(round(amount), highest)
