"""What is drawn over a chart: limits, shades, and incidents. Pure."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Final, NamedTuple

from dashboard.charts import (
    CRITICAL,
    GHOST,
    MONEY,
    MUTED,
    WARNING,
    Figure,
    Unit,
    escaped,
    height,
    template,
)
from dashboard.colors import OTHER
from dashboard.findings import shortened

TITLE_CHARACTERS: Final = 60
BY_SEVERITY: Final = {"critical": CRITICAL, "warning": WARNING, "info": OTHER}
# The shape tells the severity, too; the pages use the same ones.
_SYMBOLS: Final = {"critical": "◆", "warning": "▲", "info": "●"}


class Level(NamedTuple):
    """A line across the chart: the limit of a budget, or one of its levels."""

    amount: int
    words: str
    is_limit: bool = False


class Mark(NamedTuple):
    """Incidents of one bucket, above the bars. `title` is of the worst of them."""

    place: int
    severity: str
    title: str
    number: int
    link: str


def with_levels(figure: Figure, levels: Sequence[Level], unit: Unit = MONEY) -> Figure:
    """The figure with labeled lines: a limit solid and red, levels dashed and amber."""
    shapes = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": height(level.amount, unit),
            "y1": height(level.amount, unit),
            "line": {"color": CRITICAL, "width": 1.5}
            if level.is_limit
            else {"color": WARNING, "width": 1, "dash": "dash"},
            "label": {
                "text": escaped(level.words),
                "textposition": "end",
                "yanchor": "bottom",
                "font": {"color": "var(--critical)" if level.is_limit else "var(--warning)"},
            },
        }
        for level in levels
    ]
    return _extended(figure, shapes=shapes)


def with_shade(figure: Figure, first: str | float, last: str | float, words: str = "") -> Figure:
    """The figure with a stretch shaded: an incident, or, with `words`, where there is no data."""
    shade: Figure = {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": first,
        "x1": last,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "fillcolor": GHOST if words else CRITICAL,
        "opacity": 0.5 if words else 0.1,
        "line": {"width": 0},
    }
    if words:
        shade["label"] = {"text": escaped(words), "font": {"color": MUTED}}
    return _extended(figure, shapes=[shade])


def with_marks(figure: Figure, marks: Sequence[Mark]) -> Figure:
    """The figure with incidents above its bars: links, so that the keyboard reaches them too."""
    places = figure["data"][0]["x"] if figure["data"] else []
    notes = [
        {
            "x": places[mark.place],
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "showarrow": False,
            "text": _link(mark),
            "font": {"size": 16},
            "hovertext": _mark_words(mark),
        }
        for mark in marks
        if mark.place < len(places)
    ]
    extended = _extended(figure, annotations=notes)
    if notes:
        extended["layout"]["margin"] = {**extended["layout"]["margin"], "t": 28}
    return extended


def words_alone(text: str) -> Figure:
    """A figure that says why nothing is drawn."""
    words = {
        "text": "<br>".join(wrap(escaped(text), 60)),
        "showarrow": False,
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.5,
    }
    axis = {"visible": False, "fixedrange": True}
    return {
        "data": [],
        "layout": template() | {"annotations": [words], "xaxis": axis, "yaxis": axis},
    }


def _extended(figure: Figure, **further: list[Figure]) -> Figure:
    layout = figure["layout"]
    lists = {name: [*layout.get(name, []), *more] for name, more in further.items()}
    return {**figure, "layout": {**layout, **lists}}


def _link(mark: Mark) -> str:
    """In plotly's markup, which opens links elsewhere unless told otherwise."""
    color = BY_SEVERITY[mark.severity]
    address, symbol = escaped(mark.link), _SYMBOLS[mark.severity]
    return f'<a href="{address}" target="_self" style="color:{color}">{symbol}</a>'


def _mark_words(mark: Mark) -> str:
    title = escaped(shortened(mark.title, TITLE_CHARACTERS))
    return title if mark.number == 1 else f"{title} and {mark.number - 1} more"
