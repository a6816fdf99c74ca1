"""Usage with metrics, beside what was before, or as running sums: what pages and the API show."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import add
from typing import Final, NamedTuple

from django.utils import timezone

from metering.reporting.comparison import Comparison
from metering.reporting.intervals import Bucket
from metering.reporting.kept import require_sums
from metering.reporting.metrics import Coverage, Figures, coverage_of, figures_in, require_metrics
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import Cell, Keys, Measures, UsageRow, measures_in, portion_of, usage

MOMENT: Final = timedelta(microseconds=1)


class ReportRow(NamedTuple):
    """A row with its metrics, and with those of the time before where they are compared."""

    row: UsageRow
    figures: Figures
    previous: Figures | None


class UsageReport(NamedTuple):
    """A page of rows. Totals are of all pages; distinct counts and percentiles in them are of the
    whole range, not sums.
    """

    rows: Sequence[ReportRow]
    total: Figures
    previous_total: Figures | None
    coverage: Coverage
    next_cursor: str | None


def usage_report(  # noqa: PLR0913 - what may be asked
    question: UsageQuestion,
    *,
    metrics: Sequence[str] = (),
    is_compared: bool = False,
    is_cumulative: bool = False,
    limit: int = 100,
    cursor: str | None = None,
    now: datetime | None = None,
) -> UsageReport:
    """Return a page of `usage` with metrics.

    With `is_compared`, each row also has the same elapsed time before it (`comparison`). With
    `is_cumulative`, measures run up from the start of the range, for each group by itself. Raises
    InvalidQuestion, for what cannot be told exactly in time as well.
    """
    require_metrics(metrics, is_cumulative=is_cumulative)
    page = usage(question, limit=limit, cursor=cursor)
    whole: Cell = (1, ())
    total = figures_in(question, [question.whole], (), {whole: page.total}, metrics)[whole]
    rows = list(page.rows)
    portion = portion_of(question, rows) if rows else []
    number = {bucket.start: index for index, bucket in enumerate(portion, 1)}
    cells = {(number[row.start], row.key): row.measures for row in rows}
    if is_cumulative:
        cells = _running(question, portion, question.group_by, cells, cells)
    figures = {whole: total}
    if question.group_by or question.interval != "none":  # else the only row is the total
        figures = figures_in(question, portion, question.group_by, cells, metrics)
    before: Mapping[Cell, Figures] = {}
    previous_total = None
    if is_compared:
        asked = _Before(question, metrics, now or timezone.now())
        previous_total = asked.total()
        before = asked.figures(portion, cells, is_cumulative=is_cumulative)
    at = [(number[row.start], row.key) for row in rows]
    return UsageReport(
        [
            ReportRow(row._replace(measures=cells[cell]), figures[cell], before.get(cell))
            for row, cell in zip(rows, at, strict=True)
        ],
        total,
        previous_total,
        coverage_of(page.total),
        page.next_cursor,
    )


class _Before:
    """A question's metrics in the time that it is compared with."""

    def __init__(self, question: UsageQuestion, metrics: Sequence[str], now: datetime) -> None:
        self._comparison = comparison = Comparison(question, now=now)
        self._metrics = metrics
        self._whole = Bucket(comparison.starts_at, comparison.starts_at, comparison.ends_at)
        self._group_by = question.group_by
        # Of a range in an hour that a clock change repeats, nothing is before.
        ends_at = max(comparison.ends_at, comparison.starts_at + MOMENT)
        # The buckets are the comparison's: here an interval would only limit the range.
        self._question = replace(
            question, starts_at=comparison.starts_at, ends_at=ends_at, interval="none"
        )
        require_sums(self._question, comparison.buckets(question.buckets()))

    def total(self) -> Figures:
        cell: Cell = (1, ())
        used = measures_in(self._question, [self._whole], (), {()})
        cells = {cell: used.get(cell, Measures())}
        return figures_in(self._question, [self._whole], (), cells, self._metrics)[cell]

    def figures(
        self, portion: Sequence[Bucket], cells: Mapping[Cell, Measures], *, is_cumulative: bool
    ) -> dict[Cell, Figures]:
        """Return what was before each of these cells."""
        earlier = self._comparison.buckets(portion)
        keys = {key for _, key in cells}
        used = measures_in(self._question, earlier, self._group_by, keys)
        of_cells = {cell: used.get(cell, Measures()) for cell in cells}
        if is_cumulative:
            of_cells = _running(self._question, earlier, self._group_by, used, cells)
        return figures_in(self._question, earlier, self._group_by, of_cells, self._metrics)


def _running(
    question: UsageQuestion,
    portion: Sequence[Bucket],
    group_by: tuple[str, ...],
    used: Mapping[Cell, Measures],
    wanted: Mapping[Cell, Measures],
) -> dict[Cell, Measures]:
    """Return, for each wanted cell, the sum from the start of the range to the end of its bucket.

    `used` has all usage of the wanted groups from the first bucket on, apart from that of the first
    bucket, of which an earlier page may have shown a part: it is read again.
    """
    if not wanted:
        return {}
    keys: Keys = {key for _, key in wanted}
    first = portion[0]
    until_first = Bucket(question.starts_at, question.starts_at, first.reads_to)
    read = measures_in(question, [until_first], group_by, keys)
    sums: dict[tuple[str, ...], Measures] = defaultdict(
        Measures, {key: measures for (_, key), measures in read.items()}
    )
    by_bucket: dict[int, list[tuple[str, ...]]] = defaultdict(list)
    for bucket, key in {**used, **wanted}:
        by_bucket[bucket].append(key)
    running: dict[Cell, Measures] = {}
    for bucket in sorted(by_bucket):
        for key in by_bucket[bucket]:
            if bucket > 1:
                sums[key] = Measures(*map(add, sums[key], used.get((bucket, key), Measures())))
            if (bucket, key) in wanted:
                running[bucket, key] = sums[key]
    return running
