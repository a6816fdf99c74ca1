"""Raising a limit manually: requested and approved by the same person."""

import json
from collections.abc import Sequence
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from common.errors import MeteringError
from common.values import normal_value
from dashboard.access import PageRequest, may_manage, member_page
from dashboard.enforcement.raises import describe_approval
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import number_of
from metering.core.amounts import describe_unusual_rise
from metering.core.dimensions import REQUEST, VALUE_CHARACTERS_MAX
from metering.core.validation import group_key_of
from metering.fields.forms import UsdField, count_field
from metering.limits.limit_increases import (
    Added,
    IncreaseAsk,
    approve_increase,
    ask_for_increase,
    validate_increase,
)
from metering.models import Budget
from metering.reporting.budget_windows import group_of
from tenants.admin_site import actor_of

CONFIRMED: Final = "_confirmed"
REASON_CHARACTERS_MAX: Final = 1000
LABELS: Final = {"cost_nanos": "Cost, USD", "tool_calls": "Tool calls"}


class LimitIncreaseForm(forms.Form):
    """By how much, for whom, until when, and why."""

    ends_at = forms.DateTimeField(
        label="Until (UTC)", widget=forms.DateTimeInput(attrs={"type": "datetime-local"})
    )
    reason = forms.CharField(label="Reason", max_length=REASON_CHARACTERS_MAX)

    def __init__(
        self, budget: Budget, data: Any = None, group: Sequence[tuple[str, str]] = ()
    ) -> None:
        filled = {f"group_{name}": value for name, value in group}
        super().__init__(data, initial=filled | {"is_for_one": bool(group)})
        self.budget = budget
        parts = [part for part in Added._fields if getattr(budget, f"limit_{part}") is not None]
        for part in parts:
            label = LABELS.get(part, part.capitalize())
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

    def clean(self) -> dict[str, Any]:
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


@require_http_methods(["GET", "HEAD", "POST"])
@member_page
def page(request: PageRequest) -> HttpResponse:
    """Raise the limit of one budget, after a question if it may have a digit too many."""
    if not may_manage(request):
        raise PermissionDenied
    budgets = Budget.objects.filter(tenant=request.tenant, archived_at=None)
    if not request.GET.get("budget"):
        return _chooser(request, budgets)
    budget = budgets.filter(id=number_of(request.GET["budget"]) or 0).first()
    if budget is None:
        raise Http404
    form = LimitIncreaseForm(
        budget,
        request.POST if request.method == "POST" else None,
        group=group_of(budget.per, _group_key(request)),
    )
    warnings: list[str] = []
    if form.is_valid():
        ask = form.cleaned_data["ask"]
        limits = {part: getattr(budget, f"limit_{part}") for part in Added._fields}
        rises = [
            describe_unusual_rise(part, limits[part], (limits[part] or 0) + amount)
            for part, amount in ask.add._asdict().items()
        ]
        warnings = [warning for warning in rises if warning]
        # What was confirmed counts for the same amounts alone.
        is_meant = request.POST.get(CONFIRMED, "") == " ".join(warnings)
        if is_meant and _raise(request, form, ask):
            return HttpResponseRedirect(reverse("dashboard:requests"))
    context = frame(request, filter_bar_of(request), page="requests")
    context |= {"budget": budget, "form": form, "warnings": warnings, "confirmed": CONFIRMED}
    return render(request, "dashboard/enforcement/add_raise.html", context)


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


def _raise(request: PageRequest, form: LimitIncreaseForm, ask: IncreaseAsk) -> bool:
    actor = actor_of(request)
    try:
        with transaction.atomic():
            asked = ask_for_increase(budget=form.budget, actor=actor, ask=ask)
            approved = approve_increase(limit_increase=asked, actor=actor)
    except MeteringError as error:
        form.add_error(None, error.detail)
        return False
    except ValidationError as error:
        form.add_error(None, error.messages)
        return False
    messages.success(request, describe_approval(approved))
    return True
