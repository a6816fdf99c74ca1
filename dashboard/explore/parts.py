"""What the whole is composed of, as figures of the explore page: a treemap, and streams."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dashboard.charts import OTHERS, Figure
from dashboard.colors import OTHER, PALETTE, SERIES_MAX, places_of
from dashboard.composition import Part, Stream, flow, treemap
from dashboard.explore.exploration import Exploration
from dashboard.explore.metrics import Metric
from dashboard.explore.ranking import Line, Ranked, Rest, page_of, read_ranking, rest_of
from dashboard.findings import value_words
from dashboard.spend import read_greatest
from metering.reporting.metrics import Figures


def composition_figure(view: Exploration) -> Figure:
    """The values of the first page, those in them, and the rest."""
    lines, rest = _read(view)
    parts = []
    for part, line in zip(_parts(view, lines), lines, strict=True):
        around = view.within(line.ranked.value)
        inner = [_part(around, part_, view.group_by[-1], part.color) for part_ in line.parts]
        if line.rest is not None and line.parts:
            inner.append(_others(view, line.rest, part.color))
        parts.append(part._replace(parts=inner))
    if rest is not None:
        parts.append(_others(view, rest, OTHER))
    return treemap(parts, unit=view.metric.unit)


def flow_figure(view: Exploration) -> Figure:
    """How the values of the first page go into the greatest of the second dimension; what is in
    none of these goes into the others.
    """
    lines, rest = _read(view)
    left = _parts(view, lines)
    amounts = [
        {part.value: _value(view.metric, part.figures) for part in line.parts} for line in lines
    ]
    sums: Counter[str] = Counter()
    for amount in amounts:
        sums.update(amount)
    shown = [value for value, _ in sums.most_common(SERIES_MAX)]
    streams = []
    for at, amount in enumerate(amounts):
        named = [Stream(at, index, amount.get(value, 0)) for index, value in enumerate(shown)]
        left_over = left[at].amount - sum(stream.amount for stream in named)
        streams += [*named, Stream(at, len(shown), left_over)]
    if rest is not None:
        left.append(_others(view, rest, OTHER))
        streams.append(Stream(len(lines), len(shown), left[-1].amount))
    return flow(left, _ends(view, shown, streams), streams, unit=view.metric.unit)


def _read(view: Exploration) -> tuple[list[Line], Rest | None]:
    """The lines of the first page, and all values that are on none of them."""
    ranking = read_ranking(replace(view, bar=view.bar.with_comparison(False)))
    lines = page_of(replace(view, search="", page=1), ranking)
    return lines, rest_of(ranking, lines)


def _parts(view: Exploration, lines: Sequence[Line]) -> list[Part]:
    """The value of each line, in its color."""
    shown = [line.ranked.value for line in lines if not line.ranked.is_tail][:SERIES_MAX]
    places = places_of(read_greatest(view.tenant_id, view.bar), shown)
    return [
        _part(
            view,
            line.ranked,
            view.group_by[0],
            PALETTE[places[line.ranked.value]]
            if at < len(shown) and not line.ranked.is_tail
            else OTHER,
        )
        for at, line in enumerate(lines)
    ]


def _ends(view: Exploration, values: Sequence[str], streams: Sequence[Stream]) -> list[Part]:
    """The values of the second dimension that streams lead to, and the others."""
    sums: Counter[int] = Counter()
    for stream in streams:
        sums[stream.right] += stream.amount
    name = view.group_by[-1]
    ends = [
        Part(value_words(name, value), sums[at], OTHER, view.deeper(name, value).query())
        for at, value in enumerate(values)
    ]
    return [*ends, Part(OTHERS, sums[len(values)], OTHER, "")]


def _others(view: Exploration, rest: Rest, color: str) -> Part:
    return Part(OTHERS, _value(view.metric, rest.figures), color, "")


def _value(metric: Metric, figures: Figures) -> int:
    return int(metric.value(figures) or 0)


def _part(view: Exploration, row: Ranked, dimension: str, color: str) -> Part:
    if row.is_tail:
        return Part(OTHERS, _value(view.metric, row.figures), color, "")
    address = view.deeper(dimension, row.value).query()
    return Part(value_words(dimension, row.value), _value(view.metric, row.figures), color, address)
