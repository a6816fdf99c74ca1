"""The dimension sets: what is added up, by which grain of time, and the values each set keeps."""

from itertools import combinations
from typing import Final, NamedTuple

from metering.models import MEASURES

QUARTER_SECONDS: Final = 900
DAY_SECONDS: Final = 86_400

# The value that stands for the long tail. Dimension values have at most 200 characters, so no event
# can carry it.
OTHER: Final = "(other)".ljust(201)

# The measures as columns, and as sums of columns.
MEASURE_LIST: Final = ", ".join(MEASURES)
SUM_LIST: Final = ", ".join(f"sum({name})" for name in MEASURES)

# A tenant's noisy dimension must not grow its roll-ups without bound: what comes after this many
# values of a bucket is added up as one.
QUARTER_VALUES_MAX: Final = 1_000
DAY_VALUES_MAX: Final = 10_000
PAIR_VALUES_MAX: Final = 20_000


class DimensionSet(NamedTuple):
    """One roll-up. `number` is stored: it is never given another meaning."""

    number: int
    grain_seconds: int
    dimensions: tuple[str, ...]
    values_max: int


# Every dimension that some set has, in the order in which a set names them.
ROLLED_UP_DIMENSIONS: Final = (
    *("team", "customer", "agent", "feature", "model"),
    *("provider", "user", "tool"),
)
# What combinations are made of.
COMBINED: Final = ("session", "user", "team", "customer", "agent", "feature", "model")
# Every text that is read of an event.
TEXTS: Final = (*ROLLED_UP_DIMENSIONS, "session")
_WHOLE_AND_EACH: Final = ((), *((name,) for name in ROLLED_UP_DIMENSIONS))
QUARTER_SETS: Final = tuple(
    DimensionSet(number, QUARTER_SECONDS, names, QUARTER_VALUES_MAX)
    for number, names in enumerate(_WHOLE_AND_EACH[:7], 1)
)
DAY_SETS: Final = (
    *(
        DimensionSet(number, DAY_SECONDS, names, DAY_VALUES_MAX)
        for number, names in enumerate(_WHOLE_AND_EACH, 21)
    ),
    # No pair has the user: it would have about as many rows as there are events.
    *(
        DimensionSet(number, DAY_SECONDS, pair, PAIR_VALUES_MAX)
        for number, pair in enumerate(combinations(ROLLED_UP_DIMENSIONS[:5], 2), 41)
    ),
)
SETS: Final = (*QUARTER_SETS, *DAY_SETS)

# Sets whose days have histograms beside them: the whole, and single dimensions. Users have none:
# each has few calls a day, so there would be a row for almost every call. Calls of tools are no
# requests.
HISTOGRAM_SETS: Final = tuple(
    days
    for days in DAY_SETS
    if len(days.dimensions) < 2 and {"user", "tool"}.isdisjoint(days.dimensions)
)
HISTOGRAM_DIMENSIONS: Final = {days.dimensions: days.number for days in HISTOGRAM_SETS}
_SET_BY_GRAIN: Final = {(each.grain_seconds, frozenset(each.dimensions)): each for each in SETS}


def find_set(dimensions: frozenset[str], *, grain_seconds: int) -> DimensionSet | None:
    """Return the set of that grain with exactly these dimensions."""
    return _SET_BY_GRAIN.get((grain_seconds, dimensions))
