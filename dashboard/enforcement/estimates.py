"""How far estimates were from what calls cost."""

from decimal import Decimal
from typing import Final

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard.access import PageRequest, member_page
from dashboard.budgets.visible import teams_of
from dashboard.filter_bar import Choice
from dashboard.findings import estimates_headline
from dashboard.frame import filter_bar_of, frame
from metering.reporting.estimates import GROUPS, EstimateError, EstimateQuestion, estimate_errors

ROWS_MAX: Final = 200
GROUP_DEFAULT: Final = "agent"
KIND_WORDS: Final = {
    "max": "worst case",
    "expected": "typical",
    "amount": "set by the caller",
}


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """What was reserved, what it cost, and how often it cost more."""
    bar = filter_bar_of(request)
    asked = request.GET.get("group", GROUP_DEFAULT)
    group = asked if asked in GROUPS else GROUP_DEFAULT
    if group != GROUP_DEFAULT:
        bar = bar.with_further({"group": group})
    errors = estimate_errors(
        EstimateQuestion(
            tenant_id=request.tenant.id,
            starts_at=bar.range.starts_at,
            ends_at=bar.range.ends_at,
            group_by=group,
            teams=teams_of(request),
        ),
        limit=ROWS_MAX,
    )
    rows = sorted(errors.rows, key=lambda row: (-row.cost_nanos, row.value, row.estimate))
    context = frame(request, bar, page="estimates") | {
        "headline": estimates_headline(
            settled=sum(row.settled for row in rows),
            reserved_nanos=sum(row.reserved_nanos for row in rows),
            cost_nanos=sum(row.cost_nanos for row in rows),
        ),
        "group": group,
        "groups": [
            Choice(bar.with_further({"group": name}).query(), name.capitalize(), 0, name == group)
            for name in GROUPS
        ],
        "rows": [(row, KIND_WORDS.get(row.estimate, row.estimate), _ratio(row)) for row in rows],
        "is_cut": errors.next_cursor is not None,
        "rows_max": ROWS_MAX,
    }
    return render(request, "dashboard/enforcement/estimates.html", context)


def _ratio(row: EstimateError) -> Decimal | None:
    """True cost in percent of what was reserved; None where nothing was."""
    if not row.reserved_nanos:
        return None
    return Decimal(row.cost_nanos) * 100 / row.reserved_nanos
