"""The one template of all charts, and the only place that knows plotly, with `chart_notes.py` and
`lying_bars.py`.

Pure: numbers in, plain dictionaries in plotly's schema out. Building them from plotly's classes
costs a web process a second and tens of megabytes; the tests validate them with those classes.
Colors are names of tokens, which the browser resolves for the theme in force
(`static/dashboard/js/charts.js`, which also shows the hover from `layout.meta`).
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from common.money import NANOS_PER_USD
from dashboard.amounts import MINUS, change, count, exact_count, exact_money, money, percent_text
from dashboard.findings import shortened

Figure = dict[str, Any]
# What is drawn: nano-dollars, a count, or a share from 0 to 1.
Amount = int | float

TEXT: Final = "var(--text)"
MUTED: Final = "var(--muted)"
LINE: Final = "var(--control-line)"
GRID: Final = "var(--grid)"
SURFACE: Final = "var(--surface-1)"
GHOST: Final = "var(--ghost)"
BAND: Final = "var(--band)"
FIRST: Final = "var(--c1)"
CRITICAL: Final = "var(--critical-fill)"
WARNING: Final = "var(--warning-fill)"

BAR_WIDTH: Final = 0.62
GHOST_WIDTH: Final = 0.84
NAME_CHARACTERS: Final = 26
TICKS_MAX: Final = 7
DAYS_TOLD_APART: Final = timedelta(days=2)
OTHERS: Final = "other"
NO_VALUE: Final = "(none)"
_LABELS: Final = {
    "15min": "%a, %b %-d, %-I:%M %p",
    "hour": "%a, %b %-d, %-I %p",
    "day": "%a, %b %-d, %Y",
    "week": "Week of %b %-d, %Y",
    "month": "%B %Y",
}
_TICKS: Final = {
    "15min": "%-I:%M %p",
    "hour": "%-I %p",
    "day": "%b %-d",
    "week": "%b %-d",
    "month": "%b %Y",
}
_STEPS: Final = (1, 2, Decimal("2.5"), 5, 10)


class Unit(NamedTuple):
    """How an amount reads, and how many of it make one on the axis."""

    text: Callable[[Any], str]
    exact: Callable[[Any], str]
    divisor: int
    is_share: bool = False


def _share(value: Amount) -> str:
    return percent_text(Decimal(value) * 100)


MONEY: Final = Unit(money, exact_money, NANOS_PER_USD)
COUNT: Final = Unit(count, exact_count, 1)
SHARE: Final = Unit(_share, _share, 1, is_share=True)


class Buckets(NamedTuple):
    """Where the bars of a chart begin, by the tenant's clock. The one at the place `unfinished` is
    still running; `expected` is what it will come to.
    """

    starts: Sequence[datetime]
    interval: str
    unfinished: int | None = None
    expected: int | None = None


class Column(NamedTuple):
    """One part of stacked bars. A click on it filters by `value`, unless that is None."""

    name: str
    amounts: Sequence[int]
    color: str
    value: str | None = None


def stacked_bars(
    columns: Sequence[Column],
    buckets: Buckets,
    *,
    unit: Unit = MONEY,
    before: Sequence[int] | None = None,
    parameter: str | None = None,
) -> Figure:
    """Amounts over time, the first column at the bottom; the previous period as a ghost behind.

    The bucket that is running is hatched, and filled up with a dashed outline to what is expected
    of it. `parameter` is the filter that a click adds to.
    """
    starts, interval, unfinished, expected = buckets
    places = [start.replace(tzinfo=None).isoformat() for start in starts]
    totals = [sum(column.amounts[at] for column in columns) for at in range(len(places))]
    bases = [0] * len(places)
    traces = [_ghost(before, places, unit)] if before else []
    for column in columns:
        traces.append(_bars(column, places, bases, unit, unfinished))
        bases = [base + amount for base, amount in zip(bases, column.amounts, strict=True)]
    highest = max([*totals, *(before or []), expected or 0], default=0)
    layout = template() | {
        "barmode": "overlay",
        "hovermode": "x",
        "xaxis": axis() | _category_ticks(buckets, places),
        "yaxis": axis() | amount_ticks(highest, unit),
        "meta": {
            "hover": [
                [bucket_words(start, interval), *_compared(total, before, at, unit)]
                for at, (start, total) in enumerate(zip(starts, totals, strict=True))
            ],
            "parameter": parameter,
        },
    }
    if expected is not None and unfinished is not None and expected > totals[unfinished]:
        layout["shapes"] = [_outline(unfinished, totals[unfinished], expected, unit)]
    return {"data": traces, "layout": layout}


def _compared(
    total: int, before: Sequence[int] | None, at: int, unit: Unit
) -> tuple[str, str, str]:
    """A total in words, the same of the previous period, and the change."""
    if not before:
        return unit.text(total), "", ""
    grown = change(total, before[at])
    if grown is None:
        return unit.text(total), unit.text(before[at]), ""
    sign = "+" if grown > 0 else MINUS if grown < 0 else ""
    return unit.text(total), unit.text(before[at]), f"{sign}{percent_text(abs(grown))}"


def _bars(
    column: Column, places: list[str], bases: list[int], unit: Unit, unfinished: int | None
) -> Figure:
    name = named(column.name)
    return _points(column.amounts, places, unit) | {
        "type": "bar",
        "name": name,
        "meta": {
            "isValue": True,
            "name": shortened(column.name) or NO_VALUE,
            "value": column.value,
        },
        "base": [height(base, unit) for base in bases],
        "width": BAR_WIDTH,
        "marker": {
            "color": column.color,
            "line": {"width": 1, "color": SURFACE},
            "pattern": {
                "shape": ["/" if at == unfinished else "" for at in range(len(places))],
                "fgcolor": SURFACE,
                "fillmode": "overlay",
                "size": 6,
                "solidity": 0.35,
            },
        },
    }


def _ghost(amounts: Sequence[int], places: list[str], unit: Unit) -> Figure:
    return _points(amounts, places, unit) | {
        "type": "bar",
        "name": "Previous period",
        "width": GHOST_WIDTH,
        "marker": {"color": GHOST, "line": {"width": 0}},
    }


def _points(amounts: Sequence[Amount | None], places: Sequence[str], unit: Unit) -> Figure:
    return {
        "x": list(places),
        "y": [height(amount, unit) for amount in amounts],
        "customdata": [
            ["no data", ""] if amount is None else [unit.text(amount), unit.exact(amount)]
            for amount in amounts
        ],
        "hoverinfo": "none",
    }


def _outline(index: int, lower: int, upper: int, unit: Unit) -> Figure:
    """The rest of a running bucket."""
    return {
        "type": "rect",
        "xref": "x",
        "x0": index - BAR_WIDTH / 2,
        "x1": index + BAR_WIDTH / 2,
        "y0": height(lower, unit),
        "y1": height(upper, unit),
        "line": {"color": FIRST, "width": 1.5, "dash": "dash"},
    }


def line(
    name: str,
    amounts: Sequence[Amount | None],
    places: Sequence[str],
    *,
    unit: Unit = MONEY,
    color: str = FIRST,
    dash: str = "solid",
) -> Figure:
    """A line over time; dotted grey for the previous period, dashed for a forecast."""
    return _points(amounts, places, unit) | {
        "type": "scatter",
        "mode": "lines",
        "name": escaped(name),
        "meta": {"isValue": True, "name": name},
        "line": {"color": color, "width": 1.5 if dash == "dot" else 2, "dash": dash},
    }


def band(
    low: Sequence[int], high: Sequence[int], places: Sequence[str], unit: Unit = MONEY
) -> list[Figure]:
    """Between what a forecast says at least and at most; it goes before the forecast's line."""
    edge = {
        "type": "scatter",
        "mode": "lines",
        "x": list(places),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    lower = edge | {"y": [height(amount, unit) for amount in low]}
    upper = edge | {"y": [height(amount, unit) for amount in high]}
    return [lower, upper | {"fill": "tonexty", "fillcolor": BAND}]


def over_time(
    traces: Sequence[Figure], *, starts: Sequence[datetime], interval: str, unit: Unit = MONEY
) -> Figure:
    """Lines (or bars that do not stack) on an axis of time, by the tenant's clock."""
    drawn = [value for trace in traces for value in trace.get("y", []) if value is not None]
    highest = round(Decimal(max(drawn, default=0)) * unit.divisor) if not unit.is_share else 1
    layout = template() | {
        "hovermode": "x",
        "xaxis": axis()
        | {
            "type": "date",
            "tickformat": _tick_form(starts, interval, over_days="%b %-d"),
            # Between few moments plotly would put ticks that read the same.
            **({"tickvals": starts} if len(starts) <= TICKS_MAX else {"nticks": TICKS_MAX}),
            # Away from the lowest amount, which stands beside the first moment.
            "ticklabelstandoff": 6,
        },
        "yaxis": axis() | ({"tickformat": ".0%"} if unit.is_share else amount_ticks(highest, unit)),
        "meta": {"hover": [[bucket_words(start, interval), "", "", ""] for start in starts]},
    }
    return {"data": list(traces), "layout": layout}


def bucket_words(start: datetime, interval: str) -> str:
    """A bucket's time, by the tenant's clock, in words."""
    return start.strftime(_LABELS[interval])


def named(value: str) -> str:
    """A dimension value as a chart shows it: escaped, since plotly reads markup in names."""
    return escaped(shortened(value, NAME_CHARACTERS) if value else NO_VALUE)


def escaped(text: str) -> str:
    """Text of others in a figure, where plotly would read its markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def height(amount: Amount | None, unit: Unit) -> float | None:
    """For drawing alone: a bar's height need not be exact."""
    return None if amount is None else amount / unit.divisor


def template() -> Figure:
    """The layout that every chart begins with."""
    return {
        "font": {"size": 12, "color": MUTED},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "showlegend": False,
    }


def axis() -> Figure:
    """An axis as every chart has it."""
    return {
        "automargin": True,
        "fixedrange": True,
        "zeroline": False,
        "showgrid": False,
        "linecolor": GRID,
        "tickangle": 0,
    }


def _category_ticks(buckets: Buckets, places: list[str]) -> Figure:
    """A tick for each bar where there are few, so that no label stands between two bars."""
    starts, interval, unfinished, _ = buckets
    step = -(-len(places) // TICKS_MAX) or 1
    # Counted from the newest, which always has its label.
    shown = range((len(places) - 1) % step, len(places), step)
    form = _tick_form(starts, interval, over_days="%a %-I %p")
    if interval == "day" and len(places) <= TICKS_MAX:
        form = "%a %-d"
    texts = [
        "<b>Today</b>" if interval == "day" and at == unfinished else starts[at].strftime(form)
        for at in shown
    ]
    return {
        "type": "category",
        "tickvals": [places[at] for at in shown],
        "ticktext": texts,
        "range": [-0.5, len(places) - 0.5],
    }


def _tick_form(starts: Sequence[datetime], interval: str, *, over_days: str) -> str:
    """How a tick's time reads; hours of several days are not told apart by their clock alone."""
    is_long = bool(starts) and starts[-1] - starts[0] >= DAYS_TOLD_APART
    return over_days if is_long and interval in {"15min", "hour"} else _TICKS[interval]


def amount_ticks(highest: int, unit: Unit) -> Figure:
    """Three to five round amounts from zero on, in the words of the unit."""
    step = _round_step(max(highest, 1))
    ticks = [step * at for at in range(-(-highest // step) + 1)] if highest else [0]
    return {
        "tickvals": [height(tick, unit) for tick in ticks],
        "ticktext": [unit.text(tick).removesuffix(".00") for tick in ticks],
        "range": [0, (height(max(highest, ticks[-1]), unit) or 1) * 1.05],
        "showgrid": True,
        "gridcolor": GRID,
    }


def _round_step(highest: int) -> int:
    """A round amount that fits three to five times below the highest."""
    magnitude = 10 ** (len(str(highest)) - 1)
    steps = [int(step * magnitude) // 10 or 1 for step in _STEPS] + [
        int(step * magnitude) for step in _STEPS
    ]
    return next(step for step in steps if highest <= step * 4)
