"""A charge in the form of a plan: the fields of its model, and the rule that it is rated by."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from django import forms

from billing.plan_rules import MEMBERS_BY_MODEL, TIERS_MAX
from billing.terms import (
    Charge,
    ChargeModel,
    FlatCharge,
    Markup,
    Metric,
    Proration,
    Tier,
    UsageCharge,
    When,
)
from common.values import normal_value
from dashboard.billing.charge_values import FLAT, initial_of
from metering.core.dimensions import MATCHABLE
from metering.core.validation import Problem
from metering.fields.forms import count_field
from tenants.number_fields import AmountField

# What the names of the charges' fields begin with.
ROWS: Final = "charges"
BLANK_ROWS: Final = 1
ROWS_MIN: Final = 2
FILTERS: Final = 2
# Members of usage charges that are left out where a field is empty.
MEMBERS: Final = (
    "unit_amount",
    "per",
    "package_size",
    "package_amount",
    "percent",
    "minimum_amount",
    "cap_amount",
)
AMOUNT_MAX: Final = 10**15
PER_CHOICES: Final = [("1", "each"), ("1000", "per 1,000"), ("1000000", "per 1,000,000")]
METRIC_CHOICES: Final = [
    (Metric.REQUESTS.value, "requests"),
    (Metric.TOKENS.value, "tokens, input and output"),
    (Metric.INPUT_TOKENS.value, "input tokens"),
    (Metric.OUTPUT_TOKENS.value, "output tokens"),
    (Metric.CACHE_READ_TOKENS.value, "cache read tokens"),
    (Metric.CACHE_WRITE_TOKENS.value, "cache write tokens"),
    (Metric.REASONING_TOKENS.value, "reasoning tokens"),
    (Metric.TOOL_CALLS.value, "tool calls"),
    (Metric.COST.value, "provider's cost, USD"),
]
MODEL_CHOICES: Final = [
    (FLAT, "Flat fee"),
    (ChargeModel.PER_UNIT.value, "Per unit"),
    (ChargeModel.GRADUATED.value, "Graduated tiers"),
    (ChargeModel.VOLUME.value, "Volume tiers"),
    (ChargeModel.PACKAGE.value, "Packages"),
    (ChargeModel.PERCENTAGE.value, "Percentage of cost"),
    (ChargeModel.COST_PLUS.value, "Cost plus"),
]
# The rule by which each is rated, as docs/billing.md has it.
RULES: Final = {
    FLAT: "For a part of a period: by the day, by the second, or whole. In advance it is owed from "
    "the first day of the period, in arrears at its end.",
    ChargeModel.PER_UNIT.value: "Every unit costs the same. Included units come first and are "
    "free.",
    ChargeModel.GRADUATED.value: "Each part of the quantity costs its own tier's rate. “Up to” is "
    "inclusive and counts single units. The flat amount of each tier that is reached is added "
    "once; that of the first tier also at zero usage. Included units are a free first tier.",
    ChargeModel.VOLUME.value: "The whole quantity costs the rate of the tier that it ends in, and "
    "that tier's flat amount; at zero usage the first tier's. “Up to” is inclusive. Above the "
    "included units all units are charged.",
    ChargeModel.PACKAGE.value: "A package that is begun counts whole. No usage, no package. "
    "Included units come first and are free.",
    ChargeModel.PERCENTAGE.value: "A percentage of the provider's cost, and the amount for each "
    "call. A call without a price blocks the statement until it has one or is accepted.",
    ChargeModel.COST_PLUS.value: "The provider's cost and a percentage of it. A model's own "
    "percentage counts before its provider's, that before the charge's. A call without a price "
    "blocks the statement until it has one or is accepted.",
}


def _text(**attributes: str) -> forms.TextInput:
    return forms.TextInput(attrs={"inputmode": "decimal", **attributes})


def amount_field(label: str, **options: object) -> AmountField:
    return AmountField(label=label, required=False, maximum=AMOUNT_MAX, widget=_text(), **options)


class ChargeForm(forms.Form):
    """One charge. It has the fields of its model alone; a blank tier or markup is none."""

    name = forms.CharField(label="Name", required=False, max_length=300)
    model = forms.ChoiceField(label="Charge", required=False, choices=MODEL_CHOICES)

    def __init__(self, index: int, data: Any = None, charge: Charge | None = None) -> None:
        initial = initial_of(charge)
        super().__init__(data, prefix=f"{ROWS}-{index}", initial=initial)
        self.index = index
        self.tiers: list[list[str]] = []
        self.markups: list[list[str]] = []
        self.metrics: list[tuple[str, str]] = []
        chosen = str(self["model"].value() or FLAT)
        self.chosen = chosen if chosen in dict(MODEL_CHOICES) else FLAT
        self.rule = RULES[self.chosen]
        if self.chosen == FLAT:
            self._add_flat()
        else:
            self._add_usage(MEMBERS_BY_MODEL[ChargeModel(self.chosen)])

    def _add_flat(self) -> None:
        self.fields["amount"] = amount_field("Amount for each period")
        self.fields["when"] = forms.ChoiceField(
            label="Owed",
            required=False,
            choices=[(each.value, f"in {each.value}") for each in When],
        )
        self.fields["proration"] = forms.ChoiceField(
            label="For a part of a period",
            required=False,
            choices=[
                (Proration.DAY.value, "by the day"),
                (Proration.SECOND.value, "by the second"),
                (Proration.NONE.value, "whole"),
            ],
        )

    def _add_usage(self, members: Any) -> None:
        names = {*members.needs, *members.takes}
        on_cost = "percent" in names
        self.metrics = METRIC_CHOICES[-1:] if on_cost else METRIC_CHOICES
        fields = {
            "unit_amount": amount_field("Amount for each call" if on_cost else "Amount"),
            "per": forms.TypedChoiceField(
                label="Units", required=False, choices=self._per_choices(), coerce=int
            ),
            "package_size": count_field("Units in a package", required=False, widget=_text()),
            "package_amount": amount_field("Amount for a package"),
            "percent": amount_field("Percent of the cost"),
            "included_units": amount_field(
                f"Included in a period, {'USD of cost' if on_cost else 'units'}"
            ),
        }
        self.fields["metric"] = forms.ChoiceField(
            label="Counts", required=False, choices=self.metrics
        )
        self.fields |= {name: field for name, field in fields.items() if name in names}
        if "tiers" in names:
            self.tiers = self._add_rows("tiers", ("up_to", "unit_amount", "flat_amount"))
        if "markups" in names:
            self.markups = self._add_rows("markups", ("provider", "model", "percent"))
        self.fields["minimum_amount"] = amount_field("At least, a period")
        self.fields["cap_amount"] = amount_field("At most, a period")
        for index in range(FILTERS):
            self._add_filter(index)

    def _add_filter(self, index: int) -> None:
        self.fields[f"filter-{index}"] = forms.ChoiceField(
            label=f"Only usage of, {index + 1}",
            required=False,
            choices=[("", "any usage"), *((name, name) for name in MATCHABLE)],
        )
        self.fields[f"values-{index}"] = forms.CharField(
            label="Values, one a line",
            required=False,
            max_length=20_000,
            widget=forms.Textarea(attrs={"rows": 1}),
        )

    def _per_choices(self) -> list[tuple[str, str]]:
        """How many units an amount is for: what is usual, and what is stored or was sent."""
        sent = self.data.get(f"{self.prefix}-per") if self.is_bound else self.initial.get("per")
        own = str(sent or "")
        is_own = own.isascii() and own.isdecimal() and len(own) <= 10
        if not is_own or own in dict(PER_CHOICES):
            return PER_CHOICES
        return [*PER_CHOICES, (own, f"per {int(own):,}")]

    def _add_rows(self, kind: str, names: Sequence[str]) -> list[list[str]]:
        """Add fields for as many rows as were sent or stored, and some to fill in."""
        stored = len(self.initial.get(kind, ()))
        sent = [
            index
            for index in range(TIERS_MAX)
            if self.is_bound
            and any(self.data.get(f"{self.prefix}-{kind}-{index}-{name}") for name in names)
        ]
        filled = (max(sent) + 1 if sent else 0) if self.is_bound else stored
        rows = []
        for index in range(min(max(filled + BLANK_ROWS, ROWS_MIN), TIERS_MAX)):
            row = []
            for name in names:
                field_name = f"{kind}-{index}-{name}"
                self.fields[field_name] = _row_field(name, index)
                self.initial.setdefault(
                    field_name, self.initial[kind][index][name] if index < stored else None
                )
                row.append(field_name)
            rows.append(row)
        return rows

    @property
    def tier_rows(self) -> list[list[object]]:
        return [[self[name] for name in row] for row in self.tiers]

    @property
    def markup_rows(self) -> list[list[object]]:
        return [[self[name] for name in row] for row in self.markups]

    @property
    def filter_rows(self) -> list[tuple[Any, Any]]:
        if self.chosen == FLAT:
            return []
        return [(self[f"filter-{index}"], self[f"values-{index}"]) for index in range(FILTERS)]

    @property
    def plain_fields(self) -> list[object]:
        """The fields of the model that are no rows, but for the bounds."""
        wanted = ("amount", "when", "proration", "metric", "unit_amount", "per", "package_size",
                  "package_amount", "percent", "included_units")  # fmt: skip
        return [self[name] for name in wanted if name in self.fields]

    @property
    def has_further(self) -> bool:
        """Whether bounds or a filter are filled in, or wrong."""
        fields = [*self.bound_fields, *(field for row in self.filter_rows for field in row)]
        return any(field.value() or field.errors for field in fields)

    @property
    def bound_fields(self) -> list[Any]:
        return [self[name] for name in ("minimum_amount", "cap_amount") if name in self.fields]

    def charge(self) -> Charge:
        """The charge that the row says, of a form whose fields can be read."""
        data = self.cleaned_data
        name = data["name"].strip()
        if self.chosen == FLAT:
            amount = data["amount"]
            if amount is None:
                self.add_error("amount", "Give an amount.")
            return FlatCharge(
                name=name,
                amount=amount or Decimal(0),
                when=When(data["when"] or When.ADVANCE),
                proration=Proration(data["proration"] or Proration.DAY),
            )
        members: dict[str, Any] = {
            member: data[member] for member in MEMBERS if data.get(member) not in (None, "")
        }
        return UsageCharge(
            name=name,
            metric=Metric(data["metric"] or self.metrics[0][0]),
            model=ChargeModel(self.chosen),
            filter=self._filter(),
            included_units=data.get("included_units") or Decimal(0),
            tiers=[Tier(**tier) for tier in self._filled("tiers")],
            markups=[Markup(**markup) for markup in self._filled("markups")],
            **members,
        )

    def _filled(self, kind: str) -> Iterator[dict[str, Any]]:
        for row in self.tiers if kind == "tiers" else self.markups:
            values = {name.rpartition("-")[2]: self.cleaned_data[name] for name in row}
            if all(value in (None, "") for value in values.values()):
                continue
            if kind == "tiers":
                amounts = {
                    name: values[name] or Decimal(0) for name in ("unit_amount", "flat_amount")
                }
                yield {"up_to": values["up_to"], **amounts}
            else:
                if values["percent"] is None:
                    self.add_error(row[-1], "Give a percentage.")
                yield {
                    "percent": values["percent"] or Decimal(0),
                    "model": values["model"] or None,
                    "provider": values["provider"] or None,
                }

    def _filter(self) -> dict[str, str | list[str]]:
        wanted: dict[str, str | list[str]] = {}
        for index in range(FILTERS):
            name = self.cleaned_data[f"filter-{index}"]
            lines = self.cleaned_data[f"values-{index}"].splitlines()
            values = list(dict.fromkeys(filter(None, map(normal_value, lines))))
            if not name and values:
                self.add_error(f"filter-{index}", "Choose the dimension that these values are of.")
            elif name and not values:
                self.add_error(f"values-{index}", f"Give at least one value of {name}.")
            elif name in wanted:
                self.add_error(f"filter-{index}", f"{name.capitalize()} is chosen twice.")
            elif name:
                wanted[name] = values[0] if len(values) == 1 else values
        return wanted

    def show(self, problem: Problem) -> None:
        """Show what the rules of plans refuse, at its field. `field` is that within the charge."""
        field = _SHOWN_AT.get(problem.field, problem.field).replace(".", "-")
        if field.startswith("filter-"):
            field = "filter-0"
        if problem.field.startswith(("tiers.", "markups.")):
            kind, _, rest = problem.field.partition(".")
            index, _, member = rest.partition(".")
            rows = [
                row
                for row in (self.tiers if kind == "tiers" else self.markups)
                if self._is_filled(row)
            ]
            row = rows[int(index)] if int(index) < len(rows) else []
            named = [name for name in row if name.rpartition("-")[2] == member]
            field = (named or row or [""])[0]
        elif problem.field == "tiers":
            field = self.tiers[0][0]
        message = problem.message
        if problem.code == "required" and problem.field in ("tiers", *MEMBERS):
            # The rule names a member of the API.
            what = "a tier" if problem.field == "tiers" else f"“{self.fields[field].label}”"
            message = f"Fill in {what}."
        self.add_error(field if field in self.fields else None, message)

    def _is_filled(self, row: Sequence[str]) -> bool:
        return any(self.cleaned_data.get(name) not in (None, "") for name in row)


_SHOWN_AT: Final[Mapping[str, str]] = {"kind": "model"}


def _row_field(name: str, index: int) -> forms.Field:
    labels = {
        "up_to": "Up to",
        "unit_amount": "Amount",
        "flat_amount": "Flat amount",
        "provider": "Provider",
        "model": "Model",
        "percent": "Percent",
    }
    row = "markup" if name in ("provider", "model", "percent") else "tier"
    label = f"{labels[name]}, {row} {index + 1}"
    if name in ("provider", "model"):
        widget = forms.TextInput(attrs={"aria-label": label, "class": "input"})
        return forms.CharField(label=label, required=False, max_length=200, widget=widget)
    holder = {"placeholder": "and above"} if name == "up_to" else {}
    return AmountField(
        label=label,
        required=False,
        maximum=AMOUNT_MAX,
        widget=_text(**{"aria-label": label, "class": "input", **holder}),
    )
