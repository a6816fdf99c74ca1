"""Figures: the one place that knows plotly. Pure: numbers in, a figure's JSON values out.

Figures are plain dictionaries in plotly's schema; building them from its classes costs a web
process a second and tens of megabytes. The tests validate them with those classes.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import plotly

from common.money import NANOS_PER_USD
from dashboard.amounts import exact_money, money
from dashboard.colours import (
    DARK,
    DARK_OTHER,
    LIGHT,
    LIGHT_OTHER,
    places_of,
)
from dashboard.findings import shortened
from dashboard.incidents.course import Amount, Course, Measure, Stretch
from dashboard.spend import Mark, Series

Figure = dict[str, Any]

PLOTLY_VERSION: Final[str] = plotly.__version__
HATCH: Final = "/"
NAME_CHARACTERS: Final = 26
TITLE_CHARACTERS: Final = 60
OTHERS: Final = "other"
NO_VALUE: Final = "(none)"
MARGIN: Final = {"l": 8, "r": 8, "t": 8, "b": 8}
FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


class Theme(NamedTuple):
    """The colours of a figure on one background."""

    palette: tuple[str, ...]
    other: str
    surface: str
    text: str
    muted: str
    grid: str
    warning: str
    critical: str

    @property
    def by_severity(self) -> dict[str, str]:
        """The colour of a mark."""
        return {"critical": self.critical, "warning": self.warning, "info": self.muted}


THEMES: Final = {
    "light": Theme(
        LIGHT, LIGHT_OTHER, "#ffffff", "#1b1f27", "#5b6370", "#e6e8ec", "#c98500", "#b3261e"
    ),
    "dark": Theme(
        DARK, DARK_OTHER, "#17191f", "#e8eaee", "#a3aab6", "#2b2f38", "#d79a22", "#ff8a80"
    ),
}
_HOVER_TIMES: Final = {
    "15min": "%a %-d %b, %H:%M",
    "hour": "%a %-d %b, %H:%M",
    "day": "%a %-d %b %Y",
    "month": "%B %Y",
}
# The shape tells the severity, too; the pages use the same ones.
_SYMBOLS: Final = {"critical": "◆", "warning": "▲", "info": "●"}


@cache
def script_path() -> Path:
    """plotly.js as the package ships it."""
    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def spend_figure(
    series: Series,
    *,
    greatest: list[str],
    starts: list[datetime],
    theme: Theme,
    marks: Sequence[Mark] = (),
) -> Figure:
    """Spend over time: stacked bars, the running one hatched, the period before as a dotted line,
    incidents as marks above the bars that lead to them.

    `starts` are the buckets' beginnings by the tenant's clock; `greatest` are the values that own
    the colours.
    """
    labels = _labels(starts)
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
    layout = _layout(theme) | {
        "barmode": "stack",
        "xaxis": _time_axis(theme, series.interval) | _ticks(series),
        "yaxis": _amount_axis(theme) | {"tickformat": _axis_format(series.totals)},
        "annotations": _marks(marks, labels, theme),
    }
    if marks:
        layout["margin"] = MARGIN | {"t": 28}
    return {"data": [*bars, *lines], "layout": layout}


def incident_figure(
    course: Course, *, starts: list[datetime], cause: Stretch, theme: Theme
) -> Figure:
    """The measure of an incident by time, the incident shaded, the week before as a dotted line.

    `starts` and `cause` are by the tenant's clock.
    """
    labels = _labels(starts)
    measure = course.measure
    traces = [_course_trace(course, labels, theme)]
    if course.before is not None:
        traces.append(_line(course.before, labels, measure, theme) | {"name": "a week earlier"})
    is_money = measure.unit == "money"
    axis = {"tickprefix": "$"} if is_money else {"tickprefix": "", "tickformat": ".2~s"}
    if measure.unit == "share":
        axis = {"tickprefix": "", "tickformat": ".0%"}
    layout = _layout(theme) | {
        "xaxis": _time_axis(theme, course.interval),
        "yaxis": _amount_axis(theme) | axis,
        "shapes": _shapes(course, _labels(list(cause)), theme),
    }
    return {"data": traces, "layout": layout}


def _course_trace(course: Course, labels: list[str], theme: Theme) -> Figure:
    """Bars of what adds up, a line of what does not."""
    colour = theme.palette[0]
    look: Figure = {"type": "bar", "marker": {"color": colour, "line": {"width": 0}}}
    if not course.measure.is_sum:
        look = {
            "type": "scatter",
            "mode": "lines+markers",
            "line": {"color": colour, "width": 2},
            "marker": {"size": 4},
        }
    return look | _points(course.actual, labels, course.measure) | {"name": course.measure.words}


def _line(
    amounts: Sequence[Amount | None], labels: list[str], measure: Measure, theme: Theme
) -> Figure:
    return _points(amounts, labels, measure) | {
        "type": "scatter",
        "mode": "lines",
        "line": {"color": theme.muted, "width": 1.5, "dash": "dot", "shape": "hvh"},
    }


def _points(amounts: Sequence[Amount | None], labels: list[str], measure: Measure) -> Figure:
    return {
        "x": labels,
        "y": [_height(amount, measure) for amount in amounts],
        "customdata": [[measure.text(amount), measure.exact(amount)] for amount in amounts],
        "hovertemplate": "%{customdata[0]}",
    }


def _height(amount: Amount | None, measure: Measure) -> float | None:
    if amount is None:
        return None
    return amount / NANOS_PER_USD if measure.unit == "money" else float(amount)


def _shapes(course: Course, cause: list[str], theme: Theme) -> list[Figure]:
    """The incident's time, and what was expected then."""
    stretch = {"xref": "x", "x0": cause[0], "x1": cause[1]}
    shade = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    look = {"fillcolor": theme.critical, "opacity": 0.1, "line": {"width": 0}}
    shapes = [{**stretch, **shade, **look}]
    if course.expected is not None:
        height = _height(course.expected, course.measure)
        line = {"color": theme.text, "width": 1.5, "dash": "dash"}
        words = {"text": "expected", "textposition": "top left", "font": {"color": theme.text}}
        shapes.append(
            {**stretch, "type": "line", "y0": height, "y1": height, "line": line, "label": words}
        )
    return shapes


