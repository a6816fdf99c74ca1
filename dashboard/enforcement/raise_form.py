"""Raising a limit manually: requested and approved by the same person."""

import json
from collections.abc import Sequence
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse

from common.values import normal_value
from dashboard.access import PageRequest, may_manage
from dashboard.budgets.words import limits_words
from dashboard.enforcement.raises import describe_approval
from dashboard.forms import CONFIRMED, form_page, moment_field, save_once, sent_data, show_form
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import number_of
from metering.core.amounts import describe_unusual_rise
from metering.core.dimensions import REQUEST, VALUE_CHARACTERS_MAX
from metering.core.validation import group_key_of
from metering.fields.forms import count_field
from metering.limits.limit_increases import (
    Added,
    IncreaseAsk,
    approve_increase,
    ask_for_increase,
    validate_increase,
)
from metering.models import Budget, LimitIncrease
from metering.reporting.budget_windows import group_of
from tenants.admin_site import actor_of
from tenants.number_fields import UsdField

REASON_CHARACTERS_MAX: Final = 1000
LABELS: Final = {"cost_nanos": "Cost to add, USD", "tool_calls": "Tool calls to add"}


class LimitIncreaseForm(forms.Form):
    """By how much, for whom, until when, and why."""

    ends_at = moment_field("Until")
    reason = forms.CharField(label="Reason", max_length=REASON_CHARACTERS_MAX)

    def __init__(
        self, budget: Budget, data: Any = None, group: Sequence[tuple[str, str]] = ()
    ) -> None:
        filled = {f"group_{name}": value for name, value in group}
        super().__init__(data, initial=filled | {"is_for_one": bool(group)})
        self.budget = budget
        parts = [part for part in Added._fields if getattr(budget, f"limit_{part}") is not None]
        for part in parts:
            label = LABELS.get(part, f"{part.capitalize()} to add")
            kind = UsdField if part == "cost_nanos" else count_field
            self.fields[part] = kind(label=label, required=False, widget=forms.TextInput())
        if budget.per and REQUEST not in budget.per:
            self.fields["is_for_one"] = forms.BooleanField(
                label="Only for the group with these values, which may be empty", required=False
            )
            for name in budget.per:
                self.fields[f"group_{name}"] = forms.CharField(
                    label=name.capitalize(), required=False, max_length=VALUE_CHARACTERS_MAX
                )
        self.order_fields([*parts, *self.fields])

    def clean(self) -> dict[str, object]:
        data = self.cleaned_data
        if self.errors:
            return data
        group = {name: normal_value(data.get(f"group_{name}", "")) for name in self.budget.per}
        is_for_one = data.get("is_for_one") or any(group.values())
        data["ask"] = IncreaseAsk(
            add=Added(**{part: data.get(part) or 0 for part in Added._fields}),
            reason=data["reason"],
            ends_at=data["ends_at"],
            group_key=group_key_of(self.budget.per, group) if is_for_one else "",
        )
        try:
            validate_increase(self.budget, data["ask"])
        except ValidationError as error:
            for name, errors in error.error_dict.items():
                field = name.removeprefix("by.")
                self.add_error(field if field in self.fields else None, errors)
        return data


@form_page("requests", may=may_manage)
def page(request: PageRequest) -> HttpResponse:
    """Raise the limit of one budget, after a question if it may have a digit too many."""
    budgets = Budget.objects.filter(tenant=request.tenant, archived_at=None, managed_by="")
    if not request.GET.get("budget"):
        return _chooser(request, budgets)
    budget = get_object_or_404(budgets, id=number_of(request.GET["budget"]) or 0)
    group = group_of(budget.per, _group_key(request))
    form = LimitIncreaseForm(budget, sent_data(request), group=group)
    warnings = _warnings(form) if form.is_valid() else []
    # What was confirmed counts for the same amounts alone.
    if request.POST.get(CONFIRMED, "") == " ".join(warnings):
        approved = save_once(request, form, lambda: _raise(request, form))
        if approved is not None:
            messages.success(request, describe_approval(approved))
            return HttpResponseRedirect(reverse("dashboard:requests"))
    return show_form(
        request,
        form,
        page="requests",
        headline=f"Raise the limit of “{budget.name}”",
        back=(reverse("dashboard:budget", args=[budget.id]), budget.name),
        template="dashboard/enforcement/add_raise.html",
        sub=f"The limit is {limits_words(budget)} now, without increases.",
        budget=budget,
        warnings=warnings,
        confirmed=CONFIRMED,
    )


def _warnings(form: LimitIncreaseForm) -> list[str]:
    """What is unusual about the limits that a sound form leads to."""
    rises = []
    for part, amount in form.cleaned_data["ask"].add._asdict().items():
        limit = getattr(form.budget, f"limit_{part}")
        rises.append(describe_unusual_rise(part, limit, (limit or 0) + amount))
    return [warning for warning in rises if warning]


def _chooser(request: PageRequest, budgets: QuerySet[Budget]) -> HttpResponse:
    """Which budget's limit is to be raised."""
    context = frame(request, filter_bar_of(request), page="requests") | {
        "headline": "Which limit do you want to raise?",
        "budgets": budgets.order_by("name", "id"),
    }
    return render(request, "dashboard/enforcement/choose_budget.html", context)


def _group_key(request: PageRequest) -> str:
    """The group that an address names; what is none is left out."""
    text = request.GET.get("group", "")
    try:
        values = json.loads(text)
    except ValueError:
        return "[]"
    is_group = isinstance(values, list) and all(isinstance(value, str) for value in values)
    return text if is_group else "[]"


def _raise(request: PageRequest, form: LimitIncreaseForm) -> LimitIncrease:
    actor = actor_of(request)
    asked = ask_for_increase(budget=form.budget, actor=actor, ask=form.cleaned_data["ask"])
    return approve_increase(limit_increase=asked, actor=actor)
