"""Spend over time as a figure. Pure."""

from collections.abc import Sequence
from datetime import datetime

from dashboard.chart_notes import Mark, with_marks
from dashboard.charts import OTHERS, Buckets, Column, Figure, stacked_bars
from dashboard.colors import OTHER, PALETTE, places_of
from dashboard.filter_bar import parameter_of
from dashboard.spend import Series


def spend_figure(
    series: Series,
    *,
    split: str,
    greatest: Sequence[str],
    starts: Sequence[datetime],
    marks: Sequence[Mark] = (),
) -> Figure:
    """Stacked bars by the values of `split`, and incidents above them.

    `starts` are by the tenant's clock; `greatest` are the values that own the colors.
    """
    places = places_of(greatest, list(series.amounts))
    columns = [
        Column(value, amounts, PALETTE[places[value]], value)
        for value, amounts in series.amounts.items()
    ]
    if series.others is not None:
        columns.append(Column(OTHERS, series.others, OTHER))
    figure = stacked_bars(
        columns,
        Buckets(starts, series.interval, series.unfinished),
        before=series.before,
        parameter=parameter_of(split),
    )
    return with_marks(figure, marks)
