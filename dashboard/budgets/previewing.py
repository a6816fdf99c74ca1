"""The preview beside a budget's form: what the rule would have done, replayed by a worker where the
past is long.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from common.errors import MeteringError
from common.money import nanos_from_usd
from dashboard.access import PageRequest, may_manage, member_page
from dashboard.amounts import money
from dashboard.budgets.editing import budget_of, is_right, page
from dashboard.budgets.form import BudgetForm, level_forms, levels_of
from dashboard.charts import CRITICAL, FIRST, Buckets, Column, Figure, stacked_bars
from dashboard.findings import shortened
from dashboard.forms import form_page
from dashboard.paging import number_of
from metering.budgets.levels import REFUSING
from metering.jobs.tasks import run_simulations
from metering.models import Simulation, SimulationStatus
from metering.simulation import Proposal, create_simulation
from metering.simulation.budget_replay import FullGroup
from metering.simulation.preview import LOOK_BACK, Preview, preview_present
from metering.simulation.warnings import refuses
from tenants.admin_site import actor_of

REPLACES: Final = "simulation"
# By what the proposals of previews are known among simulations.
ASKED: Final = {"preview": True}
GROUPS_NAMED: Final = 3
UNNAMED: Final = "New budget"
UNFINISHED: Final = frozenset({SimulationStatus.WAITING, SimulationStatus.RUNNING})


class Outcome(NamedTuple):
    """What a replay says of the proposal, or of the budget in force."""

    refused: int
    days: int
    saved_nanos: int
    levels: Sequence[tuple[int, int]]


@form_page("budgets", may=may_manage)
def preview(request: PageRequest, budget_id: int | None = None) -> HttpResponseBase:
    """What the form as it stands would do. Who was signed out meanwhile comes back to the form."""
    if request.method != "POST":
        return page(request, budget_id)
    budget = budget_of(request, budget_id)
    data = request.POST.copy()
    if not data.get("name", "").strip():
        # What a budget would do does not depend on its name.
        data["name"] = UNNAMED
    form = BudgetForm(request.tenant, budget, data)
    rows = level_forms((), data)
    if not is_right(form, rows):
        context = {"problems": _problems(form, rows)}
        return render(request, "dashboard/budgets/preview.html", context)
    proposal = form.proposal(levels_of(rows))
    now = timezone.now()
    _drop_replaced(request)
    context = _standing(proposal, request.tenant.id)
    try:
        simulation = create_simulation(
            tenant=request.tenant,
            actor=actor_of(request),
            sent=ASKED,
            proposal=proposal,
            period=(now - LOOK_BACK, now),
        )
    except MeteringError as error:
        return render(
            request, "dashboard/budgets/preview.html", context | {"refusal": error.detail}
        )
    if simulation.status == SimulationStatus.WAITING:
        # Where the broker is not there, the next beat finds the row all the same.
        transaction.on_commit(lambda: run_simulations.apply_async(retry=False), robust=True)
    return render(
        request, "dashboard/budgets/preview.html", context | _replay(simulation, budget_id)
    )


@require_safe
@member_page
def progress(request: PageRequest, simulation_id: int) -> HttpResponse:
    """A preview that a worker replays, once it is done; until then the page keeps what it shows."""
    if not may_manage(request):
        raise PermissionDenied
    simulation = get_object_or_404(
        Simulation, tenant=request.tenant, id=simulation_id, actor=actor_of(request)[:300]
    )
    if simulation.status in UNFINISHED:
        return HttpResponse(status=204)
    proposal = Proposal.from_json(simulation.proposal["rules"])
    present = proposal.present.budget.id if proposal.present else None
    budget_of(request, present)
    context = _standing(proposal, request.tenant.id) | _replay(simulation, present)
    return render(request, "dashboard/budgets/preview.html", context)


def _problems(form: BudgetForm, rows: Any) -> list[str]:
    """What is wrong with the form, for who has not sent it yet."""
    errors = [str(error) for errors in form.errors.values() for error in errors]
    return errors + [
        str(error) for row in rows.errors for errors in row.values() for error in errors
    ]


def _drop_replaced(request: PageRequest) -> None:
    """Each change of the form asks again, and its preview replaces the one before."""
    replaced = number_of(request.POST.get(REPLACES, ""))
    if replaced is not None:
        Simulation.objects.filter(
            tenant=request.tenant,
            id=replaced,
            actor=actor_of(request)[:300],
            proposal__asked=ASKED,
        ).exclude(status=SimulationStatus.RUNNING).delete()


def _standing(proposal: Proposal, tenant_id: int) -> dict[str, Any]:
    """What is spent now against the proposed limit."""
    proposed = proposal.budget
    assert proposed is not None, "a budget is proposed"
    preview = preview_present(tenant_id=tenant_id, proposal=proposal, now=timezone.now())
    return {
        "standing": _standing_words(preview, stops=refuses(proposed)),
        "stops": bool(preview.newly_full) and refuses(proposed),
    }


def _standing_words(preview: Preview, *, stops: bool) -> str:
    if preview.groups is None:
        return "Current spend could not be added up in time."
    if not preview.newly_full:
        return "" if preview.still_full else "Below the limit now."
    named = [_full_words(full) for full in preview.newly_full[:GROUPS_NAMED]]
    more = len(preview.newly_full) - GROUPS_NAMED
    words = "; ".join(named) + (f"; and {more:,} more" if more > 0 else "")
    return f"{words}: {'calls stop when you save' if stops else 'nothing is refused'}."


def _full_words(full: FullGroup) -> str:
    """Who is over: "market-scout now at 485%"."""
    who = " · ".join(shortened(value) if value else "(none)" for value in full.group.values())
    share = f"{Decimal(full.spent) * 100 / full.limit:.0f}%" if full.limit else "over a limit of $0"
    return f"{who} now at {share}" if who else f"Now at {share}"


def _replay(simulation: Simulation, budget_id: int | None) -> dict[str, object]:
    context: dict[str, Any] = {"simulation": simulation, "budget_id": budget_id}
    if simulation.status in UNFINISHED:
        return context | {"is_waiting": True}
    result = simulation.result
    if simulation.status != SimulationStatus.DONE or result is None:
        return context | {"refusal": simulation.detail}
    now, before = _outcome(result), result.get("compared_with")
    return context | {
        "finding": finding_of(now, calls=result["calls"]),
        "now": now,
        "before": _outcome(before) if before else None,
        "calls": result["calls"],
        "assumptions": result["assumptions"],
        "figure": _figure(result),
    }


def _outcome(result: Mapping[str, Any]) -> Outcome:
    return Outcome(
        refused=int(result["refused"]["calls"]),
        days=sum(bool(day["refused"]) for day in result["days"]),
        saved_nanos=nanos_from_usd(result["saved_usd"]),
        # What is refused at a level does not get beyond it; the refused calls tell of that one.
        levels=[
            (int(level["percent"]), int(level["crossed"]))
            for level in result["levels"]
            if level["action"] not in REFUSING or int(level["crossed"])
        ],
    )


def finding_of(outcome: Outcome, *, calls: int) -> str:
    """The result of a replay in a sentence. Pure."""
    if not calls:
        return "No calls match this rule in the last 30 days"
    if not outcome.refused:
        return "Would have refused no calls in the last 30 days"
    call = "call" if outcome.refused == 1 else "calls"
    day = "day" if outcome.days == 1 else "days"
    saved = f" and saved {money(outcome.saved_nanos)}" if outcome.saved_nanos else ""
    return f"Would have refused {outcome.refused:,} {call} on {outcome.days:,} {day}{saved}"


def _figure(result: Mapping[str, Any]) -> Figure | None:
    """What would have been spent, and what refused, by day."""
    days = result["days"]
    if len(days) < 2:
        return None
    first = date.fromisoformat(days[0]["date"])
    length = (date.fromisoformat(days[-1]["date"]) - first).days + 1
    by_day = {day["date"]: day for day in days}
    dates = [first + timedelta(days=index) for index in range(length)]
    costs = [_nanos(by_day.get(day.isoformat()), "cost_usd") for day in dates]
    kept = [_nanos(by_day.get(day.isoformat()), "would_have_cost_usd") for day in dates]
    refused = [cost - left for cost, left in zip(costs, kept, strict=True)]
    starts = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in dates]
    columns = [Column("Allowed", kept, FIRST), Column("Refused", refused, CRITICAL)]
    return stacked_bars(columns, Buckets(starts, "day"))


def _nanos(day: Mapping[str, Any] | None, name: str) -> int:
    return nanos_from_usd(day[name]) if day else 0
