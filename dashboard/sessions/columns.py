"""Small charts of columns, drawn by the server. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from dashboard.amounts import money
from metering.reporting.session_steps import Step

COLUMNS_MAX: Final = 48
# Each bin of a histogram is about 1.4 times as wide as the one before: amounts differ by orders.
BIN_GROWTH: Final = (141, 100)
HEIGHT: Final = Decimal(100)
# Nearer to an end of the axis, in percent, words are not centered.
EDGE: Final = 20


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
    """A line at a place of the axis, and the words below it, in the first row or the second."""

    x: Decimal
    words: str
    row: int

    @property
    def anchor(self) -> str:
        """Which end of the words stands at the line, so that they stay within the chart."""
        return "start" if self.x < EDGE else "end" if self.x > HEIGHT - EDGE else "middle"


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


def histogram_of(
    costs: Sequence[int], marks: Sequence[tuple[str, int]], *, own_nanos: int | None = None
) -> Chart:
    """How many sessions cost how much. One that is told by itself counts, and marks its column."""
    every = [*costs, *([] if own_nanos is None else [own_nanos])]
    greatest = max(every)
    # What costs nothing stands in the first column.
    edges = [min((cost for cost in every if cost > 0), default=1)]
    grown, of = BIN_GROWTH
    while edges[-1] <= greatest:
        edges.append(edges[-1] * grown // of + 1)

    def bin_of(cost: int) -> int:
        return max(0, bisect_right(edges, cost) - 1)

    counts = [0] * max(1, len(edges) - 1)
    for cost in every:
        counts[bin_of(cost)] += 1
    own = None if own_nanos is None else bin_of(own_nanos)
    values = [
        (
            edges[index] if index else min(edges[0], *every),
            edges[min(index + 1, len(edges) - 1)],
            count,
            "fcrit" if index == own else "f0" if own_nanos is not None else "f1",
        )
        for index, count in enumerate(counts)
    ]
    columns = _columns(values)
    words_of: dict[int, list[str]] = {}
    for words, cost in marks:
        words_of.setdefault(bin_of(cost), []).append(f"{words} {money(cost)}")
    placed = [
        Mark(columns[index].x + columns[index].width / 2, " · ".join(words), at % 2)
        for at, (index, words) in enumerate(words_of.items())
    ]
    return Chart(columns, placed, max(counts))


def _columns(values: Sequence[tuple[int, int, int, str]]) -> list[Column]:
    highest = max((value[2] for value in values), default=0) or 1
    step = round(Decimal(100) / max(len(values), 1), 3)
    columns = []
    for index, (first, last, amount, tone) in enumerate(values):
        height = round(amount * HEIGHT / highest, 2)
        columns.append(
            Column(
                x=step * index,
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
