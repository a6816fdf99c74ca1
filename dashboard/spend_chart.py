"""Spend over time, and where the month ends, as figures. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Final

from dashboard.chart_notes import Level, with_levels, with_shade
from dashboard.charts import (
    LINE,
    MONEY,
    OTHERS,
    Buckets,
    Column,
    Figure,
    amount_ticks,
    band,
    line,
    over_time,
    stacked_bars,
)
from dashboard.colors import OTHER, PALETTE, places_of
from dashboard.filter_bar import parameter_of
from dashboard.findings import value_words
from dashboard.spend import Series
from metering.reporting.forecast import Forecast

# A limit this many times as high as the highest bar would flatten the chart.
FLATTENED_BY: Final = 2
NO_DATA: Final = "no data"


def spend_figure(
    series: Series,
    *,
    split: str,
    greatest: Sequence[str],
    starts: Sequence[datetime],
    expected: int | None = None,
) -> Figure:
    """Stacked bars by the values of `split`.

    `starts` are by the tenant's clock; `greatest` are the values that own the colors; `expected` is
    what the running bucket will come to.
    """
    places = places_of(greatest, list(series.amounts))
    columns = [
        Column(value_words(split, value), amounts, PALETTE[places[value]], value)
        for value, amounts in series.amounts.items()
    ]
    if series.others is not None:
        columns.append(Column(OTHERS, series.others, OTHER))
    return stacked_bars(
        columns,
        Buckets(starts, series.interval, series.unfinished, expected),
        before=series.before,
        parameter=parameter_of(split),
    )


def month_figure(
    days: Sequence[int],
    *,
    before: Sequence[int],
    starts: Sequence[datetime],
    today: int,
    empty: int,
    outlook: Forecast | None,
) -> Figure:
    """The running sum of a month, dashed to where it ends, with the month before dotted.

    `days` and `before` are amounts by day, of which the place `today` is still running and the
    first `empty` have no data; `starts` has every day of the month by the tenant's clock.
    """
    places = [start.replace(tzinfo=None).isoformat() for start in starts]
    so_far: list[int | None] = [*accumulate(days[: today + 1])]
    so_far = [*[None] * empty, *so_far[empty:], *[None] * (len(places) - today - 1)]
    traces = [line("This month", so_far, places)]
    if outlook is not None and outlook.method != "none":
        ahead = len(places) - today - 1
        ends = (outlook.low_nanos, outlook.forecast_nanos, outlook.high_nanos)
        low, middle, high = (list(_straight(outlook.spent_nanos, end, ahead)) for end in ends)
        traces += band(low, high, places[today:])
        expected = [*[None] * today, *middle]
        traces.append(line("Forecast", expected, places, dash="dash"))
    if any(before):
        earlier: list[int | None] = [*accumulate(before[: len(places)])]
        earlier += [None] * (len(places) - len(earlier))
        traces.append(line("Previous month", earlier, places, color=LINE, dash="dot"))
    figure = over_time(traces, starts=starts, interval="day")
    return with_shade(figure, places[0], places[empty], NO_DATA) if empty else figure


def with_near_levels(figure: Figure, levels: Sequence[Level]) -> Figure:
    """The figure with those lines that are near enough to what is drawn not to flatten it."""
    top = figure["layout"]["yaxis"]["range"][1] * MONEY.divisor
    shown = [level for level in levels if level.amount <= FLATTENED_BY * top]
    # With room for the label of the highest.
    highest = max((level.amount for level in shown), default=0) * 6 // 5
    if highest > top:
        axis = figure["layout"]["yaxis"] | amount_ticks(highest, MONEY)
        figure = {**figure, "layout": figure["layout"] | {"yaxis": axis}}
    return with_levels(figure, shown)


def _straight(first: int, last: int, steps: int) -> Iterator[int]:
    """Amounts from one to another in equal steps; the last alone where there is no step."""
    yield first if steps else last
    for step in range(1, steps + 1):
        yield first + (last - first) * step // steps
