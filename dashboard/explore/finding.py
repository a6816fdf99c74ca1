"""What a view of usage says in a sentence. Pure."""

from collections.abc import Sequence
from typing import Final

from dashboard.amounts import percent
from dashboard.explore.exploration import Exploration
from dashboard.explore.metrics import Metric
from dashboard.explore.ranking import Line, Ranked, Ranking
from dashboard.findings import shortened
from metering.reporting.metrics import Figures

# A smaller part is not worth a sentence.
NOTABLE_PERCENT: Final = 10


def headline(view: Exploration, ranking: Ranking, lines: Sequence[Line]) -> str:
    """Return who makes most of the total, and what makes most of that; else the total itself."""
    whole = _amount(view.metric, ranking.total)
    words = view.metric.words
    if whole is None:
        return f"No {_lower(words)} in this period"
    total = f"{words}: {view.metric.unit.text(view.metric.value(ranking.total))}"
    named = [row for row in ranking.ranked if row.value and not row.is_tail]
    if not named:
        return total
    top = named[0]
    most = view.metric.value(top.figures)
    if not view.metric.is_additive:
        if len(named) < 2 or most is None:
            return total
        return f"{total}; highest for {_named(view, 0, top)} with {view.metric.unit.text(most)}"
    if not whole or not most or int(most) * 100 < whole * NOTABLE_PERCENT or len(named) < 2:
        return total
    sentence = f"{_named(view, 0, top)} is {percent(int(most), whole)} of {_lower(words)}"
    inner = _largest_part(view, top, lines)
    return f"{sentence[0].upper()}{sentence[1:]}{inner}"


def _largest_part(view: Exploration, top: Ranked, lines: Sequence[Line]) -> str:
    parts = next((line.parts for line in lines if line.ranked is top), ())
    named = [part for part in parts if part.value]
    if len(parts) < 2 or not named:
        return ""
    share = percent(
        int(view.metric.value(named[0].figures) or 0), int(view.metric.value(top.figures) or 0)
    )
    return f", and {_named(view, 1, named[0])} is {share} of that"


def _named(view: Exploration, at: int, row: Ranked) -> str:
    return f"{view.group_by[at]} “{shortened(row.value)}”"


def _amount(metric: Metric, figures: Figures) -> int | None:
    """The total; None where there is nothing to say."""
    value = metric.value(figures)
    if value is None or (metric.is_additive and not any(figures.measures)):
        return None
    return int(value)


def _lower(words: str) -> str:
    return words if words[1:2].isdigit() else f"{words[0].lower()}{words[1:]}"
