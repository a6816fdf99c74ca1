"""By how much the values that the detector tells as usual differ from the truth, on made-up series.

Quarters of an hour; what is reported is compared with the level that the noise was put on.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from alerts.anomaly import new_states, observe
from bench.kit.figures import Row

MONDAY: Final = 1_704_067_200

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def measure(row: Row) -> None:
    """Measure by what factor the usual value is off, in the last two of four made-up weeks."""
    pick = np.random.default_rng(3)
    steps, count = np.arange(28 * 96), 12
    hours = steps[:, None] / 4 * np.ones(count)
    night = hours % 24 < 6
    for swing in (3, 10, 30):
        rate = 2_000 * swing ** (-0.5 - 0.5 * np.cos(hours / 24 * 2 * np.pi))
        rate *= np.where(hours // 24 % 7 >= 5, 0.3, 1.0)
        noise = np.exp(0.2 * pick.standard_normal(rate.shape))
        requests = pick.poisson(rate * noise).astype(np.float64)
        told = _told(requests * 1e7, requests, is_ratio=False)
        _row_told(row, f"night cost, nights at 1/{swing}", told, rate * 1e7, night)
    requests = pick.poisson(np.where(night, 200, 1_500)).astype(np.float64)
    for name, dear in (("dear", night), ("cheap", ~night)):
        each = np.where(dear, 1e8, 1e7)
        noise = np.exp(0.1 * pick.standard_normal(each.shape))
        told = _told(each * noise, requests, is_ratio=True)
        _row_told(row, f"cost per request by night, {name} nights", told, each, night)
    for share, calls in ((0.02, 500), (0.02, 60), (0.005, 2_000)):
        failed = pick.binomial(calls, share, hours.shape) / calls
        told = _told(failed, np.full(hours.shape, float(calls)), is_ratio=True)
        name = f"error rate {share:.1%} of {calls} calls"
        _row_told(row, name, told, np.full(hours.shape, share), night | ~night)


def _told(values: Floats, weights: Floats, *, is_ratio: bool) -> Floats:
    states = new_states(values.shape[1])
    return np.array(
        [
            observe(
                states,
                at=MONDAY + step * 900,
                step_seconds=900,
                values=values[step],
                weights=weights[step],
                is_ratio=is_ratio,
            ).expected
            for step in range(len(values))
        ]
    )


def _row_told(row: Row, name: str, told: Floats, true: Floats, chosen: Bools) -> None:
    late = chosen & (np.arange(len(true))[:, None] >= len(true) // 2)
    factors = np.log(np.maximum(told[late], 1e-9 * true[late]) / true[late])
    figure = (
        f"off by {np.exp(np.abs(factors).mean()):.2f} times,"
        f" {told[late].mean() / true[late].mean():.2f} of the truth on average"
    )
    row(f"Told as usual: {name}", figure, "off by less than 1.3")