def _marks(marks: Sequence[Mark], labels: list[str], theme: Theme) -> list[Figure]:
    """Incidents of each bucket, above the bars: links, so that the keyboard reaches them too."""
    return [
        {
            "x": labels[mark.place],
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "showarrow": False,
            "text": _link(mark, theme.by_severity[mark.severity]),
            "font": {"size": 16},
            "hovertext": _mark_words(mark),
        }
        for mark in marks
    ]


def _link(mark: Mark, colour: str) -> str:
    """In plotly's markup, which opens links elsewhere unless told otherwise."""
    address, symbol = escaped(mark.link), _SYMBOLS[mark.severity]
    return f'<a href="{address}" target="_self" style="color:{colour}">{symbol}</a>'


def _mark_words(mark: Mark) -> str:
    title = escaped(shortened(mark.title, TITLE_CHARACTERS))
    return title if mark.number == 1 else f"{title} and {mark.number - 1} more"


def _labels(starts: Sequence[datetime]) -> list[str]:
    """Moments as plotly takes them: the clock's time, without a zone."""
    return [start.replace(tzinfo=None).isoformat() for start in starts]


def named(value: str) -> str:
    """A dimension value as a chart shows it: escaped, since plotly reads markup in names."""
    return escaped(shortened(value, NAME_CHARACTERS) if value else NO_VALUE)


def escaped(text: str) -> str:
    """Text of others in a figure, where plotly would read its markup."""
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
        "name": "previous period",
        "x": labels,
        "y": [usd(amount) for amount in amounts],
        "customdata": [[money(amount), exact_money(amount)] for amount in amounts],
        "hovertemplate": "%{customdata[0]}",
        "line": {"color": theme.muted, "width": 1.5, "dash": "dot", "shape": "linear"},
    }


def _layout(theme: Theme) -> Figure:
    return {
        "bargap": 0.18,
        "hovermode": "x unified",
        "font": {"family": FONT, "size": 12, "color": theme.muted},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": MARGIN,
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
    }


def _time_axis(theme: Theme, interval: str) -> Figure:
    return {
        "type": "date",
        "hoverformat": _HOVER_TIMES[interval],
        "showgrid": False,
        "linecolor": theme.grid,
        "automargin": True,
        "fixedrange": True,
    }


def _amount_axis(theme: Theme) -> Figure:
    return {
        "tickprefix": "$",
        "gridcolor": theme.grid,
        "zeroline": False,
        "rangemode": "tozero",
        "automargin": True,
        "fixedrange": True,
        "nticks": 5,
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
