"""The levels of a budget's form: at how much something is done, and what."""

from collections.abc import Sequence

from django import forms
from django.contrib.postgres.forms import SimpleArrayField
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from metering.budgets.rules import LevelRule
from metering.configuration.budgets import (
    LEVEL_RATE_FIELDS,
    NOTIFY_CHARACTERS_MAX,
    NOTIFY_MAX,
    PERCENT_MAX,
    validate_level,
    validate_levels,
)
from metering.fields.forms import MONEY_ROLES, count_field
from metering.fields.limit_words import rates_of
from metering.models import BudgetLevel
from tenants.admin_forms import RowForm, RowFormSet
from tenants.admin_site import TenantInline
from tenants.number_fields import UsdField


class LevelForm(RowForm):
    """One level: at how much, what is done, who hears of it."""

    percent = count_field("Percent", maximum=PERCENT_MAX)
    notify = SimpleArrayField(
        forms.CharField(max_length=NOTIFY_CHARACTERS_MAX),
        required=False,
        max_length=NOTIFY_MAX,
        widget=forms.TextInput(attrs={"placeholder": "team_lead, finance"}),
    )
    cost_nanos_per_minute = UsdField(label="Throttle to USD a minute", required=False)
    tokens_per_minute = count_field("and tokens a minute", required=False)

    def judge(self) -> None:
        validate_level(self.level())

    def level(self) -> LevelRule:
        """Return the level that the row says."""
        level = LevelRule(*(self.cleaned_data[name] for name in LevelRule._fields))
        return level._replace(notify=tuple(level.notify))


class LevelFormSet(RowFormSet):
    """The levels of a budget."""

    def clean(self) -> None:
        if any(self.errors):
            return
        try:
            validate_levels(levels_of([self]))
        except ValidationError as error:
            raise ValidationError(error.messages) from error


def levels_of(formsets: Sequence[RowFormSet]) -> list[LevelRule]:
    """The levels of a form, the lowest first."""
    levels = [
        form.level()
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
    fields = ("percent", "action", "notify", *LEVEL_RATE_FIELDS)
    ordering = ("percent",)
    verbose_name = "level"
    verbose_name_plural = "levels"

    def get_extra(self, request: HttpRequest, obj: object = None, **kwargs: object) -> int:
        """A new budget starts with rows to fill in."""
        return 3 if obj is None else 0


def format_level(level: BudgetLevel) -> str:
    """A level as people read it: "80% throttle to $1.00 and 5,000 tokens a minute"."""
    words = f"{level.percent}%" + (f" {level.action}" if level.action != "none" else "")
    rates = rates_of(level)
    return f"{words} to {' and '.join(rates)} a minute" if rates else words
