"""The table behind a chart, on a page and as CSV. Pure."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from common.money import usd_from_nanos
from dashboard.charts import bucket_words
from dashboard.filter_bar import FilterBar
from dashboard.spend import Series, local
from metering.reporting.usage import Measures, UsageRow

COUNTS: Final = tuple(name for name in Measures._fields if not name.endswith("_nanos"))


class TableRow(NamedTuple):
    """One bucket: its time in words, the amount of every series, and their sum."""

    label: str
    amounts: list[int]
    total: int
    is_unfinished: bool


def table_rows(series: Series, bar: FilterBar) -> list[TableRow]:
    """The newest bucket first; what lies ahead is left out."""
    columns = [*series.amounts.values(), *([series.others] if series.others is not None else [])]
    rows = [
        TableRow(
            label=bucket_words(local(start, bar), series.interval),
            amounts=[column[index] for column in columns],
            total=sum(column[index] for column in columns),
            is_unfinished=index == series.unfinished,
        )
        for index, start in enumerate(series.starts)
        if start <= bar.range.until
    ]
    return rows[::-1]


def csv_rows(rows: Iterable[UsageRow], bar: FilterBar) -> Iterator[list[str]]:
    """A head, then what each value used in each bucket, exact."""
    yield ["start", bar.split, "cost_usd", *COUNTS]
    for row in rows:
        yield [
            local(row.start, bar).isoformat(),
            row.group[bar.split],
            usd_from_nanos(row.measures.cost_nanos),
            *(str(getattr(row.measures, name)) for name in COUNTS),
        ]
