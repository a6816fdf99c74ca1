"""The levels of a budget's form: at how much something is done, and what."""

from collections.abc import Sequence
from typing import Any, Final

from django import forms
from django.contrib.postgres.forms import SimpleArrayField
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminTextInputWidget

from metering.budgets.rules import LevelRule
from metering.fields.forms import MONEY_ROLES, UsdField, count_field, usd_words
from metering.models import Action, BudgetLevel
from tenants.admin_site import RowForm, RowFormSet, TenantInline

RATE_FIELDS: Final = ("cost_nanos_per_minute", "tokens_per_minute")


class LevelForm(RowForm):
    """One level: at how much, what is done, who hears of it."""

    percent = count_field("Percent", maximum=1000)
    notify = SimpleArrayField(
        forms.CharField(max_length=100),
        required=False,
        max_length=20,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "team_lead, finance"}),
    )
    cost_nanos_per_minute = UsdField(label="Throttle to USD a minute", required=False)
    tokens_per_minute = count_field("and tokens a minute", required=False)

    class Meta:
        model = BudgetLevel
        fields = ("percent", "action", "notify", *RATE_FIELDS)

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if data.get("cost_nanos_per_minute") == 0:
            self.add_error("cost_nanos_per_minute", "More than 0; the action “block” stops calls.")
        for name in RATE_FIELDS:
            if data.get(name) and data.get("action") != Action.THROTTLE:
                self.add_error(name, "Only the action “throttle” has a rate.")
        return data


class LevelFormSet(RowFormSet):
    """The levels of a budget: each percentage once."""

    def clean(self) -> None:
        if any(self.errors):
            return
        percents = [level.percent for level in levels_of([self])]
        if len(percents) != len(set(percents)):
            raise ValidationError("Two levels are at the same percentage.")


def levels_of(formsets: Sequence[Any]) -> list[LevelRule]:
    """The levels of a form, the lowest first."""
    levels = [
        LevelRule(
            form.cleaned_data["percent"],
            form.cleaned_data["action"],
            tuple(form.cleaned_data["notify"]),
            form.cleaned_data["cost_nanos_per_minute"],
            form.cleaned_data["tokens_per_minute"],
        )
        for formset in formsets
        for form in formset.forms
        if form.cleaned_data.get("percent") and not form.cleaned_data.get("DELETE")
    ]
    return sorted(levels, key=lambda level: level.percent)


class LevelInline(TenantInline):
    """The levels, a row each."""

    model = BudgetLevel
    form = LevelForm
    formset = LevelFormSet
    writers = MONEY_ROLES
    fields = ("percent", "action", "notify", *RATE_FIELDS)
    ordering = ("percent",)
    verbose_name = "level"
    verbose_name_plural = "levels"

    def get_extra(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> int:
        """A new budget starts with rows to fill in."""
        return 3 if obj is None else 0


def level_words(level: BudgetLevel) -> str:
    """A level as people read it: "80 % throttle to $1.00 and 5,000 tokens a minute"."""
    words = f"{level.percent} %" + (f" {level.action}" if level.action != "none" else "")
    rates = []
    if level.cost_nanos_per_minute is not None:
        rates.append(usd_words(level.cost_nanos_per_minute))
    if level.tokens_per_minute is not None:
        rates.append(f"{level.tokens_per_minute:,} tokens")
    return f"{words} to {' and '.join(rates)} a minute" if rates else words
