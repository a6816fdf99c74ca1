"""What a whole is composed of, as a treemap, and what goes where, as streams. Pure; knows plotly,
as `charts.py` does.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dashboard.amounts import percent
from dashboard.charts import (
    GHOST,
    MONEY,
    NO_VALUE,
    SURFACE,
    TEXT,
    Figure,
    Unit,
    height,
    named,
    template,
)


class Part(NamedTuple):
    """A part of the whole, which may have parts itself. A click opens `address`, if given."""

    name: str
    amount: int
    color: str
    address: str
    parts: "Sequence[Part]" = ()


class Stream(NamedTuple):
    """An amount that goes from one of the parts on the left to one of those on the right."""

    left: int
    right: int
    amount: int


class _Cell(NamedTuple):
    part: Part
    parent: str
    id: str


def treemap(parts: Sequence[Part], *, unit: Unit = MONEY) -> Figure:
    """Rectangles as large as their amounts, those of one part beside each other.

    What is not above zero has no rectangle; the inner parts of one sum to it.
    """
    cells: list[_Cell] = []
    for at, part in enumerate(parts):
        if part.amount <= 0:
            continue
        cells.append(_Cell(part, "", str(at)))
        cells += [
            _Cell(inner, str(at), f"{at}/{index}")
            for index, inner in enumerate(part.parts)
            if inner.amount > 0
        ]
    total = sum(cell.part.amount for cell in cells if not cell.parent)
    trace = {
        "type": "treemap",
        "ids": [cell.id for cell in cells],
        "parents": [cell.parent for cell in cells],
        "labels": [named(cell.part.name) for cell in cells],
        "values": [height(cell.part.amount, unit) for cell in cells],
        "branchvalues": "total",
        "text": [unit.text(cell.part.amount) for cell in cells],
        "texttemplate": "<b>%{label}</b><br>%{text}",
        "textfont": {"size": 12, "color": SURFACE},
        "textposition": "top left",
        "hoverinfo": "none",
        "sort": False,
        "tiling": {"packing": "squarify", "pad": 2},
        "pathbar": {"visible": False},
        "marker": {
            "colors": [cell.part.color for cell in cells],
            "line": {"width": 1, "color": SURFACE},
        },
    }
    addresses = [cell.part.address for cell in cells]
    layout = template() | {
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        # Words that do not fit are left out; the hover has them.
        "uniformtext": {"minsize": 11, "mode": "hide"},
        "meta": {
            "hover": [_hover(cell.part, total, unit) for cell in cells],
            "addresses": addresses,
        },
    }
    return {"data": [trace], "layout": layout}


def flow(
    left: Sequence[Part], right: Sequence[Part], streams: Sequence[Stream], *, unit: Unit = MONEY
) -> Figure:
    """Streams as wide as their amounts, from parts on the left to parts on the right.

    What is not above zero has no stream.
    """
    drawn = [stream for stream in streams if stream.amount > 0]
    ends = [*left, *right]
    total = sum(stream.amount for stream in drawn)
    trace = {
        "type": "sankey",
        "arrangement": "fixed",
        "node": {
            "label": [named(end.name) for end in ends],
            "color": [end.color for end in ends],
            "pad": 14,
            "thickness": 12,
            "line": {"width": 0},
            "hoverinfo": "none",
        },
        "link": {
            "source": [stream.left for stream in drawn],
            "target": [len(left) + stream.right for stream in drawn],
            "value": [height(stream.amount, unit) for stream in drawn],
            "color": GHOST,
            "hoverinfo": "none",
        },
        "textfont": {"size": 12, "color": TEXT, "shadow": "none"},
    }
    between = [
        Part(f"{_words(left[stream.left])} → {_words(right[stream.right])}", stream.amount, "", "")
        for stream in drawn
    ]
    layout = template() | {
        "meta": {
            "hover": [_hover(node, total, unit) for node in (*ends, *between)],
            "addresses": [node.address for node in (*ends, *between)],
            # Streams are numbered after the parts.
            "parts": len(ends),
        },
    }
    return {"data": [trace], "layout": layout}


def _words(part: Part) -> str:
    return part.name or NO_VALUE


def _hover(part: Part, total: int, unit: Unit) -> list[str]:
    """A line of the hover, in the form that `charts.js` shows."""
    share = percent(part.amount, total)
    return [part.name or NO_VALUE, f"{unit.exact(part.amount)} · {share}", "", ""]
