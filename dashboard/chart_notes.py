"""What is drawn over a chart: limits, shades, incidents, and what happened. Pure."""

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
FLAG: Final = "⚑"
# How far to the left of an incident's mark a flag stands, in pixels.
FLAG_SHIFT: Final = 18
# The words of a line stand above it, within the chart.
LABEL_ROOM: Final = 1.1
# How many texts a flag shows on hover.
NOTE_LINES_MAX: Final = 3
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

    bucket: int
    severity: str
    title: str
    number: int
    link: str


class ChartNote(NamedTuple):
    """What happened in one bucket, such as a deploy: a flag above the bars that leads to `link`."""

    bucket: int
    texts: Sequence[str]
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
    extended = _extended(figure, shapes=shapes)
    axis = extended["layout"]["yaxis"]
    if levels and "range" in axis:
        highest = max(height(level.amount, unit) or 0 for level in levels)
        room = [axis["range"][0], max(axis["range"][1], highest * LABEL_ROOM)]
        extended["layout"] |= {"yaxis": axis | {"range": room}}
    return extended


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
            "x": places[mark.bucket],
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "showarrow": False,
            "text": _link(mark),
            "font": {"size": 16},
            "hovertext": _mark_words(mark),
        }
        for mark in marks
        if mark.bucket < len(places)
    ]
    return _with_room_above(figure, notes)


def with_annotations(figure: Figure, notes: Sequence[ChartNote]) -> Figure:
    """The figure with flags where something happened, to the left of an incident's mark."""
    places = figure["data"][0]["x"] if figure["data"] else []
    marked = {mark["x"] for mark in figure["layout"].get("annotations", [])}
    flags = [
        {
            "x": places[note.bucket],
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "xshift": -FLAG_SHIFT if places[note.bucket] in marked else 0,
            "showarrow": False,
            "text": _anchor(note.link, MUTED, FLAG),
            "font": {"size": 16},
            "hovertext": _note_words(note.texts),
        }
        for note in notes
        if note.bucket < len(places)
    ]
    return _with_room_above(figure, flags)


def _note_words(texts: Sequence[str]) -> str:
    shown = [escaped(shortened(text, TITLE_CHARACTERS)) for text in texts[:NOTE_LINES_MAX]]
    further = len(texts) - len(shown)
    return "<br>".join([*shown, *([f"and {further} more"] if further else [])])


def _with_room_above(figure: Figure, notes: list[Figure]) -> Figure:
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
    return _anchor(mark.link, BY_SEVERITY[mark.severity], _SYMBOLS[mark.severity])


def _anchor(address: str, color: str, symbol: str) -> str:
    """In plotly's markup, which opens links elsewhere unless told otherwise."""
    return f'<a href="{escaped(address)}" target="_self" style="color:{color}">{symbol}</a>'


def _mark_words(mark: Mark) -> str:
    title = escaped(shortened(mark.title, TITLE_CHARACTERS))
    return title if mark.number == 1 else f"{title} and {mark.number - 1} more"
