"""The dimension sets: what is added up, by which grain of time, and the values each set keeps."""

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


QUARTER_SETS: Final = (
    DimensionSet(1, QUARTER_SECONDS, (), QUARTER_VALUES_MAX),
    DimensionSet(2, QUARTER_SECONDS, ("team",), QUARTER_VALUES_MAX),
    DimensionSet(3, QUARTER_SECONDS, ("customer",), QUARTER_VALUES_MAX),
    DimensionSet(4, QUARTER_SECONDS, ("agent",), QUARTER_VALUES_MAX),
    DimensionSet(5, QUARTER_SECONDS, ("feature",), QUARTER_VALUES_MAX),
    DimensionSet(6, QUARTER_SECONDS, ("model",), QUARTER_VALUES_MAX),
    DimensionSet(7, QUARTER_SECONDS, ("provider",), QUARTER_VALUES_MAX),
)
DAY_SETS: Final = (
    DimensionSet(21, DAY_SECONDS, (), DAY_VALUES_MAX),
    DimensionSet(22, DAY_SECONDS, ("team",), DAY_VALUES_MAX),
    DimensionSet(23, DAY_SECONDS, ("customer",), DAY_VALUES_MAX),
    DimensionSet(24, DAY_SECONDS, ("agent",), DAY_VALUES_MAX),
    DimensionSet(25, DAY_SECONDS, ("feature",), DAY_VALUES_MAX),
    DimensionSet(26, DAY_SECONDS, ("model",), DAY_VALUES_MAX),
    DimensionSet(27, DAY_SECONDS, ("provider",), DAY_VALUES_MAX),
    DimensionSet(28, DAY_SECONDS, ("user",), DAY_VALUES_MAX),
    DimensionSet(29, DAY_SECONDS, ("tool",), DAY_VALUES_MAX),
    # Pairs with user are not here: they have about as many rows as there are events.
    DimensionSet(41, DAY_SECONDS, ("team", "customer"), PAIR_VALUES_MAX),
    DimensionSet(42, DAY_SECONDS, ("team", "agent"), PAIR_VALUES_MAX),
    DimensionSet(43, DAY_SECONDS, ("team", "feature"), PAIR_VALUES_MAX),
    DimensionSet(44, DAY_SECONDS, ("team", "model"), PAIR_VALUES_MAX),
    DimensionSet(45, DAY_SECONDS, ("customer", "agent"), PAIR_VALUES_MAX),
    DimensionSet(46, DAY_SECONDS, ("customer", "feature"), PAIR_VALUES_MAX),
    DimensionSet(47, DAY_SECONDS, ("customer", "model"), PAIR_VALUES_MAX),
    DimensionSet(48, DAY_SECONDS, ("agent", "feature"), PAIR_VALUES_MAX),
    DimensionSet(49, DAY_SECONDS, ("agent", "model"), PAIR_VALUES_MAX),
    DimensionSet(50, DAY_SECONDS, ("feature", "model"), PAIR_VALUES_MAX),
)
SETS: Final = (*QUARTER_SETS, *DAY_SETS)
# Every dimension that some set has, in the order in which a set names them.
ROLLED_UP_DIMENSIONS: Final = (
    "team",
    "customer",
    "agent",
    "feature",
    "model",
    "provider",
    "user",
    "tool",
)

# Sets whose days have histograms beside them.
HISTOGRAM_SETS: Final = tuple(
    one for one in DAY_SETS if one.dimensions in {(), ("agent",), ("feature",), ("model",)}
)
HISTOGRAM_DIMENSIONS: Final = {one.dimensions: one.number for one in HISTOGRAM_SETS}


def find_set(dimensions: frozenset[str], *, grain_seconds: int) -> DimensionSet | None:
    """Return the set of that grain with exactly these dimensions."""
    for dimension_set in SETS:
        if (
            dimension_set.grain_seconds == grain_seconds
            and frozenset(dimension_set.dimensions) == dimensions
        ):
            return dimension_set
    return None
