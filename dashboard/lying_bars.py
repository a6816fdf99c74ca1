"""Charts of bars that lie, one to a name: the text beside each bar is its amount."""

from collections.abc import Sequence

from dashboard.charts import (
    CRITICAL,
    FIRST,
    LINE,
    MONEY,
    Figure,
    Unit,
    axis,
    height,
    named,
    template,
)
from dashboard.colors import OTHER


def change_bars(changes: Sequence[tuple[str, int]], unit: Unit = MONEY) -> Figure:
    """What moved a total, the largest change on top and in the critical color, the rest grey."""
    rows = [*changes][::-1]
    largest = max((abs(amount) for _, amount in rows), default=0)
    texts = [f"{'+' if amount > 0 else ''}{unit.text(amount)}" for _, amount in rows]
    colors = [CRITICAL if abs(amount) == largest else OTHER for _, amount in rows]
    return _lying_bars(rows, texts, colors, unit)


def margin_bars(margins: Sequence[tuple[str, int]], unit: Unit = MONEY) -> Figure:
    """What is earned on each, the first on top; a loss goes to the left in the critical color."""
    rows = [*margins][::-1]
    colors = [CRITICAL if amount < 0 else FIRST for _, amount in rows]
    figure = _lying_bars(rows, [unit.text(amount) for _, amount in rows], colors, unit)
    lowest, highest = (edge([*(amount for _, amount in rows), 0]) for edge in (min, max))
    # Room for the amounts beside the bars, on both sides.
    room = max(highest - lowest, 1) * 3 // 10
    figure["layout"]["xaxis"] |= {
        "visible": True,
        "showticklabels": False,
        "zeroline": True,
        "zerolinecolor": LINE,
        "showgrid": False,
        "range": [
            height(lowest - room if lowest < 0 else 0, unit),
            height(highest + room if highest > 0 else 0, unit),
        ],
    }
    return figure


def _lying_bars(
    rows: Sequence[tuple[str, int]], texts: list[str], colors: list[str], unit: Unit
) -> Figure:
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [named(name) for name, _ in rows],
        "x": [height(amount, unit) for _, amount in rows],
        "text": texts,
        "textposition": "outside",
        "cliponaxis": False,
        "hoverinfo": "none",
        "width": 0.5,
        "marker": {"color": colors},
    }
    layout = template() | {
        "xaxis": {"visible": False, "fixedrange": True},
        "yaxis": axis() | {"type": "category", "showgrid": False},
        "margin": {"l": 8, "r": 72, "t": 8, "b": 8},
    }
    return {"data": [bars], "layout": layout}
