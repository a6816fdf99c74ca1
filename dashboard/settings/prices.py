"""Prices: the tenant's own of models and tools, what has none, and the catalogue behind them."""

from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.db.models import Q
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.access import PageRequest, may_manage, member_page
from dashboard.buttons import button_of
from dashboard.findings import unpriced_headline
from dashboard.frame import filter_bar_of, frame
from metering.configuration.prices import end_price
from metering.fields.rates import format_rates
from metering.models import CataloguePrice, TenantPrice, ToolPrice
from metering.reporting.unpriced_models import UnpricedModel, unpriced_models
from tenants.admin_site import actor_of

PRICES_MAX: Final = 1_000
ENDED_MAX: Final = 50
UNPRICED_MAX: Final = 200
FOUND_MAX: Final = 50
SEARCH_CHARACTERS_MAX: Final = 200
KINDS: Final[dict[str, type[TenantPrice] | type[ToolPrice]]] = {
    "model": TenantPrice,
    "tool": ToolPrice,
}


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """What do calls cost?"""
    bar = filter_bar_of(request)
    tenant_id, now = request.tenant.id, timezone.now()
    in_force = Q(effective_to=None) | Q(effective_to__gt=now)
    own = TenantPrice.objects.filter(tenant_id=tenant_id)
    tools = ToolPrice.objects.filter(tenant_id=tenant_id)
    unpriced = unpriced_models(
        tenant_id=tenant_id,
        starts_at=now - settings.EVENT_MAX_AGE,
        ends_at=now,
        teams=bar.teams,
        limit=UNPRICED_MAX + 1,
    )
    query = request.GET.get("q", "")[:SEARCH_CHARACTERS_MAX].replace("\0", "").strip()
    own_lines = _with_rates(own.filter(in_force)[:PRICES_MAX])
    tool_lines = list(tools.filter(in_force)[:PRICES_MAX])
    context = frame(request, bar, page="prices") | {
        "headline": headline_of(len(own_lines) + len(tool_lines), unpriced),
        "own": own_lines,
        "tools": tool_lines,
        "ended": _with_rates(own.exclude(in_force).order_by("-effective_to")[:ENDED_MAX]),
        "ended_tools": list(tools.exclude(in_force).order_by("-effective_to")[:ENDED_MAX]),
        "unpriced": unpriced[:UNPRICED_MAX],
        "has_more_unpriced": len(unpriced) > UNPRICED_MAX,
        "unpriced_max": UNPRICED_MAX,
        "now": now,
        "q": query,
        "found": _search(query) if query else [],
        "found_max": FOUND_MAX,
    }
    return render(request, "dashboard/settings/prices.html", context)


@button_of("prices", may=may_manage)
def end(request: PageRequest, kind: str, price_id: int) -> str:
    """Let a price end now."""
    model = KINDS.get(kind)
    price = model.objects.filter(tenant=request.tenant, id=price_id).first() if model else None
    if price is None:
        raise Http404
    end_price(price=price, actor=actor_of(request))
    return f"The price of {price} ended. What it has priced keeps its cost."


def headline_of(count: int, unpriced: Sequence[UnpricedModel]) -> str:
    """The finding: what has no price, else how many prices are the tenant's own."""
    if len(unpriced) > UNPRICED_MAX:
        return f"More than {UNPRICED_MAX} models have no price"
    if unpriced:
        return unpriced_headline(unpriced)
    if not count:
        return "Every call has a price; the catalogue sets all of them"
    words = "1 price is" if count == 1 else f"{count:,} prices are"
    return f"Every call has a price; {words} your own"


def _with_rates(rows: Any) -> list[tuple[Any, str]]:
    return [(row, format_rates(row.rates)) for row in rows]


def _search(query: str) -> list[tuple[CataloguePrice, str]]:
    """Prices of the catalogue whose model or provider has these words."""
    rows = CataloguePrice.objects.filter(superseded_at=None)
    for word in query.split():
        rows = rows.filter(
            Q(model__icontains=word) | Q(provider__icontains=word) | Q(name__icontains=word)
        )
    return _with_rates(rows.order_by("provider", "model", "ordinal")[:FOUND_MAX])
