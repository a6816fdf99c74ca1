"""Pages: each reads the filter bar, asks the domain, and renders."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from common.csv_files import csv_lines
from dashboard import findings, spend
from dashboard.access import PageRequest, cached_page
from dashboard.budget_windows import bar_of, watched_windows
from dashboard.frame import filter_bar_of, frame
from dashboard.incidents.marks import read_marks
from dashboard.spend_chart import spend_figure
from dashboard.tables import csv_rows, table_rows
from metering.budgets.reading import read_budget_index
from metering.reporting.unpriced_models import unpriced_models
from tenants.models import ApiKey
from tenants.roles import ROLES_THAT_GRANT, Scope

OVERVIEW_WINDOWS_PER_BUDGET = 2
OVERVIEW_WINDOWS_MAX = 8
WINDOWS_PER_BUDGET_MAX = 25
UNPRICED_MAX = 200


@require_safe
@cached_page
def overview(request: PageRequest) -> HttpResponse:
    """What are we spending, on what, and is anything about to run out?"""
    bar = filter_bar_of(request)
    context: dict[str, Any] = frame(request, bar, page="overview")
    if not spend.has_usage(request.tenant.id):
        context |= {"url": service_url(request), "may_make_keys": request.role in ROLES_THAT_GRANT}
        return render(request, "dashboard/welcome.html", context)
    totals = spend.read_totals(request.tenant.id, bar, bar.range)
    before = spend.read_totals(request.tenant.id, bar, bar.previous) if bar.has_comparison else None
    spenders = spend.read_spenders(request.tenant.id, bar, totals)
    watch = watched_windows(
        tenant_id=request.tenant.id,
        book=read_budget_index(request.tenant.id),
        now=bar.now,
        per_budget=OVERVIEW_WINDOWS_PER_BUDGET,
        filters=bar.filters,
    )
    context |= {
        "headline": findings.headline(
            bar,
            spent_nanos=totals.cost_nanos,
            unpriced=totals.unpriced,
            before_nanos=before.cost_nanos if before else None,
            spenders=spenders,
        ),
        "totals": totals,
        "tokens": totals.input_tokens + totals.output_tokens,
        "total_calls": totals.requests + totals.tool_calls,
        "unpriced_link": bar.without_chips().query(path=reverse("dashboard:unpriced")),
        "month_query": bar.with_period("30d").query(),
        "before": before,
        "spenders": spenders,
        "has_rows": bool(totals.requests or totals.tool_calls),
        "windows": [(one, bar_of(one)) for one in watch.windows[:OVERVIEW_WINDOWS_MAX]],
        "windows_title": findings.budgets_headline(watch),
    }
    return render(request, "dashboard/overview.html", context)


def service_url(request: HttpRequest) -> str:
    """Where clients reach the service."""
    public_url: str | None = settings.ENVIRONMENT.public_url
    return (public_url or request.build_absolute_uri("/")).rstrip("/")


def curl_context(request: PageRequest, scope: Scope) -> dict[str, Any]:
    """What a ready line for the first call of an API is made of: the newest key with its scope."""
    keys = ApiKey.objects.filter(
        tenant=request.tenant, revoked_at=None, scopes__contains=[scope.value]
    ).exclude(expires_at__lte=timezone.now())
    key = keys.order_by("-id").first()
    return {
        "url": service_url(request),
        "key_prefix": key.prefix if key else None,
        "may_make_keys": request.role in ROLES_THAT_GRANT,
    }


@require_safe
@cached_page
def spend_chart(request: PageRequest) -> HttpResponse:
    """The figure of the overview."""
    bar = filter_bar_of(request)
    series = spend.read_series(request.tenant.id, bar)
    figure = spend_figure(
        series,
        split=bar.split,
        greatest=spend.read_greatest(request.tenant.id, bar),
        starts=[spend.local(start, bar) for start in series.starts],
        marks=read_marks(request.tenant.id, bar, series.starts),
    )
    return JsonResponse(figure)


@require_safe
@cached_page
def spend_table(request: PageRequest) -> HttpResponse:
    """The numbers behind the chart, as a table."""
    bar = filter_bar_of(request)
    series = spend.read_series(request.tenant.id, bar)
    context = {"bar": bar, "series": series, "rows": table_rows(series, bar)}
    return render(request, "dashboard/spend_table.html", context)


@require_safe
@cached_page
def spend_csv(request: PageRequest) -> HttpResponse:
    """The numbers behind the chart, exact, for spreadsheets."""
    bar = filter_bar_of(request)
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="spend-by-{bar.split}.csv"'
    response.writelines(csv_lines(csv_rows(spend.read_rows(request.tenant.id, bar), bar)))
    return response


@require_safe
@cached_page
def budgets(request: PageRequest) -> HttpResponse:
    """Every budget with its fullest windows."""
    bar = filter_bar_of(request)
    book = read_budget_index(request.tenant.id)
    watch = watched_windows(
        tenant_id=request.tenant.id,
        book=book,
        now=bar.now,
        per_budget=WINDOWS_PER_BUDGET_MAX,
        filters=bar.filters,
    )
    shown = {one.rule.id for one in watch.windows}
    context = frame(request, bar, page="budgets") | {
        "headline": findings.budgets_headline(watch),
        "windows": [(one, bar_of(one)) for one in watch.windows],
        "unused": [rule for rule in book.rules.values() if rule.id not in shown],
        "budget_count": len(book.rules),
    }
    return render(request, "dashboard/budgets.html", context)


@require_safe
@cached_page
def unpriced(request: PageRequest) -> HttpResponse:
    """Models that were used and have no price, with what to do."""
    bar = filter_bar_of(request)
    models = unpriced_models(
        tenant_id=request.tenant.id,
        starts_at=bar.range.starts_at,
        ends_at=bar.range.ends_at,
        limit=UNPRICED_MAX,
    )
    context = frame(request, bar, page="unpriced") | {
        "headline": findings.unpriced_headline(models),
        "models": models,
    }
    return render(request, "dashboard/unpriced.html", context)
