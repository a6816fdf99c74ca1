"""What is remembered of a series: one record of fixed size, so that it can be stored as bytes."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
States = npt.NDArray[np.void]

VERSION: Final = 1
HOURS_OF_DAY: Final = 24
HOURS_OF_WEEK: Final = 168

# Amounts are in the measure's own unit; "surprise" means distance on the scale of `scales.py`.
RECORD: Final[np.dtype[Any]] = np.dtype(
    [
        ("version", np.uint8),
        ("is_open", np.bool_),
        ("is_above", np.bool_),
        ("steps", np.float64),  # steps with a known value
        ("age_hours", np.float64),  # since the first known value, gaps that were reported included
        ("busy_hours", np.float64),  # of these with anything going on
        ("typical", np.float64),  # mean size
        ("request", np.float64),  # size of one request, in sums
        ("variance", np.float64),  # between single requests, in ratios
        ("last", np.float64),
        ("recent", np.float64),  # level of the last hour
        ("high", np.float64),  # the high and the low end of the usual range
        ("low", np.float64),
        ("surprise_above", np.float64),  # fourth moments of how far expectations were missed,
        ("surprise_below", np.float64),
        ("excess_above", np.float64),  # and of how far the usual range was left
        ("excess_below", np.float64),
        ("open_hours", np.float64),  # how long the anomaly lasts,
        ("calm_hours", np.float64),  # how long it has not been seen,
        ("new_level", np.float64),  # and the level it would settle at
        ("day", np.float32, HOURS_OF_DAY),  # level of each hour of the day, and of the week, in UTC
        ("week", np.float32, HOURS_OF_WEEK),
    ]
)


def new_states(count: int) -> States:
    """Return records of series about which nothing is known yet."""
    states = np.zeros(count, RECORD)
    states["version"] = VERSION
    states["day"] = np.nan
    states["week"] = np.nan
    return states
