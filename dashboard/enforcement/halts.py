"""Halts: what is stopped, by whom and why; stopping an agent, and letting it go on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from common.errors import InvalidRequest, LimitReached
from common.values import normal_value
from dashboard.access import PageRequest, may_halt, may_manage, member_page
from dashboard.enforcement.matches import calls_of, pairs_of
from dashboard.enforcement.tabs import button_of, enforcement_frame, number_of
from dashboard.filter_bar import VALUE_CHARACTERS_MAX, is_possible
from dashboard.findings import halts_headline
from dashboard.frame import filter_bar_of
from metering.core.match import ASKABLE
from metering.limits.breakers import BreakerRule, close_breaker
from metering.limits.breakers.rules import cool_down
from metering.limits.breakers.states import OpenGroup, match_of, open_groups
from metering.limits.halts import halt, is_wide, lift_halt
from metering.models import Breaker, BreakerClose, Halt, HaltKind, Reservation, ReservationState
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import Measures, total_usage, usage
from tenants.admin_site import actor_of

IN_FORCE_MAX: Final = 200
PAST_PER_PAGE: Final = 25
REASON_CHARACTERS_MAX: Final = 1000
SUGGESTED_MAX: Final = 100
# In place of a dimension: all that the tenant calls.
EVERYTHING: Final = "everything"
# How far back is looked for usage of what is to be halted.
LOOK_BACK: Final = timedelta(days=1)
SUGGESTED_FROM: Final = timedelta(days=7)


@dataclass(frozen=True)
class HaltLine:
    """A halt as the page shows it."""

    row: Halt
    breaker: Breaker | None

    @property
    def pairs(self) -> list[tuple[str, list[str]]]:
        return pairs_of(self.row.match)

    @property
    def calls(self) -> str:
        return calls_of(self.row.match)

    @property
    def is_by_breaker(self) -> bool:
        return self.row.kind == HaltKind.BREAKER

    @property
    def is_lockout(self) -> bool:
        return self.row.kind == HaltKind.LOCKOUT


@dataclass(frozen=True)
class OpenBreaker:
    """A group for which a breaker is open, as the page shows it."""

    breaker: Breaker
    group: OpenGroup

    @property
    def rule(self) -> BreakerRule:
        return BreakerRule.of(self.breaker)

    @property
    def pairs(self) -> list[tuple[str, list[str]]]:
        return pairs_of(match_of(self.rule.grouping, self.group.group_key))

    @property
    def calls(self) -> str:
        return calls_of(match_of(self.rule.grouping, self.group.group_key))

    @property
    def closes_from(self) -> datetime | None:
        """From when it lets a probe through, or closes with the next one."""
        if not self.rule.cools_down and self.breaker.close != BreakerClose.PROBE:
            return None
        return self.group.opened_at + cool_down(self.breaker.cool_down_seconds)


@dataclass(frozen=True)
class Target:
    """What a person wants to stop: a value of a dimension, or everything."""

    dimension: str
    value: str

    @property
    def match(self) -> dict[str, Any]:
        return {} if self.dimension == EVERYTHING else {self.dimension: self.value}


class HaltForm(forms.Form):
    """What to halt, out of an address or a form, and why."""

    dimension = forms.ChoiceField(choices=[(name, name) for name in (*ASKABLE, EVERYTHING)])
    value = forms.CharField(required=False, strip=False, max_length=VALUE_CHARACTERS_MAX)
    reason = forms.CharField(required=False, max_length=REASON_CHARACTERS_MAX)

    def target(self) -> Target | None:
        """What the form names; None where it names nothing that a call can have."""
        if {"dimension", "value"} & self.errors.keys():
            return None
        dimension = self.cleaned_data["dimension"]
        value = normal_value(self.cleaned_data["value"])
        if dimension == EVERYTHING:
            return Target(EVERYTHING, "")
        return Target(dimension, value) if value and is_possible(dimension, value) else None


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """What is stopped now, breakers that are open, and what was stopped before."""
    bar = filter_bar_of(request)
    halts = Halt.objects.filter(tenant=request.tenant)
    in_force = halts.filter(lifted_at=None).order_by("-since", "-id")
    before = number_of(request.GET.get("before", ""))
    past = halts.filter(lifted_at__isnull=False).order_by("-version")
    older = list((past.filter(version__lt=before) if before else past)[: PAST_PER_PAGE + 1])
    breakers = Breaker.objects.filter(tenant=request.tenant).in_bulk()
    context = enforcement_frame(request, bar, tab="halts")
    context |= {
        "headline": halts_headline(in_force.count()),
        "in_force": _lines(in_force[:IN_FORCE_MAX], breakers),
        "in_force_max": IN_FORCE_MAX,
        "open_breakers": _open_breakers(request.tenant.id, breakers, bar.now),
        "past": _lines(older[:PAST_PER_PAGE], breakers),
        "older": older[PAST_PER_PAGE - 1].version if len(older) > PAST_PER_PAGE else None,
        "is_first_page": before is None,
        "dimensions": ASKABLE,
        "agents": _recent_agents(request.tenant.id, bar.now) if may_halt(request) else [],
        "value_characters_max": VALUE_CHARACTERS_MAX,
    }
    return render(request, "dashboard/enforcement/halts.html", context)


def _lines(rows: Iterable[Halt], breakers: Mapping[int, Breaker]) -> list[HaltLine]:
    return [HaltLine(row, breakers.get(row.breaker_id or 0)) for row in rows]


def _open_breakers(
    tenant_id: int, breakers: Mapping[int, Breaker], now: datetime
) -> list[OpenBreaker]:
    with connection.cursor() as cursor:
        found = open_groups(cursor, tenant_id, breakers, now=now)
    return [
        OpenBreaker(breakers[breaker_id], group)
        for breaker_id, groups in found.items()
        for group in groups
    ]


def _recent_agents(tenant_id: int, now: datetime) -> list[str]:
    """Agents that spent lately, to choose from."""
    asked = UsageQuestion(
        tenant_id=tenant_id,
        starts_at=now - SUGGESTED_FROM,
        ends_at=now,
        group_by=("agent",),
        interval="none",
    )
    rows = usage(asked, limit=SUGGESTED_MAX).rows
    return [row.group["agent"] for row in rows if not row.is_other and row.group["agent"]]


@require_safe
@member_page
def confirm(request: PageRequest) -> HttpResponse:
    """What a halt would stop, before it is made."""
    if not may_halt(request):
        raise PermissionDenied
    target = HaltForm(request.GET).target()
    if target is None:
        messages.error(request, "Name what to halt: an agent, for example. Nothing was halted.")
        return HttpResponseRedirect(reverse("dashboard:halts"))
    bar = filter_bar_of(request)
    context = enforcement_frame(request, bar, tab="halts")
    context |= {
        "target": target,
        "calls": calls_of(target.match),
        "may_halt_this": may_manage(request) or not is_wide(target.match),
        "usage": _recent_usage(request.tenant.id, target, bar.now),
        "in_flight": _in_flight(request.tenant.id, target),
        "standing": Halt.objects.filter(
            tenant=request.tenant, lifted_at=None, match=target.match
        ).first(),
        "reason_characters_max": REASON_CHARACTERS_MAX,
    }
    return render(request, "dashboard/enforcement/confirm_halt.html", context)


def _recent_usage(tenant_id: int, target: Target, now: datetime) -> Measures:
    return total_usage(
        UsageQuestion(
            tenant_id=tenant_id,
            starts_at=now - LOOK_BACK,
            ends_at=now,
            interval="none",
            filters={name: (value,) for name, value in target.match.items()},
        )
    )


def _in_flight(tenant_id: int, target: Target) -> int:
    """Calls that hold a reservation: these go on."""
    return Reservation.objects.filter(
        tenant_id=tenant_id, state=ReservationState.OPEN, dimensions__contains=target.match
    ).count()


@button_of("halts", may=may_halt)
def make(request: PageRequest) -> str:
    """Halt what was confirmed."""
    form = HaltForm(request.POST)
    target = form.target()
    reason = form.cleaned_data.get("reason")
    if target is None:
        raise InvalidRequest("Name what to halt: an agent, for example. Nothing was halted.")
    if is_wide(target.match) and not may_manage(request):
        raise PermissionDenied
    if not reason:
        raise InvalidRequest("Say why, in up to 1,000 characters. Nothing was halted.")
    try:
        halt(
            tenant=request.tenant,
            match=target.match,
            reason=reason,
            actor=actor_of(request),
        )
    except LimitReached as error:
        raise InvalidRequest(f"{error.messages[0]} Nothing was halted.") from error
    return f"Halted. New {calls_of(target.match)} are refused within a second."


@button_of("halts", may=may_manage)
def lift(request: PageRequest, halt_id: int) -> str:
    """Let what was halted go on."""
    found = Halt.objects.filter(tenant=request.tenant, id=halt_id).first()
    if found is None:
        raise Http404
    lift_halt(halt=found, actor=actor_of(request))
    return f"Lifted. New {calls_of(found.match)} are let through again within a second."


@button_of("halts", may=may_manage)
def close(request: PageRequest, breaker_id: int) -> str:
    """Close a breaker for one group."""
    found = Breaker.objects.filter(tenant=request.tenant, id=breaker_id).first()
    if found is None:
        raise Http404
    group_key = request.POST.get("group", "")
    if "\0" in group_key:
        raise InvalidRequest("There is no such group. Nothing was closed.")
    closed = close_breaker(breaker=found, actor=actor_of(request), group_key=group_key)
    if not closed:
        return f"The breaker “{found.name}” was closed already."
    return f"The breaker “{found.name}” is closed. It counts from an empty minute."
