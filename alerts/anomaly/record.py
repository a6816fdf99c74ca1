"""What is remembered of a series: one record of fixed size, so that it can be stored as bytes."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
States = npt.NDArray[np.void]

VERSION: Final = 2
HOURS_OF_DAY: Final = 24
HOURS_OF_WEEK: Final = 168
LONG_AGO_HOURS: Final = 1e9
PATTERN_STEPS: Final = 52
PATTERNS: Final = 12
BINS: Final = 11

# Amounts are in the measure's own unit; "surprise" means distance on the scale of `scales.py`.
RECORD: Final[np.dtype[Any]] = np.dtype(
    [
        ("version", np.uint8),
        ("is_open", np.bool_),
        ("is_above", np.bool_),
        ("is_novel", np.bool_),  # the open anomaly is a new pattern, and no more than that
        ("steps", np.float64),  # steps with a known value
        ("age_hours", np.float64),  # since the first known value, gaps that were reported included
        ("busy_hours", np.float64),  # of these with anything going on
        ("typical", np.float64),  # mean size
        ("request", np.float64),  # size of one request, in sums
        ("variance", np.float64),  # between single requests, in ratios
        ("last", np.float64),
        ("recent", np.float64),  # level of the last hour
        ("mean_middle", np.float64),  # over a day, of the middle of what was learned,
        ("mean_value", np.float64),  # and of the values that came
        ("high", np.float64),  # the high and the low end of the usual range
        ("low", np.float64),
        ("surprise_above", np.float64),  # fourth moments of how far expectations were missed,
        ("surprise_below", np.float64),
        ("excess_above", np.float64),  # and of how far the usual range was left
        ("excess_below", np.float64),
        ("open_hours", np.float64),  # how long the anomaly lasts,
        ("calm_hours", np.float64),  # how long it has not been seen,
        ("rest_hours", np.float64),  # since the latest anomaly opened,
        ("new_level", np.float64),  # and the level it would settle at
        ("day", np.float32, HOURS_OF_DAY),  # level of each hour of the day, and of the week, in UTC
        ("week", np.float32, HOURS_OF_WEEK),
        ("first_low", np.float64),  # the range of the first steps
        ("first_high", np.float64),
        ("latest", np.uint8, PATTERN_STEPS),  # the bins of the latest steps, a ring
        ("histogram", np.uint8, BINS),  # of these
        ("patterns", np.uint8, (PATTERNS, BINS)),  # histograms seen before,
        ("matched_at", np.uint32, PATTERNS),  # the step in which each was last seen,
        ("pattern_count", np.uint8),  # how many there are,
        ("pattern", np.uint8),  # and which was last
    ]
)


def new_states(count: int) -> States:
    """Return records of series about which nothing is known yet."""
    states = np.zeros(count, RECORD)
    states["version"] = VERSION
    states["day"] = np.nan
    states["week"] = np.nan
    states["rest_hours"] = LONG_AGO_HOURS
    return states
