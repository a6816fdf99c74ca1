"""What a plan would charge for usage that is given and not stored."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from billing.charge_models import Used
from billing.periods import Part
from billing.rating import RatedLine, UsedPart, rate
from billing.terms import Metric, UsageCharge

# What `tokens` includes.
_TOKENS: Final = (Metric.TOKENS, Metric.INPUT_TOKENS, Metric.OUTPUT_TOKENS)


class GivenUsage(NamedTuple):
    """Some usage of one metric; without a time it is of the period's last moment."""

    metric: Metric
    quantity: Decimal
    dimensions: Mapping[str, str]
    time: datetime | None = None


class _Cell(NamedTuple):
    """What usage adds up by."""

    part: int
    metric: Metric
    dimensions: tuple[tuple[str, str], ...]


def rate_given(parts: Sequence[Part], usage: Iterable[GivenUsage]) -> list[RatedLine]:
    """Return the lines of a period that is over, from usage within it."""
    cells = _add_up(parts, usage)
    used_parts: list[UsedPart] = []
    for index, part in enumerate(parts):
        of_part = {cell: total for cell, total in cells.items() if cell.part == index}
        charges = part.version.terms.charges
        used = {
            charge.name: _used_of(charge, of_part)
            for charge in charges
            if isinstance(charge, UsageCharge)
        }
        used_parts.append((part, used))
    return rate(used_parts)


def _add_up(parts: Sequence[Part], usage: Iterable[GivenUsage]) -> dict[_Cell, Fraction]:
    cells: defaultdict[_Cell, Fraction] = defaultdict(Fraction)
    for each in usage:
        index = len(parts) - 1
        if each.time is not None:
            index = next(
                index
                for index, part in enumerate(parts)
                if part.starts_at <= each.time < part.ends_at
            )
        cell = _Cell(index, each.metric, tuple(sorted(each.dimensions.items())))
        cells[cell] += Fraction(each.quantity)
    return dict(cells)


def _used_of(charge: UsageCharge, cells: Mapping[_Cell, Fraction]) -> Used:
    metrics = _TOKENS if charge.metric == Metric.TOKENS else (charge.metric,)
    matching = list(_matching(cells, charge.wanted))
    costs: defaultdict[tuple[str, str], Fraction] = defaultdict(Fraction)
    if charge.metric == Metric.COST:
        for cell, total in matching:
            if cell.metric == Metric.COST:
                whose = dict(cell.dimensions)
                costs[whose.get("provider", ""), whose.get("model", "")] += total
    return Used(
        quantity=sum((total for cell, total in matching if cell.metric in metrics), Fraction(0)),
        requests=sum(
            (total for cell, total in matching if cell.metric == Metric.REQUESTS), Fraction(0)
        ),
        costs=costs,
    )


def _matching(
    cells: Mapping[_Cell, Fraction], wanted: Mapping[str, frozenset[str]]
) -> Iterator[tuple[_Cell, Fraction]]:
    for cell, total in cells.items():
        values = dict(cell.dimensions)
        if all(values.get(name, "") in any_of for name, any_of in wanted.items()):
            yield cell, total
