"""Halts: what is stopped, by whom and why; stopping an agent, and letting it go on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from common.errors import InvalidRequest, LimitReached
from common.values import normal_value
from dashboard.access import PageRequest, may_halt, may_manage, member_page
from dashboard.budgets.visible import TEAM, teams_of
from dashboard.buttons import button_of
from dashboard.enforcement.concerned import (
    HALTS_MAX,
    Concerned,
    count_halts,
    is_by,
    of_halts,
    reason_words,
)
from dashboard.enforcement.matches import calls_of, pairs_of
from dashboard.enforcement.open_breakers import read_open_breakers
from dashboard.findings import halts_headline
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import newest_before, number_of
from metering.configuration.breakers import close_breaker
from metering.core.dimensions import VALUE_CHARACTERS_MAX
from metering.core.match import KNOWN_BEFORE_CALL, problems_by_dimension, wanted_values
from metering.limits.halts import halt, is_wide, lift_halt
from metering.models import Breaker, Halt, HaltKind, Reservation, ReservationState
from metering.reporting.question import VALUES_MAX, UsageQuestion
from metering.reporting.usage import Measures, total_usage, usage
from tenants.admin_site import actor_of

IN_FORCE_MAX: Final = 200
PAST_PER_PAGE: Final = 25
REASON_CHARACTERS_MAX: Final = 1000
SUGGESTED_MAX: Final = 100
TOP_MAX: Final = 10
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
    # Whom the page is for, and whether they halted it themselves.
    concerned: Concerned
    is_own: bool = False

    @property
    def reason(self) -> str:
        """Why, in words."""
        return reason_words(
            self.row.match,
            self.row.reason,
            self.concerned.teams,
            is_manual=self.row.kind == HaltKind.MANUAL,
        )

    @property
    def pairs(self) -> list[tuple[str, list[str]]]:
        return pairs_of(self.row.match if self.is_own else self.concerned.shown(self.row.match))

    @property
    def calls(self) -> str:
        return calls_of(self.row.match)

    @property
    def is_by_breaker(self) -> bool:
        return self.row.kind == HaltKind.BREAKER

    @property
    def is_lockout(self) -> bool:
        return self.row.kind == HaltKind.LOCKOUT


class HaltForm(forms.Form):
    """Why something is halted."""

    reason = forms.CharField(max_length=REASON_CHARACTERS_MAX)


def chosen_match(data: QueryDict) -> dict[str, object] | None:
    """Return the match that an address or a form names; None if it names nothing that a call can
    have.

    `calls` holds what was chosen so far, as in "agent=research"; nothing after the sign stands for
    calls without a value. `dimension` and `value` add to it.
    """
    if any("\0" in text for text in (*data.getlist("calls"), data.get("value", ""))):
        return None
    chosen = [tuple(text.split("=", 1)) for text in data.getlist("calls") if "=" in text]
    added = data.get("dimension", "")
    if added == EVERYTHING:
        return {}
    if added:
        value = "" if "without" in data else normal_value(data.get("value", ""))
        if not value and "without" not in data:
            return None
        chosen.append((added, value))
    match: dict[str, list[str | None]] = {}
    for name, value in chosen:
        match.setdefault(name, []).append(value or None)
    is_possible = match.keys() <= set(KNOWN_BEFORE_CALL) and not problems_by_dimension(match)
    if not match or not is_possible:
        return None
    return {name: values[0] if len(values) == 1 else values for name, values in match.items()}


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """What is stopped now, breakers that are open, and what was stopped before."""
    bar = filter_bar_of(request)
    teams = teams_of(request)
    breakers = Breaker.objects.filter(tenant=request.tenant).in_bulk()
    halts = Halt.objects.filter(tenant=request.tenant)
    most = IN_FORCE_MAX if teams is None else HALTS_MAX
    newest = list(halts.filter(lifted_at=None).order_by("-since", "-id")[:most])
    in_force = _lines(request, newest, breakers, teams)
    before = number_of(request.GET.get("before", ""))
    lifted = halts.filter(lifted_at__isnull=False)
    past = newest_before(lifted, before, limit=PAST_PER_PAGE, by="version")
    context = frame(request, bar, page="halts")
    context |= {
        "headline": halts_headline(
            count_halts(request.tenant.id, None, actor="") if teams is None else len(in_force)
        ),
        "in_force": in_force[:IN_FORCE_MAX],
        "in_force_max": IN_FORCE_MAX,
        "open_breakers": read_open_breakers(request.tenant.id, breakers, bar.now, teams),
        "past": _lines(request, past.rows, breakers, teams),
        "older": f"?before={past.older}#past-title" if past.older else None,
        "newest": reverse("dashboard:halts") if before else None,
        "dimensions": KNOWN_BEFORE_CALL,
        "agents": _recent_agents(request.tenant.id, bar.now, teams) if may_halt(request) else [],
        "top_agents": _top_agents(
            request.tenant.id, [line.row for line in in_force], bar.now, teams
        ),
        "value_characters_max": VALUE_CHARACTERS_MAX,
    }
    return render(request, "dashboard/enforcement/halts.html", context)


def _lines(
    request: PageRequest,
    rows: Sequence[Halt],
    breakers: Mapping[int, Breaker],
    teams: tuple[str, ...] | None,
) -> list[HaltLine]:
    """The halts that concern the person, with their breakers."""
    actor = actor_of(request)
    shown, concerned = of_halts(request.tenant.id, teams, rows, actor=actor)
    return [
        HaltLine(row, breakers.get(row.breaker_id or 0), concerned, is_by(row, actor))
        for row in shown
    ]


@dataclass(frozen=True)
class AgentLine:
    """What an agent spent in the last day, and the halt that stops it."""

    name: str
    measures: Measures
    halt: Halt | None


def _top_agents(
    tenant_id: int, halts: Iterable[Halt], now: datetime, teams: tuple[str, ...] | None
) -> list[AgentLine]:
    """The agents that spent most in the last day."""
    asked = UsageQuestion(
        tenant_id=tenant_id,
        starts_at=now - LOOK_BACK,
        ends_at=now,
        group_by=("agent",),
        interval="none",
        filters={} if teams is None else {TEAM: teams},
    )
    by_agent = {
        value: row
        for row in halts
        if row.match.keys() == {"agent"}
        for value in wanted_values(row.match["agent"])
    }
    return [
        AgentLine(row.group["agent"], row.measures, by_agent.get(row.group["agent"]))
        for row in usage(asked, limit=TOP_MAX).rows
        if not row.is_other and row.group["agent"]
    ]


def _recent_agents(tenant_id: int, now: datetime, teams: tuple[str, ...] | None) -> list[str]:
    """Agents that spent lately, to choose from."""
    asked = UsageQuestion(
        tenant_id=tenant_id,
        starts_at=now - SUGGESTED_FROM,
        ends_at=now,
        group_by=("agent",),
        interval="none",
        filters={} if teams is None else {TEAM: teams},
    )
    rows = usage(asked, limit=SUGGESTED_MAX).rows
    return [row.group["agent"] for row in rows if not row.is_other and row.group["agent"]]


@require_safe
@member_page
def confirm(request: PageRequest) -> HttpResponse:
    """What a halt would stop, before it is made."""
    if not may_halt(request):
        raise PermissionDenied
    match = chosen_match(request.GET)
    if match is None:
        messages.error(request, "Name what to halt: an agent, for example. Nothing was halted.")
        return HttpResponseRedirect(reverse("dashboard:halts"))
    bar, teams = filter_bar_of(request), teams_of(request)
    context = frame(request, bar, page="halts")
    context |= {
        "chosen": [f"{name}={value}" for name, values in pairs_of(match) for value in values],
        "calls": calls_of(match),
        "may_halt_this": may_manage(request) or not is_wide(match),
        "usage": _recent_usage(request.tenant.id, match, bar.now, teams),
        "in_flight": _in_flight(request.tenant.id, match, teams),
        "standing": _standing(request, match, teams),
        "dimensions": KNOWN_BEFORE_CALL,
        "value_characters_max": VALUE_CHARACTERS_MAX,
        "reason_characters_max": REASON_CHARACTERS_MAX,
    }
    return render(request, "dashboard/enforcement/confirm_halt.html", context)


def _recent_usage(
    tenant_id: int, match: Mapping[str, object], now: datetime, teams: tuple[str, ...] | None
) -> Measures:
    """What such calls spent in the last day; of a team's member, that team's calls alone."""
    wanted = {
        name: tuple(sorted(wanted_values(value))[:VALUES_MAX]) for name, value in match.items()
    }
    if teams is not None:
        wanted[TEAM] = tuple(team for team in teams if team in wanted.get(TEAM, teams))
        if not wanted[TEAM]:
            return Measures()
    return total_usage(
        UsageQuestion(
            tenant_id=tenant_id,
            starts_at=now - LOOK_BACK,
            ends_at=now,
            interval="none",
            filters=wanted,
        )
    )


def _standing(
    request: PageRequest, match: Mapping[str, object], teams: tuple[str, ...] | None
) -> HaltLine | None:
    """The halt that stops these calls already; of a team's member, one that concerns the team."""
    rows = Halt.objects.filter(tenant=request.tenant, lifted_at=None, match=match)
    return next(iter(_lines(request, list(rows[:1]), {}, teams)), None)


