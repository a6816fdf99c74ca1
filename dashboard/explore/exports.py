"""The view as files for other programs: every row as CSV, FOCUS of the same usage, and the
request that answers it.
"""

import shlex
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlencode

from django.http import FileResponse, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from common.csv_downloads import csv_download
from common.money import usd_from_nanos
from dashboard.access import PageRequest, member_page
from dashboard.explore.exploration import Exploration, read_exploration
from dashboard.explore.metrics import Metric, Value
from dashboard.filter_bar import parameter_of
from dashboard.frame import filter_bar_of, frame
from dashboard.spend import local
from metering.models import MEASURES
from metering.reporting.focus import focus_rows
from metering.reporting.question import InvalidQuestion
from metering.reporting.report import ReportRow, usage_report

ROWS_A_READ: Final = 2_000
# A spreadsheet opens a million; more than this is asked for with narrower filters.
ROWS_MAX: Final = 200_000
# As `/v1/usage` answers them.
COUNTS: Final = tuple(name for name in MEASURES if not name.endswith("_nanos"))
KEY: Final = "YOUR_KEY"


class TooManyRows(Exception):
    """The view has more rows than one file holds."""


def usage_rows(view: Exploration) -> Iterator[list[str]]:
    """A head, then every group in every bucket: exact measures, and the metric where it is not one.

    Raises TooManyRows.
    """
    further = [view.metric.name] if view.metric.asked else []
    yield ["start", *view.group_by, "cost_usd", *COUNTS, *further]
    asked = view.question(view.bar.range, group_by=view.group_by, interval=view.bar.interval)
    cursor, number = None, 0
    while asked is not None:
        report = usage_report(asked, metrics=view.metric.asked, limit=ROWS_A_READ, cursor=cursor)
        number += len(report.rows)
        if number > ROWS_MAX:
            raise TooManyRows
        for row in report.rows:
            yield _cells(view, row)
        cursor = report.next_cursor
        if cursor is None:
            return


def _cells(view: Exploration, row: ReportRow) -> list[str]:
    group, measures = row.row.group, row.figures.measures
    cells = [
        local(row.row.start, view.bar).isoformat(),
        *(group[name] for name in view.group_by),
        usd_from_nanos(measures.cost_nanos),
        *(str(getattr(measures, name)) for name in COUNTS),
    ]
    if view.metric.asked:
        cells.append(exact(view.metric, view.metric.value(row.figures)))
    return cells


def exact(metric: Metric, value: Value) -> str:
    """A value as programs read it; nothing where it is not known."""
    if value is None:
        return ""
    return usd_from_nanos(int(value)) if metric.has_money else str(value)


@require_safe
@member_page
def usage_csv(request: PageRequest) -> HttpResponse | FileResponse:
    """Every row of the view."""
    view = read_exploration(request.GET, filter_bar_of(request), tenant_id=request.tenant.id)
    try:
        return csv_download(usage_rows(view), name=f"usage-by-{'-and-'.join(view.group_by)}.csv")
    except TooManyRows:
        return _refused(request, view, f"This export has more than {ROWS_MAX:,} rows")
    except InvalidQuestion as refusal:
        return _refused(request, view, refusal.detail)


def _refused(request: PageRequest, view: Exploration, why: str) -> HttpResponse:
    context = frame(request, view.bar, page="explore") | {"headline": why, "back": view.link()}
    return render(request, "dashboard/explore/refused.html", context, status=422)


@require_safe
@member_page
def focus_csv(request: PageRequest) -> FileResponse:
    """FOCUS of the view's range and filters."""
    view = read_exploration(request.GET, filter_bar_of(request), tenant_id=request.tenant.id)
    span = view.bar.range
    rows = focus_rows(
        tenant_id=request.tenant.id,
        tenant_name=request.tenant.name,
        starts_at=span.starts_at,
        ends_at=span.until,
        filters=view.filters,
    )
    first, last = (local(at, view.bar).date() for at in (span.starts_at, span.until))
    return csv_download(rows, name=f"focus-{first}-{last}.csv")


def curl_line(view: Exploration, url: str) -> str:
    """The view as a request of the API, for a shell: every value is quoted."""
    span = view.bar.range
    pairs = [
        ("from", local(span.starts_at, view.bar).isoformat()),
        ("to", local(span.ends_at, view.bar).isoformat()),
        ("group_by", ",".join(view.group_by)),
        ("interval", view.bar.interval),
        ("timezone", str(view.bar.zone)),
    ]
    pairs += [("metrics", name) for name in view.metric.asked]
    if view.bar.has_comparison:
        pairs.append(("compare", "previous"))
    if view.is_cumulative:
        pairs.append(("cumulative", "true"))
    pairs += [
        (parameter_of(name), value) for name, values in view.filters.items() for value in values
    ]
    address = f"{url}/v1/usage?{urlencode(pairs, safe='[],:/')}"
    header = shlex.quote(f"Authorization: Bearer {KEY}")
    return f"curl -s -g {shlex.quote(address)} \\\n  -H {header}"
