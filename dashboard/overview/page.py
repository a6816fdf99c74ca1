"""The overview's page."""

from datetime import datetime, timedelta
from typing import Any, Final

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from dashboard import findings
from dashboard.access import PageRequest, cached_page
from dashboard.curl_lines import curl_context
from dashboard.filter_bar import FilterBar
from dashboard.frame import filter_bar_of, frame
from dashboard.overview.attention import read_attention
from dashboard.overview.month import read_forecast, read_month
from dashboard.overview.moved import moved_by
from dashboard.overview.spenders import spender_rows
from dashboard.spend import (
    Spending,
    calls_of,
    has_usage,
    local,
    per_call,
    read_change,
    read_spending,
    tokens_of,
)
from metering.budgets.reading import read_budget_index
from metering.models import Status
from metering.reporting.change import Change
from metering.reporting.kept import first_event_at
from metering.reporting.metrics import coverage_of
from tenants.roles import Scope

# A first event so soon after midnight does not make the first day a part of one.
WHOLE_DAY: Final = timedelta(hours=1)


@require_safe
@cached_page
def page(request: PageRequest) -> HttpResponse:
    """What are we spending, on what, where is it heading, and does anything need me?"""
    bar = filter_bar_of(request)
    tenant_id = request.tenant.id
    context: dict[str, Any] = frame(request, bar, page="overview")
    if not has_usage(tenant_id):
        context |= curl_context(request, Scope.INGEST)
        return render(request, "dashboard/overview/welcome.html", context)
    change = read_change(tenant_id, bar)
    spending = read_spending(tenant_id, bar, change)
    context |= _totals(tenant_id, bar, spending)
    context |= _spenders(request, bar, spending)
    context |= _outlook(tenant_id, bar)
    context |= {"moved": moved_by(change), "headline": _headline(bar, spending, change)}
    return render(request, "dashboard/overview/page.html", context)


def _totals(tenant_id: int, bar: FilterBar, spending: Spending) -> dict[str, object]:
    """The tiles of the period, and how complete they are."""
    total, before = spending.total, spending.before
    data_since = _data_since(tenant_id, bar)
    calls, explore = reverse("dashboard:calls"), reverse("dashboard:explore")
    return {
        "total": total,
        "before": before,
        "calls": calls_of(total),
        "calls_before": calls_of(before) if before else None,
        "tokens": tokens_of(total),
        "per_call_nanos": per_call(total),
        "coverage_words": findings.coverage_words(coverage_of(total)),
        "is_running": bar.range.until < bar.range.ends_at,
        "data_since": f"{data_since:%b %-d}" if data_since else "",
        "failed_link": bar.with_chip("status", Status.ERROR.label).query(path=calls),
        "unpriced_link": reverse("dashboard:prices"),
        "today_link": bar.with_period("today").query(path=explore),
        "month_link": bar.with_period("month").query(path=explore),
        "calls_link": bar.query(path=calls),
        "longer_query": bar.with_period("30d").query(),
    }


def _spenders(request: PageRequest, bar: FilterBar, spending: Spending) -> dict[str, object]:
    rows = spender_rows(request, bar, spending.named)
    shares = [(spender.value, spender.measures.cost_nanos, 0) for spender in spending.named]
    greatest = findings.greatest_share(bar.split, spending.total.cost_nanos, shares)
    return {
        "rows": rows,
        "others": next((spender for spender in spending.spenders if spender.is_other), None),
        "others_count": spending.values - len(rows),
        "spending": spending,
        "spenders_title": greatest or f"Top {bar.split}s by spend",
        "explore": bar.query(path=reverse("dashboard:explore")),
    }


def _outlook(tenant_id: int, bar: FilterBar) -> dict[str, object]:
    """Where the day and the month end, and what needs attention."""
    book = read_budget_index(tenant_id)
    month = read_month(tenant_id, bar, book)
    today = read_forecast(tenant_id, bar, "day")
    attention = read_attention(tenant_id, bar, book)
    first = local(month.span.starts_at, bar)
    note = ""
    if today and bar.interval == "day" and bar.range.until < bar.range.ends_at:
        note = findings.today_note(today)
    return {
        "today": today,
        "chart_note": note,
        "month": month,
        "month_start": f"{first:%b %-d}",
        "month_title": findings.month_headline(f"{first:%B}", month),
        "attention": attention,
        "windows_title": findings.budgets_headline(attention.watch),
        "incidents_link": bar.query(path=reverse("dashboard:incidents")),
    }


def _headline(bar: FilterBar, spending: Spending, change: Change | None) -> str:
    if change is None:
        groups = [(group.value, group.measures.cost_nanos, 0) for group in spending.named]
    else:
        # Also values that spend nothing any more, which are none of the spenders.
        groups = [
            (group.value, group.after.cost_nanos, group.change_nanos) for group in change.groups
        ]
    return findings.headline(
        bar,
        spent_nanos=spending.total.cost_nanos,
        unpriced=spending.total.unpriced,
        before_nanos=spending.before.cost_nanos if spending.before else None,
        groups=groups,
    )


def _data_since(tenant_id: int, bar: FilterBar) -> datetime | None:
    """By the tenant's clock, when usage begins, if the period or the one before begins earlier."""
    first_at = first_event_at(tenant_id)
    compared = bar.previous if bar.has_comparison else bar.range
    if first_at is None or first_at < compared.starts_at + WHOLE_DAY:
        return None
    return local(first_at, bar)
