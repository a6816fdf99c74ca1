"""What a report says: the finding, the first rows and the total, all rows as CSV, and a link."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from urllib.parse import urljoin

from django.conf import settings
from django.http import QueryDict
from django.urls import reverse

from alerts.messages import Attachment, Message, format_timestamp
from alerts.models import DeliveryEvent, Severity
from common.csv_files import csv_lines
from dashboard.amounts import change, percent, percent_text
from dashboard.explore.exploration import Exploration, read_exploration
from dashboard.explore.exports import exact, usage_rows
from dashboard.explore.finding import headline
from dashboard.explore.ranking import Line, Ranked, Ranking, page_of, read_ranking, rest_of
from dashboard.filter_bar import read_filter_bar
from dashboard.findings import shortened
from dashboard.models import ReportSchedule
from dashboard.reports.periods import Period
from metering.reporting.metrics import Figures

# What a mail can carry; a longer file is opened by the link.
CSV_BYTES_MAX: Final = 256 * 1024
VALUE_CHARACTERS: Final = 60


def view_of(
    schedule: ReportSchedule, period: Period, *, teams: tuple[str, ...] | None, now: datetime
) -> Exploration:
    """The saved view of that period, within what its owner may see now."""
    tenant = schedule.tenant
    query = QueryDict(schedule.view.query)
    bar = read_filter_bar(query, timezone=tenant.timezone, now=now).limited_to(teams)
    bar = bar.with_days(period.first, period.last)
    return read_exploration(query, bar, tenant_id=tenant.id)


def message_of(
    schedule: ReportSchedule, view: Exploration, *, is_test: bool, now: datetime
) -> Message:
    """The report as channels are sent it. Raises InvalidQuestion if the view cannot be answered."""
    ranking = read_ranking(view)
    lines = page_of(view, ranking)
    name = shortened(schedule.view.name, VALUE_CHARACTERS)
    notices = " ".join(view.bar.notices)
    summary = f"{headline(view, ranking, lines)}. {view.bar.period_words}, days in {view.bar.zone}."
    return Message(
        event=DeliveryEvent.REPORT,
        severity=Severity.INFO,
        kind="report",
        title=f"{'Test of ' if is_test else ''}{name}: {view.bar.period_words}",
        summary=f"{summary} {notices}".strip(),
        tenant=schedule.tenant.name,
        incident=None,
        cause=f"spendgate-report-{schedule.id}",
        link=_address(view.link(path=reverse("dashboard:explore"))),
        opened_at="",
        at=format_timestamp(now),
        facts=_facts(view, ranking, lines),
        match=dict(view.filters),
        data={view.metric.name: exact(view.metric, view.metric.value(ranking.total))},
        attachments=_attachments(view),
    )


def _facts(view: Exploration, ranking: Ranking, lines: Sequence[Line]) -> list[tuple[str, str]]:
    dimension = view.group_by[0]
    values = [
        (_label(dimension, line.ranked), _words(view, ranking, line.ranked)) for line in lines
    ]
    rest = rest_of(ranking, lines)
    if rest is not None:
        words = f"{'more than ' if rest.is_more else ''}{rest.values} other"
        shown = _text(view, rest.figures) if view.metric.is_measure else "not added up"
        values.append((words if rest.values == 1 else f"{words}s", shown))
    return [*values, ("Total", _words(view, ranking, Ranked("", ranking.total, ranking.before)))]


def _label(dimension: str, row: Ranked) -> str:
    if row.is_tail:
        return "Long tail"
    return shortened(row.value, VALUE_CHARACTERS) if row.value else f"No {dimension}"


def _words(view: Exploration, ranking: Ranking, row: Ranked) -> str:
    """A row's figure, its part of the total, and its change."""
    text = _text(view, row.figures)
    value, total = view.metric.value(row.figures), view.metric.value(ranking.total)
    further = []
    if view.metric.is_additive and row.figures is not ranking.total:
        further.append(percent(int(value or 0), int(total or 0)))
    before = view.metric.value(row.before) if row.before is not None else None
    if view.metric.is_additive and value and before:
        grown = change(int(value), int(before))
        if grown is not None:
            further.append(f"{'+' if grown > 0 else ''}{percent_text(grown)}")
    return f"{text} ({', '.join(further)})" if further else text


def _text(view: Exploration, figures: Figures) -> str:
    value = view.metric.value(figures)
    return view.metric.missing if value is None else view.metric.unit.text(value)


def _attachments(view: Exploration) -> list[Attachment]:
    """All rows, unless they are too many for a mail."""
    pieces, size = [], 0
    whole = replace(view, search="", page=1)
    for line in csv_lines(usage_rows(whole)):
        pieces.append(line)
        size += len(line.encode())
        if size > CSV_BYTES_MAX:
            return []
    name = f"usage-by-{'-and-'.join(view.group_by)}.csv"
    return [Attachment(name, "".join(pieces))]


def _address(path: str) -> str:
    environment = settings.ENVIRONMENT
    return urljoin(environment.public_url or environment.url, path)
