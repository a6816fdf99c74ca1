"""The charts of the overview: their figures, the tables behind them, and every number as CSV."""

from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from common.csv_downloads import csv_response
from common.money import usd_from_nanos
from dashboard import spend
from dashboard.access import PageRequest, cached_page
from dashboard.annotations import read_chart_notes
from dashboard.chart_notes import Level, with_annotations, with_marks, with_shade
from dashboard.filter_bar import FilterBar, TimeRange
from dashboard.frame import filter_bar_of
from dashboard.incidents.marks import read_marks
from dashboard.overview.month import (
    Covering,
    budgets_per,
    covering_budgets,
    read_forecast,
    read_month,
)
from dashboard.spend_chart import NO_DATA, month_figure, spend_figure, with_near_levels
from dashboard.tables import csv_rows, table_rows
from metering.budgets.reading import read_budget_index
from metering.reporting.kept import first_event_at

# Intervals of a chart whose running bucket has a forecast.
FORECASTS = frozenset({"day", "month"})


@require_safe
@cached_page
def spend_chart(request: PageRequest) -> HttpResponse:
    """Spend over time as a figure."""
    bar = filter_bar_of(request)
    tenant_id = request.tenant.id
    series = spend.read_series(tenant_id, bar)
    figure = spend_figure(
        series,
        split=bar.split,
        greatest=spend.read_greatest(tenant_id, bar),
        starts=[spend.local(start, bar) for start in series.starts],
        expected=_expected(tenant_id, bar, series),
    )
    figure = with_near_levels(figure, _levels(tenant_id, bar, series))
    if empty := spend.places_before(series.starts, first_event_at(tenant_id)):
        figure = with_shade(figure, -0.5, empty - 0.5, NO_DATA)
    figure = with_marks(figure, read_marks(tenant_id, bar, series.starts))
    notes = read_chart_notes(tenant_id, bar, series.starts)
    return JsonResponse(with_annotations(figure, notes))


def _expected(tenant_id: int, bar: FilterBar, series: spend.Series) -> int | None:
    """What the bucket that is running will come to; None where there is none, or no telling."""
    if series.unfinished is None or series.interval not in FORECASTS:
        return None
    forecast = read_forecast(tenant_id, bar, series.interval)
    return forecast.forecast_nanos if forecast and forecast.method != "none" else None


def _levels(tenant_id: int, bar: FilterBar, series: spend.Series) -> list[Level]:
    """Lines of the budget that counts in each bucket exactly what is shown, where it is one."""
    if not series.starts:
        return []
    book = read_budget_index(tenant_id)
    rules = budgets_per(series.interval, series.starts[0], book)
    return levels_of(covering_budgets(tenant_id, bar, book, rules))


def levels_of(budgets: Sequence[Covering]) -> list[Level]:
    """The lines of a budget; none where there are several, which could not be told apart."""
    if len(budgets) != 1:
        return []
    rule, limit = budgets[0]
    lower = [
        Level(limit * level.percent // 100, f"{level.percent}%")
        for level in rule.levels
        if level.percent != 100
    ]
    return [Level(limit, rule.name, is_limit=True), *lower]


@require_safe
@cached_page
def spend_table(request: PageRequest) -> HttpResponse:
    """The numbers behind the chart of spend, as a table."""
    bar = filter_bar_of(request)
    series = spend.read_series(request.tenant.id, bar)
    context = {"bar": bar, "series": series, "rows": table_rows(series, bar)}
    return render(request, "dashboard/overview/spend_table.html", context)


@require_safe
@cached_page
def spend_csv(request: PageRequest) -> HttpResponse:
    """Every value of the split in every bucket, exact, for spreadsheets."""
    bar = filter_bar_of(request)
    rows = csv_rows(spend.read_rows(request.tenant.id, bar), bar)
    return csv_response(rows, name=f"spend-by-{bar.split}.csv")


class MonthDay(NamedTuple):
    """A day of the running month, the sum up to it, and the sum of the month before up to then."""

    start: datetime
    spent: int
    so_far: int
    so_far_before: int | None


class MonthDays(NamedTuple):
    """What was spent on the days of the running month, of which the first `empty` have no data, and
    of the month before.
    """

    starts: Sequence[datetime]
    amounts: Sequence[int]
    before: Sequence[int]
    today: int
    empty: int

    @property
    def rows(self) -> list[MonthDay]:
        """The days until today."""
        sums, sums_before = list(accumulate(self.amounts)), list(accumulate(self.before))
        return [
            MonthDay(
                self.starts[index],
                self.amounts[index],
                sums[index],
                sums_before[index] if index < len(sums_before) else None,
            )
            for index in range(self.today + 1)
        ]


def read_days(tenant_id: int, bar: FilterBar) -> MonthDays:
    """The running month by day, whatever period the page shows."""
    month = bar.with_period("month").with_interval("day")
    starts = spend.bucket_starts(month, month.range)
    before = month.previous._replace(until=month.previous.ends_at)
    starts_before = spend.bucket_starts(month, before)
    return MonthDays(
        starts=[spend.local(start, bar) for start in starts],
        amounts=spend.read_amounts(tenant_id, month, month.range, starts),
        before=spend.read_amounts(tenant_id, month, before, starts_before),
        today=_index_of(starts, month.range),
        empty=spend.places_before(starts, first_event_at(tenant_id)),
    )


def _index_of(starts: Sequence[datetime], span: TimeRange) -> int:
    index = spend.unfinished_bucket(starts, span)
    assert index is not None, "the running month is not over"
    return index


@require_safe
@cached_page
def month_chart(request: PageRequest) -> HttpResponse:
    """The running sum of the month, and where it ends, as a figure."""
    bar = filter_bar_of(request)
    days = read_days(request.tenant.id, bar)
    month = read_month(request.tenant.id, bar, read_budget_index(request.tenant.id))
    figure = month_figure(
        days.amounts,
        before=days.before,
        starts=days.starts,
        today=days.today,
        empty=days.empty,
        outlook=month.forecast,
    )
    return JsonResponse(with_near_levels(figure, levels_of(month.budgets)))


@require_safe
@cached_page
def month_table(request: PageRequest) -> HttpResponse:
    """The numbers behind the chart of the month, as a table."""
    bar = filter_bar_of(request)
    rows = read_days(request.tenant.id, bar).rows[::-1]
    return render(request, "dashboard/overview/month_table.html", {"bar": bar, "rows": rows})


@require_safe
@cached_page
def month_csv(request: PageRequest) -> HttpResponse:
    """The same, exact, for spreadsheets."""
    bar = filter_bar_of(request)
    head = ["day", "cost_usd", "month_to_date_usd", "previous_month_to_date_usd"]
    rows = [
        [
            row.start.date().isoformat(),
            usd_from_nanos(row.spent),
            usd_from_nanos(row.so_far),
            "" if row.so_far_before is None else usd_from_nanos(row.so_far_before),
        ]
        for row in read_days(request.tenant.id, bar).rows
    ]
    return csv_response([head, *rows], name="month-to-date.csv")
