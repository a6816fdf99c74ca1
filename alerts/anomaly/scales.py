"""The scale on which values are compared, and what chance alone does to them.

Spend is compared by factors, not by differences: on this scale equal factors are equal distances
for values well above a series' noise, and equal differences are for values below it, zero and
negative ones included. It is asinh(value / 2 noise), about ln(value / noise).
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from alerts.anomaly.record import Bools, Floats, States

NOISE_SHARE: Final = 0.2  # of the typical size; below it differences stop being factors
HANDFUL: Final = 10.0  # requests; evidence resting on so many counts half
CHANCE: Final = 4.0  # -ln of how likely chance is to lie outside the width
SUM_SKEW: Final = 2.0  # mean square over squared mean of what single requests add
RANGE_POWER: Final = 4.0
FURTHEST: Final = 5.0  # below the end of the range; further away changes it no more
LARGEST: Final = 1e30  # values beyond it are taken for unknown, so that no arithmetic overflows


class Step(NamedTuple):
    """One step of n series; `values` is finite where `is_known` and 0 elsewhere."""

    at: npt.NDArray[np.int64]
    hours: Floats
    values: Floats
    weights: Floats | None
    is_known: Bools
    is_ratio: bool

    @property
    def is_busy(self) -> Bools:
        """Whether anything went on: a ratio rests on requests, an idle sum is zero."""
        return self.is_known if self.is_ratio else self.is_known & (self.values != 0)

    @property
    def trust(self) -> Floats:
        """How much a ratio proves, by the requests it rests on."""
        if self.weights is None or not self.is_ratio:
            return np.ones(len(self.values))
        trust: Floats = self.weights / (self.weights + HANDFUL)
        return trust


def noise_of(states: States, step: Step) -> Floats:
    """Return the size below which differences of this series mean little."""
    noise: Floats = NOISE_SHARE * states["typical"]
    if step.weights is not None and not step.is_ratio:
        noise = np.maximum(noise, HANDFUL * states["request"])
    unheard_of = np.where(step.values == 0, 1.0, np.abs(step.values) / 2)
    return np.where(noise > 0, noise, unheard_of)


def to_scale(values: Floats, noise: Floats) -> Floats:
    """Place amounts on the scale."""
    placed: Floats = np.arcsinh(values / (2 * noise))
    return placed


def from_scale(positions: Floats, noise: Floats) -> Floats:
    """Return the amounts at these places."""
    values: Floats = 2 * noise * np.sinh(positions)
    return values


def chance_width(states: States, step: Step, level: Floats) -> Floats:
    """Return how far from its level a value lies by chance (Bernstein's bound), in its own unit.

    A sum varies with the number of its requests; a ratio with what single requests say, less the
    more there are. Nothing is known of it without weights.
    """
    if step.weights is None:
        return np.zeros(len(step.values))
    if step.is_ratio:
        requests = np.maximum(step.weights, 1e-9)
        spread, largest = (
            states["variance"],
            states["variance"] / np.maximum(states["typical"], 1e-30),
        )
    else:
        requests = np.ones(len(step.values))
        largest = SUM_SKEW * states["request"]
        spread = np.maximum(level, 0) * largest
    width: Floats = np.sqrt(2 * CHANCE * spread / requests) + CHANCE * largest / (3 * requests)
    return width


def range_end(end: Floats, position: Floats, rate: Floats, furthest: Floats) -> Floats:
    """Move the high end of a range towards a value: a running power mean, near the high values.

    On the scale, a power mean of amounts is a mean of exponentials; the low end is the high end
    of everything negated.
    """
    distance = np.clip(position - end, -FURTHEST, furthest)
    moved: Floats = end + np.log1p(rate * np.expm1(RANGE_POWER * distance)) / RANGE_POWER
    return moved
