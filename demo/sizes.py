"""Draw request sizes whose mean, median and 99th percentile are the recorded ones."""

from dataclasses import dataclass

import numpy as np

from demo.recordings import Floats, Integers

LOWER_POWER = 0.5  # how the half below the median leans where the mean leaves it open


@dataclass(frozen=True)
class SizeCurve:
    """A quantile function in three pieces, for many recorded sizes at once.

    Below the median it runs from 1 token to the median, from there to the 99th percentile, and the
    top hundredth is one value. The powers bend the pieces so that the mean comes out as recorded.
    """

    median: Floats
    p99: Floats
    lower_power: Floats
    upper_power: Floats
    tail: Floats

    def draw(self, *, rows: Integers, random: np.random.Generator) -> Integers:
        """Draw a size for each of `rows`: whole tokens, at least 1."""
        level = random.random(len(rows))
        median, p99 = self.median[rows], self.p99[rows]
        lower = 1 + (median - 1) * (level / 0.5) ** self.lower_power[rows]
        above = np.clip((level - 0.5) / 0.49, 0, 1)
        upper = median + (p99 - median) * above ** self.upper_power[rows]
        size = np.where(level < 0.5, lower, np.where(level < 0.99, upper, self.tail[rows]))
        # Rounding up or down by chance keeps the mean of small sizes.
        return np.maximum(np.floor(size + random.random(len(rows))), 1).astype(np.int64)


def fit(*, mean: Floats, median: Floats, p99: Floats) -> SizeCurve:
    """Return the curve through each recorded median and 99th percentile that has the recorded mean.

    If only the mean is known, every draw is the mean: nothing else is known.
    """
    median = np.maximum(np.where(np.isnan(median), mean, median), 1)
    p99 = np.maximum(np.where(np.isnan(p99), median, p99), median)
    lower_mean = 1 + (median - 1) / (1 + LOWER_POWER)
    span = p99 - median
    bend = (mean - 0.5 * lower_mean - 0.01 * p99) / 0.49 - median
    share = np.divide(bend, span, out=np.full_like(span, -1.0), where=span > 0)
    clipped = np.clip(share, 0, 1)
    # A mean too small or too large for the upper piece is met by the lower one, then by the tail.
    rest = (mean - 0.49 * (median + clipped * span) - 0.01 * p99) / 0.5
    lower_mean = np.where(share == clipped, lower_mean, np.clip(rest, 1, median))
    body = 0.5 * lower_mean + 0.49 * (median + clipped * span)
    return SizeCurve(
        median=median,
        p99=p99,
        lower_power=power_for(share=ratio(lower_mean - 1, median - 1)),
        upper_power=power_for(share=clipped),
        tail=np.maximum(p99, (mean - body) / 0.01),
    )


def ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)


def power_for(*, share: Floats) -> Floats:
    """Return the power k with mean(u**k) = share for u even in 0 to 1: share = 1 / (1 + k)."""
    return 1 / np.clip(share, 1e-6, 1) - 1
