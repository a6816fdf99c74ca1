"""Small charts of columns, drawn by the server. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from metering.reporting.session_steps import Step

COLUMNS_MAX: Final = 48
# Each bin of a histogram is about 1.4 times as wide as the one before: amounts differ by orders.
BIN_GROWTH: Final = (141, 100)
HEIGHT: Final = Decimal(100)


class Column(NamedTuple):
    """A column in percent of the chart; `first` and `last` say what it stands for."""

    x: Decimal
    width: Decimal
    height: Decimal
    y: Decimal
    tone: str
    first: int
    last: int
    amount: int


class Mark(NamedTuple):
    """A line at a place of the axis."""

    x: Decimal
    words: str
    amount: int


@dataclass(frozen=True)
class Chart:
    """Columns, and what is marked among them."""

    columns: list[Column]
    marks: list[Mark]
    highest: int


class Jump(NamedTuple):
    """A model call whose input grew on the one before it of the same agent."""

    number: int
    step: Step
    before: int

    @property
    def grown(self) -> int:
        return self.step.input_tokens - self.before


def jumps_of(numbered: Sequence[tuple[int, Step]], *, limit: int) -> list[Jump]:
    """The model calls where the context grew most, the greatest first."""
    before: dict[str, int] = {}
    jumps = []
    for number, step in numbered:
        if not step.input_tokens:
            continue
        if step.agent in before and step.input_tokens > before[step.agent]:
            jumps.append(Jump(number, step, before[step.agent]))
        before[step.agent] = step.input_tokens
    jumps.sort(key=lambda jump: (-jump.grown, jump.number))
    return jumps[:limit]


def chart_of(amounts: Sequence[tuple[int, int, str]]) -> Chart:
    """A chart of amounts by the number of a call: (number, amount, tone).

    Long ones are cut into stretches of equal length, each as high as its greatest.
    """
    size = max(1, -(-len(amounts) // COLUMNS_MAX))
    groups = [amounts[start : start + size] for start in range(0, len(amounts), size)]
    values = [
        (group[0][0], group[-1][0], *max((amount, tone) for _, amount, tone in group))
        for group in groups
    ]
    return Chart(_columns(values), [], max((value[2] for value in values), default=0))


def histogram_of(costs: Sequence[int], own_nanos: int, marks: Sequence[tuple[str, int]]) -> Chart:
    """How many sessions cost how much, and where this one is: its column is marked."""
    greatest = max(*costs, own_nanos)
    edges = [max(1, min(*costs, own_nanos))]
    grown, of = BIN_GROWTH
    while edges[-1] <= greatest:
        edges.append(edges[-1] * grown // of + 1)

    def bin_of(cost: int) -> int:
        return max(0, bisect_right(edges, cost) - 1)

    counts = [0] * max(1, len(edges) - 1)
    for cost in costs:
        counts[bin_of(cost)] += 1
    own = bin_of(own_nanos)
    counts[own] += 1
    values = [
        (
            edges[place],
            edges[min(place + 1, len(edges) - 1)],
            count,
            "fcrit" if place == own else "f0",
        )
        for place, count in enumerate(counts)
    ]
    columns = _columns(values)
    placed = [
        Mark(column.x + column.width / 2, words, cost)
        for words, cost in marks
        for column in [columns[bin_of(cost)]]
    ]
    return Chart(columns, placed, max(counts))


def _columns(values: Sequence[tuple[int, int, int, str]]) -> list[Column]:
    highest = max((value[2] for value in values), default=0) or 1
    step = round(Decimal(100) / max(len(values), 1), 3)
    columns = []
    for place, (first, last, amount, tone) in enumerate(values):
        height = round(amount * HEIGHT / highest, 2)
        columns.append(
            Column(
                x=step * place,
                width=round(step * Decimal("0.8"), 3),
                height=height,
                y=HEIGHT - height,
                tone=tone,
                first=first,
                last=last,
                amount=amount,
            )
        )
    return columns
