"""Requests to raise a limit: what waits for a person, what is in force, what was decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django import forms
from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from common.errors import InvalidRequest
from dashboard.access import PageRequest, may_manage, member_page
from dashboard.amounts import listed
from dashboard.budgets.bars import Bar, bar_of
from dashboard.budgets.visible import budgets_of_teams, teams_of
from dashboard.buttons import button_of
from dashboard.enforcement.concerned import told_of
from dashboard.findings import requests_headline, shortened
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import newest_before, number_of
from metering.budgets.reading import read_budget_index
from metering.core.amounts import format_amount
from metering.core.dimensions import REQUEST
from metering.core.match import group_key
from metering.limits.halts import lift_halt
from metering.limits.limit_increases import Added, approve_increase, end_increase, refuse_increase
from metering.limits.obstacles import Obstacle, read_obstacles
from metering.models import Budget, Halt, LimitIncrease, LimitIncreaseStatus
from metering.reporting.budget_windows import (
    GroupOfBudget,
    WatchedWindow,
    full_parts,
    group_of,
    windows_of_groups,
)
from tenants.admin_site import actor_of

# More than this no one decides in one sitting; the newest come when these are decided.
SHOWN_MAX: Final = 100
PAST_PER_PAGE: Final = 25
NOTE_CHARACTERS_MAX: Final = 1000


@dataclass(frozen=True)
class LimitIncreaseLine:
    """A raise as the page shows it."""

    row: LimitIncrease
    now: datetime
    window: WatchedWindow | None = None
    # What stops its calls although it is in force.
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def drawn(self) -> Bar | None:
        return bar_of(self.window) if self.window else None

    @property
    def added(self) -> Added:
        return Added(*(getattr(self.row, f"add_{part}") for part in Added._fields))

    @property
    def by(self) -> str:
        """How much higher the limit is to be, in words."""
        parts = self.added._asdict().items()
        return listed([format_amount(part, amount) for part, amount in parts if amount])

    @property
    def group(self) -> tuple[tuple[str, str], ...] | None:
        """The dimensions and values that it is for; None: every group."""
        return group_of(self.row.budget.per, self.row.group_key) if self.row.group_key else None

    @property
    def is_for_many(self) -> bool:
        """Whether it is for several windows, of which some may have no room even so."""
        return not self.row.group_key and bool(self.row.budget.per)

    @property
    def whom(self) -> str:
        """The same in words, as in "50 dollars more for …"."""
        names = [name for name in self.row.budget.per if name != REQUEST]
        if self.group is None:
            each = "call" if REQUEST in self.row.budget.per else listed(names)
            return f"every {each}" if each else "everything the budget counts"
        values = [
            f"{name} “{shortened(value)}”" if value else f"calls without {name}"
            for name, value in self.group
        ]
        return listed(values) or "everything the budget counts"

    @property
    def lacking(self) -> str:
        """What would be used up all the same, in words; empty where there would be room."""
        if self.window is None:
            return ""
        parts = full_parts(self.window, self.added, now=self.now)
        return listed(
            ["cost" if part == "cost_nanos" else part.replace("_", " ") for part in parts]
        )

    @property
    def lockouts(self) -> list[Obstacle]:
        """What would keep its calls stopped and can be lifted with the approval."""
        return [obstacle for obstacle in self.obstacles if obstacle.code == "locked_out"]

    @property
    def is_stopped(self) -> bool:
        """Whether all of its calls stay stopped unless something else is lifted, too."""
        return bool(self.others) or any(lockout.is_for_all for lockout in self.lockouts)

    @property
    def others(self) -> list[Obstacle]:
        """What else would keep all of its calls stopped, besides its own budget."""
        return [
            obstacle
            for obstacle in self.obstacles
            if obstacle.is_for_all
            and obstacle.code != "locked_out"
            and obstacle.budget_id != self.row.budget_id
        ]

    @property
    def state(self) -> str:
        """What became of it."""
        if self.row.status == LimitIncreaseStatus.REFUSED:
            return "refused"
        if self.row.status == LimitIncreaseStatus.ASKED:
            return "not decided in time" if self.row.ends_at <= self.now else "waiting"
        return "over" if self.row.ends_at <= self.now else "in force"


class NoteForm(forms.Form):
    """A note from the person who decides."""

    note = forms.CharField(required=False, max_length=NOTE_CHARACTERS_MAX)


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """What waits for a decision, what is raised now, and what was decided before."""
    bar = filter_bar_of(request)
    budgets = Budget.objects.filter(tenant=request.tenant)
    raises = LimitIncrease.objects.filter(tenant=request.tenant).select_related("budget")
    if (teams := teams_of(request)) is not None:
        raises = raises.filter(budget_id__in=budgets_of_teams(request.tenant.id, teams))
    is_over = Q(ends_at__lte=bar.now)
    waiting = raises.filter(~is_over, status=LimitIncreaseStatus.ASKED).order_by("asked_at", "id")
    in_force = raises.filter(~is_over, status=LimitIncreaseStatus.APPROVED).order_by(
        "ends_at", "id"
    )
    before = number_of(request.GET.get("before", ""))
    decided = raises.filter(is_over | Q(status=LimitIncreaseStatus.REFUSED))
    past = newest_before(decided, before, limit=PAST_PER_PAGE)
    context = frame(request, bar, page="requests")
    context |= {
        "headline": requests_headline(waiting.count()),
        "waiting": _with_windows(request.tenant.id, waiting[:SHOWN_MAX], bar.now, teams),
        "in_force": _with_obstacles(request.tenant.id, in_force[:SHOWN_MAX], bar.now, teams),
        "past": [LimitIncreaseLine(row, bar.now) for row in past.rows],
        "older": f"?before={past.older}#past-title" if past.older else None,
        "newest": reverse("dashboard:requests") if before else None,
        "shown_max": SHOWN_MAX,
        "note_characters_max": NOTE_CHARACTERS_MAX,
        "budgets": budgets.filter(archived_at=None).order_by("name"),
    }
    return render(request, "dashboard/enforcement/requests.html", context)


def _with_windows(
    tenant_id: int, rows: QuerySet[LimitIncrease], now: datetime, teams: tuple[str, ...] | None
) -> list[LimitIncreaseLine]:
    """Raises with the window of their group, so that people see what they decide about."""
    groups = {row: _group(row) for row in rows}
    windows = windows_of_groups(
        tenant_id=tenant_id, book=read_budget_index(tenant_id), groups=groups.values(), now=now
    )
    obstacles = read_obstacles(tenant_id, now=now) if groups else None
    return [
        LimitIncreaseLine(
            row,
            now,
            windows.get(group),
            told_of(obstacles.of(row.budget_id, row.group_key), teams) if obstacles else (),
        )
        for row, group in groups.items()
    ]


def _with_obstacles(
    tenant_id: int, rows: QuerySet[LimitIncrease], now: datetime, teams: tuple[str, ...] | None
) -> list[LimitIncreaseLine]:
    """Raises in force with what stops their calls all the same."""
    if not rows:
        return []
    obstacles = read_obstacles(tenant_id, now=now)
    return [
        LimitIncreaseLine(
            row, now, obstacles=told_of(obstacles.of(row.budget_id, row.group_key), teams)
        )
        for row in rows
    ]


def _group(row: LimitIncrease) -> GroupOfBudget:
    """The one group that the raise is for. No window has the key that stands for every group."""
    is_only_one = not row.group_key and not row.budget.per
    return GroupOfBudget(row.budget_id, group_key(()) if is_only_one else row.group_key)


@button_of("requests", may=may_manage)
def approve(request: PageRequest, raise_id: int) -> str:
    """Put a raise in force until its end, and lift the lockouts that were ticked with it."""
    increase, note = _find(request, raise_id), _note(request)
    actor = actor_of(request)
    approved = approve_increase(limit_increase=increase, actor=actor, note=note)
    for lockout in _lockouts(increase, request.POST.getlist("lift")):
        lift_halt(halt=lockout, actor=actor)
    return describe_approval(approved)


def _lockouts(row: LimitIncrease, chosen: Sequence[str]) -> list[Halt]:
    """The lockouts among what stops these calls that the person wants lifted."""
    ids = {number for text in chosen if (number := number_of(text)) is not None}
    if not ids:
        return []
    obstacles = read_obstacles(row.tenant_id, now=timezone.now())
    liftable = {
        obstacle.halt_id
        for obstacle in obstacles.of(row.budget_id, row.group_key)
        if obstacle.code == "locked_out"
    }
    return list(Halt.objects.filter(tenant_id=row.tenant_id, id__in=ids & liftable, lifted_at=None))


def describe_approval(approved: LimitIncrease) -> str:
    """Return what a raised limit means for calls, for the person who raised it."""
    name = approved.budget.name
    obstacles = read_obstacles(approved.tenant_id, now=timezone.now())
    concerned = obstacles.of(approved.budget_id, approved.group_key)
    stopping = [obstacle for obstacle in concerned if obstacle.is_for_all]
    if not stopping:
        return f"The limit of “{name}” was raised. It applies to new calls immediately."
    return (
        f"The limit of “{name}” was raised, but such calls are still stopped:"
        f" {stopping[0].detail}{_and_more(len(stopping) - 1)} “Active increases” below"
        " shows what can be lifted."
    )


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count else ""


@button_of("requests", may=may_manage)
def refuse(request: PageRequest, raise_id: int) -> str:
    """Say no."""
    increase, note = _find(request, raise_id), _note(request)
    refuse_increase(limit_increase=increase, actor=actor_of(request), note=note)
    return f"The request was refused. The limit of “{increase.budget.name}” stays as it is."


@button_of("requests", may=may_manage)
def end(request: PageRequest, raise_id: int) -> str:
    """Let a raise end now."""
    increase = _find(request, raise_id)
    end_increase(limit_increase=increase, actor=actor_of(request))
    return f"The increase has ended. The limit of “{increase.budget.name}” is as it was before."


def _find(request: PageRequest, raise_id: int) -> LimitIncrease:
    raises = LimitIncrease.objects.filter(tenant=request.tenant, id=raise_id)
    return get_object_or_404(raises.select_related("budget"))


def _note(request: PageRequest) -> str:
    form = NoteForm(request.POST)
    if not form.is_valid():
        raise InvalidRequest("The note cannot be stored as it is, so nothing was decided.")
    note: str = form.cleaned_data["note"]
    return note
