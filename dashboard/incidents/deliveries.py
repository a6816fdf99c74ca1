"""Deliveries: what has not arrived yet, what was given up, and what was sent."""

from collections.abc import Mapping
from typing import Final

from django.db.models import Count, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from alerts.delivery import resend as resend_delivery
from alerts.incident_lists import deliveries_visible_to
from alerts.models import Channel, Delivery, DeliveryState
from dashboard.access import PageRequest, may_manage, member_page
from dashboard.buttons import button_of
from dashboard.filter_bar import Choice, FilterBar
from dashboard.findings import deliveries_headline
from dashboard.frame import filter_bar_of, frame
from dashboard.incidents.timeline import DeliveryLine
from dashboard.paging import newest_before, number_of
from tenants.admin_site import actor_of
from tenants.members import visible_teams

PER_PAGE: Final = 50
STATES: Final = {
    DeliveryState.DEAD.value: "Failed",
    DeliveryState.WAITING.value: "Pending",
    DeliveryState.SENT.value: "Delivered",
    DeliveryState.SUPERSEDED.value: "No longer needed",
}
CHANNELS_MAX: Final = 100
# The latest; a delivery that fails for three days has more than anyone reads.
ATTEMPTS_MAX: Final = 100


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """What did not arrive?"""
    bar = filter_bar_of(request)
    state = request.GET.get("state", "")
    state = state if state in STATES else ""
    channel_id = number_of(request.GET.get("channel", ""))
    further = _further(state, channel_id)
    rows = Delivery.objects.filter(deliveries_visible_to(bar.teams), tenant=request.tenant)
    counts = _counts(rows, channel_id)
    context = frame(request, bar, page="deliveries") | {
        "headline": deliveries_headline(
            dead=counts.get(DeliveryState.DEAD, 0), waiting=counts.get(DeliveryState.WAITING, 0)
        ),
        "states": _states(bar, state, channel_id, counts),
        "channels": _channels(request.tenant.id, bar, state, channel_id),
        "state": state,
    }
    context |= _rows(request, bar, further, _of(rows, state, channel_id))
    return render(request, "dashboard/incidents/deliveries.html", context)


@require_safe
@member_page
def attempts(request: PageRequest, delivery_id: int) -> HttpResponse:
    """The message and its latest attempts: a part of the page that is loaded when it is opened."""
    delivery = _find(request, delivery_id)
    context = {"row": delivery, "attempts": delivery.tried.order_by("-id")[:ATTEMPTS_MAX]}
    return render(request, "dashboard/incidents/attempts.html", context)


@button_of("deliveries", may=may_manage)
def resend(request: PageRequest, delivery_id: int) -> str:
    """Send a message once more, the same one under the same reference."""
    resend_delivery(delivery=_find(request, delivery_id), actor=actor_of(request))
    return "It was queued again, with the same reference."


def _find(request: PageRequest, delivery_id: int) -> Delivery:
    teams = visible_teams(tenant_id=request.tenant.id, user_id=request.user.pk, role=request.role)
    rows = Delivery.objects.filter(deliveries_visible_to(teams), tenant=request.tenant)
    return get_object_or_404(rows, id=delivery_id)


def _of(rows: QuerySet[Delivery], state: str, channel_id: int | None) -> QuerySet[Delivery]:
    """Deliveries that a person may want to look at; unless asked for, what has not arrived."""
    wanted = [state] if state else [DeliveryState.DEAD, DeliveryState.WAITING]
    rows = rows.filter(state__in=wanted)
    rows = rows if channel_id is None else rows.filter(channel=channel_id)
    return rows.select_related("channel", "incident")


def _further(state: str, channel_id: int | None) -> dict[str, str]:
    pairs = {"state": state, "channel": str(channel_id or "")}
    return {name: value for name, value in pairs.items() if value}


def _rows(
    request: PageRequest, bar: FilterBar, further: Mapping[str, str], rows: QuerySet[Delivery]
) -> dict[str, object]:
    before = number_of(request.GET.get("before", ""))
    deliveries = newest_before(rows, before, limit=PER_PAGE)
    older = {**further, "before": str(deliveries.older)}
    return {
        "lines": [DeliveryLine(row) for row in deliveries.rows],
        "older": bar.with_further(older).query() if deliveries.older else None,
        "newest": bar.with_further(further).query() if before else None,
    }


def _counts(rows: QuerySet[Delivery], channel_id: int | None) -> dict[str, int]:
    """How many of each state; what arrived is not counted, as it only grows."""
    rows = rows.filter(state__in=[DeliveryState.DEAD, DeliveryState.WAITING])
    rows = rows if channel_id is None else rows.filter(channel=channel_id)
    return dict(rows.values_list("state").annotate(Count("id")))


def _states(
    bar: FilterBar, state: str, channel_id: int | None, counts: Mapping[str, int]
) -> list[Choice]:
    words = {"": "Undelivered", **STATES}
    return [
        Choice(
            bar.with_further(_further(name, channel_id)).query(),
            text,
            counts.get(name, 0) if name else sum(counts.values()),
            name == state,
        )
        for name, text in words.items()
    ]


def _channels(tenant_id: int, bar: FilterBar, state: str, channel_id: int | None) -> list[Choice]:
    rows = Channel.objects.filter(tenant_id=tenant_id).order_by("name", "id")[:CHANNELS_MAX]
    every = Choice(
        bar.with_further(_further(state, None)).query(), "Any channel", 0, channel_id is None
    )
    return [every] + [
        Choice(bar.with_further(_further(state, row.id)).query(), row.name, 0, row.id == channel_id)
        for row in rows
    ]
