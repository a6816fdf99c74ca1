"""The table behind a chart, on a page and as CSV. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from common.money import usd_from_nanos
from dashboard.filter_bar import FilterBar
from dashboard.spend import Series, local

_FORMS = {"hour": "%a %-d %b %H:%M", "day": "%a %-d %b %Y", "month": "%B %Y"}


class TableRow(NamedTuple):
    """One bucket: its time in words, the amount of every series, and their sum."""

    label: str
    amounts: list[int]
    total: int
    is_unfinished: bool


def table_rows(series: Series, bar: FilterBar) -> list[TableRow]:
    """The newest bucket first; what lies ahead is left out."""
    columns = _columns(series)
    rows = [
        TableRow(
            label=local(start, bar).strftime(_FORMS[series.interval]),
            amounts=[column[place] for column in columns],
            total=sum(column[place] for column in columns),
            is_unfinished=place == series.unfinished,
        )
        for place, start in enumerate(series.starts)
        if start <= bar.range.until
    ]
    return rows[::-1]


def csv_rows(series: Series, bar: FilterBar) -> Iterator[list[str]]:
    """A head, then start, value and exact USD for every bucket and value that spent."""
    yield ["start", bar.split, "cost_usd"]
    names = [*series.amounts, "(other)"]
    for place, start in enumerate(series.starts):
        moment = local(start, bar).isoformat()
        for name, column in zip(names, _columns(series), strict=False):
            if column[place]:
                yield [moment, name, usd_from_nanos(column[place])]


def _columns(series: Series) -> list[list[int]]:
    return [*series.amounts.values(), *([series.others] if series.others is not None else [])]
