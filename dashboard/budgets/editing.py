"""`/budgets/new`, `/budgets/{id}/edit`: what would this rule have done, and what stops if saved?"""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from django.contrib import messages
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from dashboard.access import PageRequest, may_manage
from dashboard.budgets.form import STARTS, BudgetForm, level_forms, levels_of, start_of
from dashboard.budgets.visible import find_budget
from dashboard.forms import CONFIRMED, form_page, form_token, save_once, sent_data
from dashboard.frame import filter_bar_of, frame
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import DEFAULT_LEVELS, create_budget, update_budget
from metering.models import Budget, Mode
from metering.simulation import Proposal
from metering.simulation.preview import preview_present
from metering.simulation.warnings import (
    NOT_ADDED_UP,
    acts_alike,
    describe_full,
    is_nothing,
    refuses,
    slips,
)
from tenants.admin_site import actor_of
from tenants.audit import facts_of

AS_SHADOW: Final = "as_shadow"


class Warnings(NamedTuple):
    """What saving does that may not be meant; `seal` stands for the same form and the same kinds of
    warnings, so that what is confirmed is what was read.
    """

    sentences: Sequence[str]
    seal: str
    stops: bool


@form_page("budgets", may=may_manage)
def page(request: PageRequest, budget_id: int | None = None) -> HttpResponse:
    """The form of a new budget, or of one in force."""
    budget = budget_of(request, budget_id)
    data = sent_data(request)
    start = start_of(request.GET) if budget is None else None
    if data is not None and AS_SHADOW in data:
        data = data.copy()
        data["mode"] = Mode.SHADOW.value
    form = BudgetForm(request.tenant, budget, data, start)
    rows = level_forms(_levels(budget, start.levels if start else DEFAULT_LEVELS), data)
    warnings = Warnings([], "", False)
    if request.method == "POST" and is_right(form, rows):
        warnings = warnings_of(form.proposal(levels_of(rows)), tenant_id=request.tenant.id)
        is_meant = not warnings.sentences or request.POST.get(CONFIRMED) == warnings.seal
        save = partial(_save, request, form, levels_of(rows))
        if is_meant and (saved := save_once(request, form, save)):
            _tell_saved(request, saved)
            return HttpResponseRedirect(reverse("dashboard:budget", args=[saved.id]))
    return _shown(request, form, rows, warnings)


def budget_of(request: PageRequest, budget_id: int | None) -> Budget | None:
    """The budget that is edited; None for a new one."""
    if budget_id is None:
        return None
    budget = find_budget(request, budget_id)
    if budget.archived_at is not None or budget.managed_by:
        raise Http404
    return budget


def _levels(budget: Budget | None, initial: Sequence[LevelRule]) -> Sequence[LevelRule]:
    if budget is None:
        return initial
    return [LevelRule.of(row) for row in budget.levels.order_by("percent")]


def is_right(form: BudgetForm, rows: Any) -> bool:
    """Whether the form makes a budget; what is wrong stands at its fields."""
    is_form_right, are_rows_right = form.is_valid(), rows.is_valid()
    return is_form_right and are_rows_right and form.judge(levels_of(rows))


def warnings_of(proposal: Proposal, *, tenant_id: int) -> Warnings:
    """What the person must confirm before the budget is saved."""
    proposed, present = proposal.budget, proposal.present
    assert proposed is not None, "a budget is proposed"
    is_same = present is not None and acts_alike(proposed, present)
    kinds = [] if is_same else slips(proposal)
    namesakes = Budget.objects.filter(
        tenant_id=tenant_id, name=proposed.budget.name, archived_at=None
    ).exclude(id=proposed.budget.id)
    if namesakes.exists():
        kinds.append(f"There is already a budget named “{proposed.budget.name}”.")
    sentences, stops = list(kinds), is_nothing(proposed) and not is_same
    if refuses(proposed) and not is_same and not is_nothing(proposed):
        preview = preview_present(tenant_id=tenant_id, proposal=proposal, now=timezone.now())
        if preview.newly_full:
            sentences.append(describe_full(preview.newly_full, preview.groups or 0))
            kinds.append("stops")
            stops = True
        elif preview.groups is None:
            sentences.append(NOT_ADDED_UP)
            kinds.append("unknown")
    shown = repr((facts_of(proposed.budget), proposed.levels, kinds))
    return Warnings(sentences, hashlib.sha256(shown.encode()).hexdigest(), stops)


def _save(request: PageRequest, form: BudgetForm, levels: Sequence[LevelRule]) -> Budget:
    actor, values = actor_of(request), form.values()
    if form.budget is None:
        return create_budget(tenant=request.tenant, actor=actor, levels=levels, **values)
    return update_budget(budget=form.budget, actor=actor, changes=values, levels=levels)


def _tell_saved(request: PageRequest, saved: Budget) -> None:
    counting = (
        " Earlier spend is still being counted; until then it enforces what it has counted so far."
        if saved.is_counting
        else ""
    )
    messages.success(request, f"“{saved.name}” is saved and in force.{counting}")


def _shown(request: PageRequest, form: BudgetForm, rows: Any, warnings: Warnings) -> HttpResponse:
    budget = form.budget
    headline = f"Edit {budget.name}" if budget else "Create a budget"
    if warnings.stops:
        headline = "Calls stop when you save"
    bar = filter_bar_of(request)
    action = (
        reverse("dashboard:edit_budget", args=[budget.id])
        if budget
        else reverse("dashboard:add_budget")
    )
    context = frame(request, bar, page="budgets") | {
        "headline": headline,
        "budget": budget,
        "form": form,
        "rows": rows,
        "blank_rows": [row for row in rows if not row.initial and not row["percent"].value()],
        "filled_rows": [row for row in rows if row.initial or row["percent"].value()],
        "warnings": warnings,
        "confirmed": CONFIRMED,
        "as_shadow": AS_SHADOW,
        "starts": [] if budget else STARTS.items(),
        "action": action,
        "preview_address": f"{action.removesuffix('/edit').removesuffix('/new')}/preview",
        **form_token(request),
    }
    return render(request, "dashboard/budgets/form.html", context)
