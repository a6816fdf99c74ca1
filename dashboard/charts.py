"""Figures: the one place that knows plotly. Pure: numbers in, a figure's JSON values out.

Figures are plain dictionaries in plotly's schema; building them from its classes costs a web
process a second and tens of megabytes. The tests validate them with those classes.
"""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import plotly

from dashboard.amounts import exact_money, money
from dashboard.colours import (
    DARK,
    DARK_OTHER,
    LIGHT,
    LIGHT_OTHER,
    places_of,
)
from dashboard.findings import shortened
from dashboard.spend import Series
from metering.money import NANOS_PER_USD

Figure = dict[str, Any]

PLOTLY_VERSION: Final[str] = plotly.__version__
HATCH: Final = "/"
NAME_CHARACTERS: Final = 26
OTHERS: Final = "other"
NO_VALUE: Final = "(none)"
FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


class Theme(NamedTuple):
    """The colours of a figure on one background."""

    palette: tuple[str, ...]
    other: str
    surface: str
    text: str
    muted: str
    grid: str


THEMES: Final = {
    "light": Theme(LIGHT, LIGHT_OTHER, "#ffffff", "#1b1f27", "#5b6370", "#e6e8ec"),
    "dark": Theme(DARK, DARK_OTHER, "#17191f", "#e8eaee", "#a3aab6", "#2b2f38"),
}
_HOVER_TIMES: Final = {"hour": "%a %-d %b, %H:%M", "day": "%a %-d %b %Y", "month": "%B %Y"}


@cache
def script_path() -> Path:
    """plotly.js as the package ships it."""
    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def spend_figure(
    series: Series, *, greatest: list[str], starts: list[datetime], theme: Theme
) -> Figure:
    """Spend over time: stacked bars, the running one hatched, the period before as a dotted line.

    `starts` are the buckets' beginnings by the tenant's clock; `greatest` are the values that own
    the colours.
    """
    labels = [start.replace(tzinfo=None).isoformat() for start in starts]
    places = places_of(greatest, list(series.amounts))
    bars = [
        # A click on the bar asks for the value itself, which its name may shorten.
        _bars(
            series, labels, name=named(value), amounts=amounts, colour=theme.palette[places[value]]
        )
        | {"meta": {"value": value}}
        for value, amounts in series.amounts.items()
    ]
    if series.others is not None:
        bars.append(_bars(series, labels, name=OTHERS, amounts=series.others, colour=theme.other))
    lines = [_line_before(series.before, labels, theme)] if series.before else []
    return {"data": [*bars, *lines], "layout": _layout(series, theme)}


def named(value: str) -> str:
    """A dimension value as a chart shows it: escaped, since plotly reads markup in names."""
    text = shortened(value, NAME_CHARACTERS) if value else NO_VALUE
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def usd(nanos: int) -> float:
    """For drawing alone: a bar's height need not be exact."""
    return nanos / NANOS_PER_USD


def _bars(
    series: Series, labels: list[str], *, name: str, amounts: list[int], colour: str
) -> Figure:
    shapes = [HATCH if place == series.unfinished else "" for place in range(len(labels))]
    return {
        "type": "bar",
        "name": name,
        "x": labels,
        "y": [usd(amount) for amount in amounts],
        "customdata": [[money(amount), exact_money(amount)] for amount in amounts],
        "hovertemplate": "%{customdata[0]}",
        "marker": {
            "color": colour,
            "line": {"width": 0},
            "pattern": {"shape": shapes, "fillmode": "replace", "size": 6, "solidity": 0.45},
        },
    }


def _line_before(amounts: list[int], labels: list[str], theme: Theme) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "period before",
        "x": labels,
        "y": [usd(amount) for amount in amounts],
        "customdata": [[money(amount), exact_money(amount)] for amount in amounts],
        "hovertemplate": "%{customdata[0]}",
        "line": {"color": theme.muted, "width": 1.5, "dash": "dot", "shape": "linear"},
    }


def _layout(series: Series, theme: Theme) -> Figure:
    return {
        "barmode": "stack",
        "bargap": 0.18,
        "hovermode": "x unified",
        "font": {"family": FONT, "size": 12, "color": theme.muted},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "yref": "container",
            "yanchor": "bottom",
            "y": 0,
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "traceorder": "normal",
            "font": {"color": theme.text},
            "itemclick": "toggle",
        },
        "hoverlabel": {
            "bgcolor": theme.surface,
            "bordercolor": theme.grid,
            "font": {"color": theme.text, "size": 12},
        },
        "xaxis": {
            "type": "date",
            "hoverformat": _HOVER_TIMES[series.interval],
            "showgrid": False,
            "linecolor": theme.grid,
            "automargin": True,
            "fixedrange": True,
            **_ticks(series),
        },
        "yaxis": {
            "tickprefix": "$",
            "gridcolor": theme.grid,
            "zeroline": False,
            "rangemode": "tozero",
            "automargin": True,
            "fixedrange": True,
            "nticks": 5,
            "tickformat": _axis_format(series.totals),
        },
    }


def _axis_format(totals: list[int]) -> str:
    highest = max(totals, default=0)
    if highest >= 8 * NANOS_PER_USD:
        return ",.0f"
    return ",.2f" if highest >= NANOS_PER_USD // 5 else "~g"


def _ticks(series: Series) -> Figure:
    """One tick a bar where there are few, so that no label stands between two bars."""
    if series.interval == "day":
        every_day = {"dtick": 86_400_000} if len(series.starts) <= 10 else {}
        # The month stands in a second line, once.
        return {"tickformat": "%-d\n%b", "tickangle": 0, **every_day}
    if series.interval == "month":
        return {"tickformat": "%b %Y", "dtick": "M1"}
    return {"tickformat": "%H:%M", "nticks": 9}
