"""The form of a plan and of its versions: what the plan has as a whole, and its charges."""

from collections.abc import Sequence
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict

from billing.currencies import is_currency
from billing.models import Anchor, Interval, Plan
from billing.plan_rules import CHARGES_MAX, terms_problems
from billing.terms import Charge, Terms
from dashboard.billing.charge_form import ROWS, ChargeForm, amount_field
from dashboard.billing.charge_values import plain_amount
from dashboard.forms import moment_field
from metering.core.validation import Problem
from metering.fields.forms import count_field
from tenants.forms import ZoneField, offer_zones

# The button that adds, removes or shows other fields; nothing is saved then.
ACT: Final = "act"
ADD: Final = "add"
TRIAL_DAYS_MAX: Final = 1000
ORDER_CHARACTERS_MAX: Final = 5_000
PLACE_DIGITS_MAX: Final = 4


class TermsForm(forms.Form):
    """What the whole plan has besides its charges. `currency` is that of amounts."""

    minimum_amount = amount_field("All charges together: at least, a period")
    cap_amount = amount_field("All charges together: at most, a period")

    def __init__(self, data: QueryDict | None, *, terms: Terms | None, **options: Any) -> None:
        bounds = (
            {name: plain_amount(getattr(terms, name)) for name in ("minimum_amount", "cap_amount")}
            if terms
            else {}
        )
        initial = {**bounds, **options.pop("initial", {})}
        super().__init__(data, initial=initial, **options)
        stored: Sequence[Charge | None] = terms.charges if terms else [None]
        places = _places(data, len(stored))
        self.charges = [
            ChargeForm(index, data, stored[index] if data is None and index < len(stored) else None)
            for index in places
        ]
        self.order = ",".join(map(str, places))

    @property
    def currency(self) -> str:
        raise NotImplementedError

    @property
    def plan(self) -> Plan:
        """The plan as the form has it, not stored."""
        raise NotImplementedError

    def terms(self) -> Terms | None:
        """The terms that the form says; None if they are wrong, which its fields then say."""
        readable = [charge.is_valid() for charge in self.charges]
        self.is_valid()
        if "name" in self.fields and not self.cleaned_data.get("name"):
            self.add_error("name", "Give the plan a name.")
        if not all(readable):
            return None
        terms = Terms(
            charges=[charge.charge() for charge in self.charges],
            minimum_amount=self.cleaned_data.get("minimum_amount"),
            cap_amount=self.cleaned_data.get("cap_amount"),
        )
        for problem in terms_problems(terms, currency=self.currency):
            self._show(problem)
        is_right = not self.errors and not any(charge.errors for charge in self.charges)
        return terms if is_right else None

    def _show(self, problem: Problem) -> None:
        if not problem.field.startswith(f"{ROWS}."):
            field = problem.field if problem.field in self.fields else None
            self.add_error(field, problem.message)
            return
        _, index, field = problem.field.split(".", 2)
        self.charges[int(index)].show(problem._replace(field=field))

    @property
    def has_faults(self) -> bool:
        return self.is_bound and bool(self.errors or any(charge.errors for charge in self.charges))

    def faults(self) -> list[str]:
        """All that is wrong, in sentences that name the charge."""
        faults = [str(error) for errors in self.errors.values() for error in errors]
        for number, charge in enumerate(self.charges, 1):
            name = str(charge["name"].value() or f"Charge {number}")[:60]
            faults += [f"{name}: {error}" for errors in charge.errors.values() for error in errors]
        return faults


def _places(data: QueryDict | None, stored: int) -> list[int]:
    """Return the rows of a form that was sent, as its buttons leave them."""
    if data is None:
        return list(range(stored))
    texts = data.get(ROWS, "")[:ORDER_CHARACTERS_MAX].split(",")
    places = [
        int(text)
        for text in texts
        if text.isascii() and text.isdecimal() and len(text) <= PLACE_DIGITS_MAX
    ]
    places = list(dict.fromkeys(places))[:CHARGES_MAX]
    act = data.get(ACT, "")
    if act == ADD and len(places) < CHARGES_MAX:
        places.append(max(places, default=-1) + 1)
    return [index for index in places if act != f"remove-{index}"]


class NewPlanForm(TermsForm):
    """A plan and its first version."""

    name = forms.CharField(label="Name", required=False, max_length=200)
    currency_code = forms.CharField(
        label="Currency", max_length=3, help_text="Of all its amounts, as in USD."
    )
    interval = forms.ChoiceField(
        label="Billed every", choices=[(each.value, each.value) for each in Interval]
    )
    anchor = forms.ChoiceField(
        label="Periods begin",
        choices=[
            (Anchor.CALENDAR.value, "with the calendar: on the first"),
            (Anchor.SUBSCRIPTION.value, "on the subscription's day of the month"),
        ],
        help_text="Who subscribes on the 31st has periods from the last day of shorter months.",
    )
    timezone = ZoneField(label="Time zone of its periods")
    trial_days = count_field(
        "Days of trial",
        minimum=0,
        maximum=TRIAL_DAYS_MAX,
        help_text="Usage and fees of these days are shown and cost nothing.",
    )
    field_order = ("name", "currency_code", "interval", "anchor", "timezone", "trial_days")

    def __init__(self, data: QueryDict | None, tenant: Any) -> None:
        self.tenant = tenant
        initial = {"currency_code": "USD", "timezone": tenant.timezone, "trial_days": 0}
        super().__init__(data, terms=None, initial=initial)
        offer_zones(self, tenant.timezone)

    def clean_currency_code(self) -> str:
        code = str(self.cleaned_data["currency_code"]).upper()
        if not is_currency(code):
            raise ValidationError("Give a currency's code, as in USD or EUR.")
        return code

    @property
    def head_fields(self) -> list[object]:
        return [self[name] for name in self.field_order]

    @property
    def currency(self) -> str:
        return str(self.cleaned_data.get("currency_code") or "USD")

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of the plan that the form says."""
        names = ("name", "interval", "anchor", "timezone", "trial_days")
        return {name: self.cleaned_data[name] for name in names} | {"currency": self.currency}

    @property
    def plan(self) -> Plan:
        return Plan(tenant=self.tenant, **self.columns)


class VersionForm(TermsForm):
    """A further version of a plan, in force from a moment on."""

    starts_at = moment_field("In force from")

    def __init__(self, data: QueryDict | None, plan: Plan, terms: Terms, starts_at: object) -> None:
        self._plan = plan
        super().__init__(data, terms=terms, initial={"starts_at": starts_at})
        self.fields["starts_at"].help_text = (
            "Every event is priced under the version in force at its time; charges of one name "
            "count on."
        )

    @property
    def head_fields(self) -> list[object]:
        return [self["starts_at"]]

    @property
    def currency(self) -> str:
        return self._plan.currency

    @property
    def plan(self) -> Plan:
        return self._plan
