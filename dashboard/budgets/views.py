"""`/budgets`: which limit is hit next, and will it refuse calls?"""

from collections import Counter
from dataclasses import replace
from typing import Final

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard.access import PageRequest, cached_page
from dashboard.budgets.bars import bar_of
from dashboard.budgets.listing import (
    MODES,
    NEEDLE_CHARACTERS_MAX,
    WINDOWS_PER_PAGE,
    ListFilter,
    dimension_choices,
    groups_of,
    headline_of,
    mode_choices,
    read_lines,
    visible_rules,
    windows_page,
)
from dashboard.budgets.visible import is_visible, teams_of
from dashboard.curl_lines import curl_context
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import number_of, numbered_page
from metering.budgets.reading import read_budget_index
from metering.core.dimensions import MATCHABLE
from metering.models import UNFINISHED, BackgroundJob, Budget, JobKind
from tenants.roles import Scope

ARCHIVED_MAX: Final = 100
PAGE_MAX: Final = 100


@require_safe
@cached_page
def page(request: PageRequest) -> HttpResponse:
    """Every budget with its fullest window, and those of one budget unfolded."""
    chosen = _read_filter(request)
    tenant_id, teams = request.tenant.id, teams_of(request)
    book = read_budget_index(tenant_id)
    lines = read_lines(tenant_id=tenant_id, book=book, chosen=chosen, teams=teams)
    opened = next((line for line in lines if line.rule.id == chosen.opened), None)
    windows = (
        windows_page(tenant_id=tenant_id, book=book, chosen=chosen, teams=teams) if opened else []
    )
    rules = visible_rules(book, replace(chosen, mode="", dimension=""), teams)
    context = frame(request, chosen.bar.with_further(chosen.further), page="budgets") | {
        "headline": headline_of(lines, now=chosen.bar.now, zone=chosen.bar.zone),
        "groups": [
            (title, [(line, chosen.query(opened=line.rule.id, page=1)) for line in group])
            for title, group in groups_of(lines)
        ],
        "budget_count": len(lines),
        "window_count": sum(line.spread.windows for line in lines),
        "over_count": sum(line.spread.over for line in lines),
        "opened": chosen.opened,
        "folded": chosen.query(opened=None, page=1),
        "windows": [(window, bar_of(window)) for window in windows],
        "pages": numbered_page(
            chosen.page,
            opened.spread.windows if opened else 0,
            per_page=WINDOWS_PER_PAGE,
            address=lambda page: chosen.query(page=page),
        ),
        "chosen": chosen,
        "needle_characters_max": NEEDLE_CHARACTERS_MAX,
        "kept": replace(chosen, needle="", opened=None, page=1),
        "cleared": ListFilter(chosen.bar.without_chips()).query(),
        "modes": mode_choices(chosen, Counter(rule.mode for rule in rules)),
        "dimension_choices": dimension_choices(chosen, rules),
        "archived": _archived(request, teams),
        "counting": _counting(tenant_id),
    }
    if not lines and not chosen.is_narrow:
        context |= curl_context(request, Scope.MANAGE)
    return render(request, "dashboard/budgets/list.html", context)


def _read_filter(request: PageRequest) -> ListFilter:
    """The filter of an address; what is not known is left out."""
    mode, dimension = request.GET.get("mode", ""), request.GET.get("dimension", "")
    needle = request.GET.get("q", "").replace("\0", "").strip()
    return ListFilter(
        bar=filter_bar_of(request),
        needle=needle[:NEEDLE_CHARACTERS_MAX],
        mode=mode if mode in MODES else "",
        dimension=dimension if dimension in MATCHABLE else "",
        opened=number_of(request.GET.get("open", "")),
        page=min(max(number_of(request.GET.get("page", "")) or 1, 1), PAGE_MAX),
    )


def _archived(request: PageRequest, teams: tuple[str, ...] | None) -> list[Budget]:
    rows = Budget.objects.filter(tenant=request.tenant, archived_at__isnull=False)
    newest = rows.order_by("-archived_at")[:ARCHIVED_MAX]
    return [row for row in newest if is_visible(row.match, row.per, teams)]


def _counting(tenant_id: int) -> dict[int, int]:
    """How much of the past is counted, in percent, of budgets that still count it."""
    jobs = BackgroundJob.objects.filter(
        UNFINISHED, tenant_id=tenant_id, kind=JobKind.COUNT_BUDGET, budget_id__isnull=False
    )
    return {
        job.budget_id: min(99, job.done * 100 // job.total) if job.total else 0
        for job in jobs
        if job.budget_id is not None
    }