def _in_flight(tenant_id: int, match: Mapping[str, object], teams: tuple[str, ...] | None) -> int:
    """Count the calls that hold a reservation: these go on."""
    reservations = Reservation.objects.filter(tenant_id=tenant_id, state=ReservationState.OPEN)
    if teams is not None:
        reservations = reservations.filter(dimensions__team__in=teams)
    for name, value in match.items():
        values = wanted_values(value)
        has_one = Q(**{f"dimensions__{name}__in": sorted(values - {""})})
        has_none = Q(**{f"dimensions__{name}__isnull": True})
        reservations = reservations.filter(has_one | has_none if "" in values else has_one)
    return reservations.count()


@button_of("halts", may=may_halt)
def make(request: PageRequest) -> str:
    """Halt what was confirmed."""
    form = HaltForm(request.POST)
    match = chosen_match(request.POST)
    if match is None:
        raise InvalidRequest("Name what to halt: an agent, for example. Nothing was halted.")
    if is_wide(match) and not may_manage(request):
        raise PermissionDenied
    if not form.is_valid():
        raise InvalidRequest("Give a reason of up to 1,000 characters. Nothing was halted.")
    try:
        halt(
            tenant=request.tenant,
            match=match,
            reason=form.cleaned_data["reason"],
            actor=actor_of(request),
        )
    except LimitReached as error:
        raise InvalidRequest(f"{error.messages[0]} Nothing was halted.") from error
    return f"Halted. New {calls_of(match)} are refused within a second."


@button_of("halts", may=may_manage)
def lift(request: PageRequest, halt_id: int) -> str:
    """Let what was halted go on."""
    row = get_object_or_404(Halt, tenant=request.tenant, id=halt_id)
    lift_halt(halt=row, actor=actor_of(request))
    return f"Lifted. New {calls_of(row.match)} are allowed again within a second."


@button_of("halts", may=may_manage)
def close(request: PageRequest, breaker_id: int) -> str:
    """Close a breaker for one group, or for every one."""
    breaker = get_object_or_404(Breaker, tenant=request.tenant, id=breaker_id)
    group_key = request.POST.get("group", "")
    if "\0" in group_key:
        raise InvalidRequest("There is no such group. Nothing was closed.")
    chosen = None if "every" in request.POST else group_key
    closed = close_breaker(breaker=breaker, actor=actor_of(request), group_key=chosen)
    if not closed:
        return f"The breaker “{breaker.name}” was already closed."
    return f"The breaker “{breaker.name}” is closed. It starts counting from zero."
