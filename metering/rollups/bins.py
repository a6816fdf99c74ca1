"""Bins of the histograms behind percentiles: each is a tenth wider than the one before."""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

GROWTH: Final = 1.1
# Zero has no logarithm and gets a bin of its own below all others.
ZERO_BIN: Final = -1

LATENCY: Final = 1
TIME_TO_FIRST_TOKEN: Final = 2
COST: Final = 3
MEASURE_COLUMNS: Final = {
    LATENCY: "latency_ms",
    TIME_TO_FIRST_TOKEN: "time_to_first_token_ms",
    COST: "cost_nanos",
}

# The same for SQL: bins of `{value}`. Both round a value on a bin's edge in their own way, which
# moves a percentile by no more than a bin's width.
BIN_SQL: Final = (
    f"CASE WHEN {{value}} <= 0 THEN {ZERO_BIN}"
    f" ELSE ceil(ln({{value}}::float8) / {math.log(GROWTH)!r}) END::smallint"
)


def bins_of(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bin of each value; bin b holds those above GROWTH ** (b - 1) up to GROWTH ** b."""
    exponents = np.ceil(np.log(np.maximum(values, 1)) / math.log(GROWTH)).astype(np.int64)
    bins: NDArray[np.int64] = np.where(values > 0, exponents, ZERO_BIN)
    return bins


def middle(bin_number: int) -> int:
    """Return the value a bin stands for: at most 4.9% from every value in it, then rounded."""
    if bin_number == ZERO_BIN:
        return 0
    return max(1, round(math.pow(GROWTH, bin_number - 0.5)))


def largest(bin_number: int) -> int:
    """Return the largest whole number of a bin: at most a tenth above every value in it."""
    return 0 if bin_number == ZERO_BIN else math.floor(math.pow(GROWTH, bin_number))


def percentile(counts: Mapping[int, int], percent: int) -> int | None:
    """Return the nearest-rank percentile of values counted by bin; None if there are none."""
    bin_number = percentile_bin(counts, percent)
    return None if bin_number is None else middle(bin_number)


def percentile_bin(counts: Mapping[int, int], percent: int) -> int | None:
    """Return the bin that holds the nearest-rank percentile; None if nothing is counted."""
    total = sum(counts.values())
    if total <= 0:
        return None
    rank = -(-total * percent // 100)
    seen = 0
    for bin_number in sorted(counts):
        seen += counts[bin_number]
        if seen >= rank:
            return bin_number
    raise AssertionError("a rank is never above the number of values")
