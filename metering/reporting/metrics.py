"""Figures beside sums: ratios, distinct counts, percentiles, successes; and what prices cover."""

from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_DOWN, Decimal
from typing import Final, NamedTuple

from metering.reporting.distinct import distinct_in
from metering.reporting.intervals import Bucket
from metering.reporting.percentiles import PERCENTS, Percentiles, percentiles_in
from metering.reporting.question import InvalidQuestion, UsageQuestion
from metering.reporting.successes import successes_in
from metering.reporting.usage import Cell, Keys, Measures, are_empty
from metering.rollups.bins import MEASURE_COLUMNS
from metering.rollups.sets import OTHER

Figure = int | Decimal | None
SHARE_UNIT: Final = Decimal("0.000001")

DISTINCT: Final = {"users": "user", "sessions": "session", "customers": "customer"}
PERCENTILES: Final = {
    f"p{percent}_{name}": (percent, measure)
    for name, measure in (("cost_usd", "cost_nanos"), ("latency_ms", "latency_ms"))
    for percent in PERCENTS
}
MEASURE_NUMBERS: Final = {column: number for number, column in MEASURE_COLUMNS.items()}


def per_unit(nanos: int, units: int) -> int | None:
    """Return what one of them costs, rounded half up to a nano-dollar; None if there are none."""
    return (2 * nanos + units) // (2 * units) if units else None


def share(part: int, whole: int) -> Decimal | None:
    """Return a share with six decimals, rounded down so that 1 means all; None of nothing."""
    return (Decimal(part) / whole).quantize(SHARE_UNIT, ROUND_DOWN) if whole else None


RATIOS: Final[Mapping[str, Callable[[Measures], Figure]]] = {
    "cost_per_request": lambda measures: per_unit(measures.cost_nanos, measures.requests),
    "error_rate": lambda measures: share(measures.errors, measures.requests + measures.tool_calls),
    "cache_hit_share": lambda measures: share(measures.cache_read_tokens, measures.input_tokens),
}
SUCCESSES: Final = ("successes", "cost_per_success_usd")
METRICS: Final = (*RATIOS, *DISTINCT, *PERCENTILES, *SUCCESSES)
# What is amounts, in nano-dollars.
MONEY_METRICS: Final = frozenset(
    {"cost_per_request", "cost_per_success_usd"}
    | {name for name, (_, measure) in PERCENTILES.items() if measure == "cost_nanos"}
)
# Groups and buckets of these do not add up to what is counted over all of them.
NOT_ADDITIVE: Final = frozenset(METRICS) - {"successes"}


class Figures(NamedTuple):
    """Sums, and the metrics that were asked for by their names: nano-dollars for amounts, shares
    from 0 to 1, None where there is nothing to tell.
    """

    measures: Measures
    metrics: Mapping[str, Figure]


class Coverage(NamedTuple):
    """How much of the usage has a price, and how much of the cost was given in reports instead of
    rated here. None where there is no usage, or no cost.
    """

    priced_share: Decimal | None
    unpriced_requests: int
    given_cost_share: Decimal | None


def coverage_of(total: Measures) -> Coverage:
    """Return the coverage of a total."""
    calls = total.requests + total.tool_calls
    return Coverage(
        share(calls - total.unpriced, calls),
        total.unpriced,
        share(total.given_nanos, total.cost_nanos),
    )


def require_metrics(names: Sequence[str], *, is_cumulative: bool) -> None:
    """Refuse metrics that are unknown, or that cannot be told of running sums."""
    for name in names:
        if name not in METRICS:
            raise InvalidQuestion("unknown_metric", f"metrics are of {', '.join(METRICS)}.")
        if is_cumulative and name not in RATIOS:
            raise InvalidQuestion(
                "not_additive", f"{name} is of each row's own time: leave out cumulative or {name}."
            )


class _Read(NamedTuple):
    """What was read beside the measures: counts by the name of their metric, and percentiles."""

    counts: Mapping[str, Mapping[Cell, int]]
    percentiles: Mapping[Cell, Percentiles]

    def figure(self, name: str, cell: Cell, measures: Measures) -> Figure:
        if name in RATIOS:
            return RATIOS[name](measures)
        if name in PERCENTILES:
            percent, measure = PERCENTILES[name]
            percentiles: Mapping[int, int | None] = getattr(self.percentiles.get(cell), measure, {})
            return percentiles.get(percent)
        if OTHER in cell[1]:
            return None  # which values the long tail is of is not known
        if name == "cost_per_success_usd":
            return per_unit(measures.cost_nanos, self.counts["successes"].get(cell, 0))
        return self.counts[name].get(cell, 0)


def figures_in(
    question: UsageQuestion,
    portion: Sequence[Bucket],
    group_by: tuple[str, ...],
    cells: Mapping[Cell, Measures],
    names: Sequence[str],
) -> dict[Cell, Figures]:
    """Return the metrics of cells beside their measures. Raises TooMuchToRead."""
    read = _read(question, portion, group_by, {key for _, key in cells}, frozenset(names))
    return {
        cell: Figures(measures, {name: read.figure(name, cell, measures) for name in names})
        for cell, measures in cells.items()
    }


def _read(
    question: UsageQuestion,
    portion: Sequence[Bucket],
    group_by: tuple[str, ...],
    keys: Keys,
    names: frozenset[str],
) -> _Read:
    counts: dict[str, Mapping[Cell, int]] = {name: {} for name in (*DISTINCT, "successes")}
    percentiles: Mapping[Cell, Percentiles] = {}
    of_values = {key for key in keys if OTHER not in key}
    if are_empty(portion) or not keys:
        return _Read(counts, percentiles)
    for name in names & DISTINCT.keys() if of_values else ():
        dimension = DISTINCT[name]
        counts[name] = distinct_in(question, portion, group_by, of_values, dimension=dimension)
    if of_values and not names.isdisjoint(SUCCESSES):
        counts["successes"] = successes_in(question, portion, group_by, of_values)
    measures = {MEASURE_NUMBERS[PERCENTILES[name][1]] for name in names & PERCENTILES.keys()}
    if measures:
        percentiles = percentiles_in(question, portion, group_by, keys, measures=measures)
    return _Read(counts, percentiles)
