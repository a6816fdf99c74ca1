"""What every page has around it: who looks, where else to go, and the filter bar."""

from dataclasses import replace
from typing import Any

from django.conf import settings
from django.utils import timezone

from dashboard.access import PageRequest, may_grant, may_halt, may_manage
from dashboard.filter_bar import SPLITS, Choice, FilterBar, choices, read_filter_bar
from dashboard.navigation import Reader, links_of
from metering.calls.seals import read_sealed
from metering.core.dimensions import MATCHABLE
from tenants.admin_site import actor_of
from tenants.form_tokens import new_form_token
from tenants.members import visible_teams
from tenants.models import Team

TEAMS_MAX = 200


def filter_bar_of(request: PageRequest) -> FilterBar:
    """The filter bar that the page's address asks for."""
    bar = read_filter_bar(request.GET, timezone=request.tenant.timezone, now=timezone.now())
    bar = bar.limited_to(
        visible_teams(tenant_id=request.tenant.id, user_id=request.user.pk, role=request.role)
    )
    starts_at = bar.range.starts_at
    if starts_at >= bar.now - settings.RETENTION_EVENTS:
        return bar
    kept_from = read_sealed(request.tenant.id).sealed_until
    if starts_at >= kept_from:
        return bar
    notice = (
        f"Calls before {kept_from:%b %-d, %Y} UTC are no longer kept; totals may not include them."
    )
    return replace(bar, notices=(*bar.notices, notice))


def frame(request: PageRequest, bar: FilterBar, *, page: str) -> dict[str, Any]:
    """Values of the base template. `page` is the name of the page's URL (`navigation.py`)."""
    sidebar, tabs = links_of(Reader(request.tenant.id, bar.teams, actor_of(request)), bar, page)
    return {
        "page": page,
        "bar": bar,
        "periods": choices(bar),
        "splits": [
            Choice(bar.with_split(name).query(), name.capitalize(), 0, name == bar.split)
            for name in SPLITS
        ],
        "chips": [
            (name, value, bar.without_chip(name, value).query()) for name, value in bar.chips
        ],
        "dimensions": MATCHABLE,
        "cleared_query": bar.without_chips().query(),
        "compare_query": bar.with_comparison(not bar.has_comparison).query(),
        "teams": _teams(request, bar),
        "navigation": sidebar,
        "tabs": tabs,
        "tenant": request.tenant,
        "role": request.role,
        "may_manage": may_manage(request),
        "may_halt": may_halt(request),
        "may_grant": may_grant(request),
        "other_tenants": [
            membership.tenant
            for membership in request.memberships
            if membership.tenant_id != request.tenant.id
        ],
        "here": request.get_full_path(),
        "button_token": new_form_token(request.tenant),
    }


def _teams(request: PageRequest, bar: FilterBar) -> list[Choice]:
    """The team filter: every team, then each; empty where there is nothing to choose."""
    chosen = [value for name, value in bar.chips if name == "team"]
    if bar.teams is not None:
        names = list(bar.teams)
    else:
        teams = Team.objects.filter(tenant=request.tenant).order_by("name")
        names = list(teams.values_list("name", flat=True)[:TEAMS_MAX])
    names += [value for value in chosen if value and value not in names]
    if not names:
        return []
    words = "All teams" if bar.teams is None else "My teams"
    everything = Choice(bar.with_only("team", None).query(), words, 0, not chosen)
    return [everything] + [
        Choice(bar.with_only("team", name).query(), name, 0, chosen == [name]) for name in names
    ]
