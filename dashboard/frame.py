"""What every page has around it: who looks, where else to go, and the filter bar."""

from dataclasses import replace
from typing import Any

from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from alerts.models import Incident, Severity
from dashboard import charts
from dashboard.access import PageRequest
from dashboard.filter_bar import SPLITS, FilterBar, choices, read_filter_bar
from metering.calls.seals import read_sealed
from tenants.models import Team

TEAMS_MAX = 200
# Page, words, and the address that leads there.
NAVIGATION = (
    ("overview", "Overview", "dashboard:overview"),
    ("budgets", "Budgets", "dashboard:budgets"),
    ("incidents", "Incidents", "dashboard:incidents"),
    ("enforcement", "Enforcement", "dashboard:requests"),
    ("sources", "Sources", "dashboard:sources"),
)


def filter_bar_of(request: PageRequest) -> FilterBar:
    """The filter bar that the page's address asks for."""
    bar = read_filter_bar(request.GET, timezone=request.tenant.timezone, now=timezone.now())
    starts_at = bar.range.starts_at
    if starts_at >= bar.now - settings.RETENTION_EVENTS:
        return bar
    kept_from = read_sealed(request.tenant.id).sealed_until
    if starts_at >= kept_from:
        return bar
    notice = (
        f"Calls before {kept_from:%Y-%m-%d} UTC are no longer kept; totals may not include them."
    )
    return replace(bar, notices=(*bar.notices, notice))


def frame(request: PageRequest, bar: FilterBar, *, page: str) -> dict[str, Any]:
    """Values of the base template. Only pages that exist are linked."""
    counts = {"incidents": unresolved_incidents(request.tenant.id)}
    return {
        "page": page,
        "bar": bar,
        "periods": choices(bar),
        "splits": [(bar.with_split(name).query(), name, name == bar.split) for name in SPLITS],
        "chips": [
            (name, value, bar.without_chip(name, value).query()) for name, value in bar.chips
        ],
        "cleared_query": bar.without_chips().query(),
        "compare_query": bar.with_comparison(not bar.has_comparison).query(),
        # The other pages show the whole tenant.
        "teams": _teams(request, bar) if page == "overview" else [],
        "navigation": [
            (name, words, bar.query(path=reverse(address)), name == page, counts.get(name, 0))
            for name, words, address in NAVIGATION
        ],
        "tenant": request.tenant,
        "role": request.role,
        "other_tenants": [
            one.tenant for one in request.memberships if one.tenant_id != request.tenant.id
        ],
        "plotly_version": charts.PLOTLY_VERSION,
        "last_day": bar.days[1] if bar.days else None,
        "first_day": bar.days[0] if bar.days else None,
    }


def unresolved_incidents(tenant_id: int) -> int:
    """Return the number of incidents that need to be resolved; informational ones do not."""
    rows = Incident.objects.filter(tenant_id=tenant_id, resolved_at=None)
    return rows.exclude(severity=Severity.INFO).count()


def _teams(request: PageRequest, bar: FilterBar) -> list[tuple[str, str, bool]]:
    """The team filter as (query, words, is chosen)."""
    chosen = bar.filters.get("team", [])
    names = list(
        Team.objects.filter(tenant=request.tenant)
        .order_by("name")
        .values_list("name", flat=True)[:TEAMS_MAX]
    )
    names += [value for value in chosen if value and value not in names]
    everything = [(bar.with_only("team", None).query(), "All teams", not chosen)]
    return everything + [
        (bar.with_only("team", name).query(), name, chosen == [name]) for name in names
    ]
