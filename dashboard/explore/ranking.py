"""The values of a dimension by rank, what each is made of, and the rest: they sum to the total."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dashboard.explore.exploration import Exploration
from dashboard.explore.metrics import Value
from metering.reporting.metrics import Figures
from metering.reporting.report import UsageReport, usage_report
from metering.reporting.usage import Measures

# Values that are ranked, those that cost most first; the rest counts in the row of all others.
RANKED_MAX: Final = 500
PER_PAGE: Final = 10
# Values of the second dimension: read for a page, and shown of each value of the first.
PARTS_READ_MAX: Final = 300
PARTS_SHOWN_MAX: Final = 5
NOTHING: Final = Measures()


class Ranked(NamedTuple):
    """One value with its figures. `is_tail` are values too many to be kept apart."""

    value: str
    figures: Figures
    before: Figures | None
    is_tail: bool = False


class Rest(NamedTuple):
    """What is not shown by itself: how many values, at least, and their measures."""

    values: int
    is_more: bool
    measures: Measures

    @property
    def figures(self) -> Figures:
        """Only measures: the metrics of a rest are not known."""
        return Figures(self.measures, {})


@dataclass(frozen=True)
class Line:
    """A row of the table: a value, the values of the second dimension in it, and their rest."""

    ranked: Ranked
    parts: Sequence[Ranked] = ()
    rest: Rest | None = None


@dataclass(frozen=True)
class Ranking:
    """Every value that was read, the greatest first, with the total and that of the time before."""

    ranked: Sequence[Ranked]
    total: Figures
    before: Figures | None
    has_more: bool = False
    report: UsageReport | None = field(default=None, repr=False)


def measures_left(whole: Measures, parts: Sequence[Measures]) -> Measures:
    """What the parts leave of the whole."""
    return Measures(*(amount - sum(part[at] for part in parts) for at, amount in enumerate(whole)))


def read_ranking(view: Exploration) -> Ranking:
    """Rank the values of the first dimension. Raises InvalidQuestion if the metric is not known by
    this dimension.
    """
    name = view.group_by[0]
    asked = view.question(view.bar.range, group_by=(name,))
    if asked is None:
        return Ranking([], Figures(NOTHING, dict.fromkeys(view.metric.asked)), None)
    report = usage_report(asked, metrics=view.metric.asked, limit=RANKED_MAX)
    values = {row.row.key[0] for row in report.rows if not row.row.is_other}
    before, total_before = _before(view, values)
    ranked = [
        Ranked(
            row.row.key[0],
            row.figures,
            before.get(row.row.key),
            row.row.is_other,
        )
        for row in report.rows
    ]
    return Ranking(
        _by_rank(view, ranked), report.total, total_before, report.next_cursor is not None, report
    )


def _before(
    view: Exploration, values: set[str]
) -> tuple[Mapping[tuple[str, ...], Figures], Figures | None]:
    """What was before, by key, and in total; None where it is not compared."""
    span = view.bar.previous
    if not view.bar.has_comparison:
        return {}, None
    asked = view.question(span, group_by=view.group_by[:1])
    if asked is None or not values:
        return {}, None
    report = usage_report(asked, metrics=view.metric.asked, limit=RANKED_MAX)
    return {row.row.key: row.figures for row in report.rows}, report.total


def _by_rank(view: Exploration, rows: Sequence[Ranked]) -> list[Ranked]:
    """The greatest first; what has no value last, and the long tail after all others."""

    def rank(row: Ranked) -> tuple[bool, bool, Value, str]:
        value = view.metric.value(row.figures)
        return row.is_tail, value is None, -(value or 0), row.value

    return sorted(rows, key=rank)


def found(view: Exploration, ranking: Ranking) -> list[Ranked]:
    """Those whose name holds what is searched for."""
    if not view.search:
        return list(ranking.ranked)
    wanted = view.search.casefold()
    return [row for row in ranking.ranked if wanted in row.value.casefold()]


def page_of(view: Exploration, ranking: Ranking) -> list[Line]:
    """The lines of the page that is asked for, with the values of the second dimension in each."""
    at = (view.page - 1) * PER_PAGE
    shown = found(view, ranking)[at : at + PER_PAGE]
    parts = _parts(view, [row.value for row in shown if not row.is_tail])
    return [_line(view, row, parts.get(row.value, [])) for row in shown]


def _line(view: Exploration, row: Ranked, parts: Sequence[Ranked]) -> Line:
    if row.is_tail or not parts:
        return Line(row)
    ordered = _by_rank(view, parts)
    shown = ordered[:PARTS_SHOWN_MAX]
    left = measures_left(row.figures.measures, [part.figures.measures for part in shown])
    rest = None
    if any(left):
        rest = Rest(max(1, len(ordered) - len(shown)), len(parts) >= PARTS_READ_MAX, left)
    return Line(row, shown, rest)


def _parts(view: Exploration, values: Sequence[str]) -> dict[str, list[Ranked]]:
    """The values of the second dimension in each of these of the first."""
    if len(view.group_by) < 2 or not values:
        return {}
    only = {view.group_by[0]: tuple(values)}
    asked = view.question(view.bar.range, group_by=view.group_by, only=only)
    if asked is None:
        return {}
    report = usage_report(asked, metrics=view.metric.asked, limit=PARTS_READ_MAX)
    before: dict[tuple[str, ...], Figures] = {}
    earlier = view.question(view.bar.previous, group_by=view.group_by, only=only)
    if view.bar.has_comparison and earlier is not None:
        past = usage_report(earlier, metrics=view.metric.asked, limit=PARTS_READ_MAX)
        before = {row.row.key: row.figures for row in past.rows}
    parts: dict[str, list[Ranked]] = {}
    for row in report.rows:
        if row.row.is_other:
            continue  # its first value is not known: it counts in the rest
        first, second = row.row.key
        part = Ranked(second, row.figures, before.get(row.row.key))
        parts.setdefault(first, []).append(part)
    return parts


def rest_of(ranking: Ranking, lines: Sequence[Line]) -> Rest | None:
    """All values that are on no line of the page; None: there are none."""
    left = measures_left(ranking.total.measures, [line.ranked.figures.measures for line in lines])
    if not any(left):
        return None
    return Rest(max(1, len(ranking.ranked) - len(lines)), ranking.has_more, left)
