"""The form of a budget: its rule as a sentence to fill in, its levels, and further options."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from django import forms
from django.core.exceptions import ValidationError

from common.values import normal_value
from dashboard.forms import moment_field
from dashboard.match_rows import match_rows
from metering.budgets.presets import PRESETS
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import (
    DEFAULT_LEVELS,
    LEVEL_RATE_FIELDS,
    LEVELS_MAX,
    NOTIFY_CHARACTERS_MAX,
    NOTIFY_MAX,
    PER_NAMES,
    PERCENT_MAX,
    ROLLOVER_PERCENT_MAX,
    validate_budget,
)
from metering.core.dimensions import REQUEST, VALUE_CHARACTERS_MAX
from metering.core.periods import EPOCH
from metering.fields.forms import count_field
from metering.models import Action, Budget, Mode, Period
from metering.simulation import Proposal, ProposedBudget
from tenants.forms import ZoneField, offer_zones
from tenants.models import Tenant
from tenants.number_fields import UsdField

# So many dimensions tell groups apart in the form, or one more than the budget has.
PER_ROWS: Final = 3
BLANK_LEVELS: Final = 2
LEVELS: Final = "levels"
MODE_CHOICES: Final = (
    (Mode.ENFORCE.value, "Block", "Refuses calls at the levels that say so"),
    (Mode.WARN.value, "Warn", "Notifies, refuses nothing"),
    (Mode.SHADOW.value, "Shadow", "Only measures"),
)
PERIOD_CHOICES: Final = [
    (period.value, period.value if period != Period.LIFETIME else "lifetime, no reset")
    for period in Period
]
ACTION_CHOICES: Final = [
    (Action.NONE.value, "only notify"),
    (Action.THROTTLE.value, "slow calls down"),
    (Action.DOWNGRADE.value, "offer a cheaper model"),
    (Action.HOLD.value, "hold calls and request an increase"),
    (Action.BLOCK.value, "block new calls"),
    (Action.LOCKOUT.value, "lock out until a person lifts it"),
]
LIMIT_LABELS: Final = {
    "limit_cost_nanos": "Limit, USD",
    "limit_tokens": "Tokens",
    "limit_requests": "Requests",
    "limit_tool_calls": "Tool calls",
    "limit_seconds": "Seconds since first use",
}
FIELDS: Final = (
    "name",
    "mode",
    "match",
    "per",
    "period",
    "timezone",
    "anchor_at",
    "is_rolling",
    "has_rollover",
    "rollover_max_percent",
    *LIMIT_LABELS,
)
# Where an error stands that is of no field of the form.
SHOWN_AT: Final = {"limit": "limit_cost_nanos", "per": "per_0"}


class Start(NamedTuple):
    """What a new budget may begin with, and its name among the others."""

    words: str
    fields: Mapping[str, Any]
    levels: Sequence[LevelRule]


class BudgetForm(forms.Form):
    """A budget as people think of it: money in USD, values one a line."""

    name = forms.CharField(
        label="Name", max_length=200, error_messages={"required": "Give the budget a name."}
    )
    mode = forms.ChoiceField(choices=[(value, words) for value, words, _ in MODE_CHOICES])
    period = forms.ChoiceField(
        choices=PERIOD_CHOICES, widget=forms.Select(attrs={"class": "slot", "aria-label": "Period"})
    )
    timezone = ZoneField(label="Time zone of days, weeks and months")
    is_rolling = forms.BooleanField(
        label="Rolling: count the trailing period instead of calendar periods", required=False
    )
    has_rollover = forms.BooleanField(
        label="Carry over what a period leaves unused", required=False
    )
    anchor_at = moment_field(
        "First period starts", required=False, help_text="Leave empty to follow the calendar."
    )

    def __init__(
        self,
        tenant: Tenant,
        budget: Budget | None,
        data: Any = None,
        start: Start | None = None,
    ) -> None:
        started = start.fields if start else {}
        super().__init__(data, initial={**_initial(tenant, budget), **started})
        self.tenant, self.budget = tenant, budget
        for name, label in LIMIT_LABELS.items():
            text = forms.TextInput(attrs={"inputmode": "decimal", "aria-label": label})
            self.fields[name] = (
                UsdField(label=label, required=False, widget=text)
                if name == "limit_cost_nanos"
                # A limit of 0 lets nothing through.
                else count_field(label, minimum=0, required=False, widget=text)
            )
        self.fields["limit_cost_nanos"].widget.attrs |= {"class": "slot", "placeholder": "50.00"}
        self.fields["rollover_max_percent"] = count_field(
            "Carry over at most, % of the limit",
            minimum=0,
            maximum=ROLLOVER_PERCENT_MAX,
        )
        offer_zones(self, self.initial["timezone"])
        self.fields["match"] = match_rows(self.initial["match"])
        self._add_per(max(PER_ROWS, len(self.initial["per"]) + 1))

    def _add_per(self, rows: int) -> None:
        names = [(name, "single call" if name == REQUEST else name) for name in PER_NAMES]
        first = [("", "All usage together"), *((name, f"Each {words}") for name, words in names)]
        for index in range(rows):
            self.fields[f"per_{index}"] = forms.ChoiceField(
                required=False,
                choices=first if index == 0 else [("", "no other"), *names],
                initial=dict(enumerate(self.initial["per"])).get(index, ""),
                widget=forms.Select(
                    attrs={"class": "slot", "aria-label": f"A separate limit for each, {index + 1}"}
                ),
            )

    @property
    def further_per(self) -> list[object]:
        """The fields for more dimensions than the first."""
        return [self[name] for name in self.fields if name.startswith("per_") and name != "per_0"]

    @property
    def further_limits(self) -> list[object]:
        """The limits besides cost."""
        return [self[name] for name in LIMIT_LABELS if name != "limit_cost_nanos"]

    @property
    def mode_choices(self) -> list[tuple[str, str, str, bool]]:
        """The modes with what each means, and whether it is chosen."""
        return [(*choice, self["mode"].value() == choice[0]) for choice in MODE_CHOICES]

    def clean(self) -> dict[str, object]:
        data = self.cleaned_data
        chosen = [data[name] for name in self.fields if name.startswith("per_") and data.get(name)]
        if len(set(chosen)) < len(chosen):
            self.add_error("per_0", "A dimension is chosen twice.")
        data["per"] = chosen
        return data

    def values(self) -> dict[str, Any]:
        """The columns of the budget that the form says."""
        return {name: self.cleaned_data[name] for name in FIELDS}

    def proposal(self, levels: Sequence[LevelRule]) -> Proposal:
        """What would be saved, and what is in force instead."""
        if self.budget is None:
            budget = Budget(tenant=self.tenant, counts_from=EPOCH, **self.values())
            return Proposal(budget=ProposedBudget.of(budget, levels))
        present = ProposedBudget.stored(self.budget)
        return Proposal(budget=present.changed(self.values(), levels), present=present)

    def judge(self, levels: Sequence[LevelRule]) -> bool:
        """Hold the whole budget against its rules; what is wrong stands at its field."""
        proposed = self.proposal(levels).budget
        assert proposed is not None, "the form proposes a budget"
        try:
            validate_budget(proposed.budget, levels)
        except ValidationError as error:
            for name, errors in error.error_dict.items():
                field = SHOWN_AT.get(name, name)
                self.add_error(field if field in self.fields else None, errors)
            return False
        return True


def _initial(tenant: Tenant, budget: Budget | None) -> dict[str, object]:
    row = budget or Budget(tenant=tenant, period=Period.MONTH, timezone=tenant.timezone)
    return {name: getattr(row, name) for name in FIELDS}


class LevelForm(forms.Form):
    """One level: at how much, what is done, who is notified. Without a percentage it is none."""

    percent = count_field(
        "Percent of the limit",
        maximum=PERCENT_MAX,
        required=False,
        widget=forms.TextInput(attrs={"class": "slot", "inputmode": "numeric"}),
    )
    action = forms.ChoiceField(
        choices=ACTION_CHOICES,
        required=False,
        widget=forms.Select(attrs={"class": "slot", "aria-label": "What happens"}),
    )
    notify = forms.CharField(
        required=False,
        max_length=NOTIFY_MAX * (NOTIFY_CHARACTERS_MAX + 2),
        widget=forms.TextInput(
            attrs={"class": "input", "placeholder": "team_lead, finance", "aria-label": "Notify"}
        ),
    )
    cost_nanos_per_minute = UsdField(
        label="USD a minute", required=False, widget=forms.TextInput(attrs={"class": "input"})
    )
    tokens_per_minute = count_field(
        "Tokens a minute", required=False, widget=forms.TextInput(attrs={"class": "input"})
    )

    def level(self) -> LevelRule | None:
        """The level that the row says."""
        data = self.cleaned_data
        if not data.get("percent"):
            return None
        names = [name.strip() for name in data["notify"].split(",")]
        return LevelRule(
            data["percent"],
            data["action"] or Action.NONE.value,
            tuple(dict.fromkeys(filter(None, names))),
            *(data[name] for name in LEVEL_RATE_FIELDS),
        )

    def clean(self) -> dict[str, object]:
        data = self.cleaned_data
        if not data.get("percent") and not self.errors and (data["notify"] or self._has_rates()):
            self.add_error("percent", "Give the percentage at which this happens.")
        return data

    def _has_rates(self) -> bool:
        return any(self.cleaned_data[name] is not None for name in LEVEL_RATE_FIELDS)


LevelForms = forms.formset_factory(
    LevelForm, extra=BLANK_LEVELS, max_num=LEVELS_MAX + BLANK_LEVELS, validate_max=True
)


def level_forms(levels: Sequence[LevelRule], data: Any = None) -> object:
    """The rows of the levels, and some to fill in."""
    initial = [{**level._asdict(), "notify": ", ".join(level.notify)} for level in levels]
    return LevelForms(data, initial=initial, prefix=LEVELS)


def levels_of(rows: Any) -> list[LevelRule]:
    """The levels of the rows, the lowest first."""
    levels = [level for row in rows if (level := row.level()) is not None]
    return sorted(levels, key=lambda level: level.percent)


NOTIFY_AND_BLOCK: Final = (LevelRule(70, Action.NONE.value, ("team_lead",)), *DEFAULT_LEVELS)
STARTS: Final = {
    "session": Start("Session limits", PRESETS["session"].fields, PRESETS["session"].levels),
    "agents": Start(
        "Each agent, daily",
        {"name": "Agents, daily", "per": ["agent"], "period": Period.DAY.value},
        NOTIFY_AND_BLOCK,
    ),
    "customers": Start(
        "Each customer, monthly",
        {
            "name": "Customers, monthly",
            "per": ["customer"],
            "period": Period.MONTH.value,
            "mode": Mode.WARN.value,
        },
        NOTIFY_AND_BLOCK,
    ),
    "everything": Start(
        "All spend, monthly",
        {"name": "All spend, monthly", "period": Period.MONTH.value, "mode": Mode.WARN.value},
        NOTIFY_AND_BLOCK,
    ),
}


def start_of(asked: Mapping[str, str]) -> Start | None:
    """What a new budget begins with, as its address asks: a preset, or a customer's limit."""
    customer = normal_value(asked.get("customer", ""))[:VALUE_CHARACTERS_MAX]
    if asked.get("start") != "customer" or not customer:
        return STARTS.get(asked.get("start", ""))
    fields = {
        "name": f"{customer}, monthly"[:200],
        "match": {"customer": customer},
        "period": Period.MONTH.value,
    }
    return Start("A customer's limit", fields, DEFAULT_LEVELS)
