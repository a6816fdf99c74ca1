"""The bodies of plans and of their versions."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.currencies import is_currency
from billing.models.plans import Anchor, Interval
from billing.plan_rules import (
    CHARGES_MAX,
    FLAT_MEMBERS,
    MARKUPS_MAX,
    NAME_CHARACTERS_MAX,
    PER_MAX,
    TIERS_MAX,
    bound_problems,
    charge_problems,
    heads_problems,
)
from billing.terms import (
    Charge,
    ChargeModel,
    FlatCharge,
    Markup,
    Metric,
    Proration,
    Terms,
    Tier,
    UsageCharge,
    When,
)
from common.api.fields import (
    Amount,
    Choice,
    Count,
    Items,
    StrictSerializer,
    Text,
    Timestamp,
    Timezone,
    Value,
)
from common.json_bodies import JsonObject
from metering.core.validation import Problem, require
from metering.fields.body import Match, errors_at_members

TRIAL_DAYS_MAX: Final = 1000
_FLAT: Final = "flat"
_USAGE: Final = "usage"
# Words of a charge that are members of enumerations.
_WORDS: Final = {"when": When, "proration": Proration, "metric": Metric, "model": ChargeModel}
_OF_FLAT_ALONE: Final = ("amount", "when", "proration")


class TierBody(StrictSerializer):
    """Quantities above the tier before, up to and including `up_to`."""

    up_to = Amount(
        required=False,
        allow_null=True,
        help_text="In single units, and included. Null for the last tier alone.",
    )
    unit_amount = Amount(required=False, help_text="For `per` of the units.")
    flat_amount = Amount(required=False, help_text="Added once if the tier is reached.")

    def validate(self, attrs: JsonObject) -> object:
        return Tier(**{"up_to": None, **attrs})


class MarkupBody(StrictSerializer):
    """A percentage of its own for a model, a provider, or a provider's model."""

    percent = Amount()
    model = Value(required=False)
    provider = Value(required=False)

    def validate(self, attrs: JsonObject) -> object:
        return Markup(**attrs)


class ChargeBody(StrictSerializer):
    """A flat fee, or an amount for usage; which members it takes depends on `kind` and `model`."""

    name = Text(max_length=NAME_CHARACTERS_MAX)
    kind = Choice([_FLAT, _USAGE])
    amount = Amount(required=False, help_text="Of a flat fee, for each period.")
    when = Choice([each.value for each in When], required=False, help_text="Else in arrears.")
    proration = Choice(
        [each.value for each in Proration], required=False, help_text="Else by the day."
    )
    metric = Choice([each.value for each in Metric], required=False)
    model = Choice([each.value for each in ChargeModel], required=False)
    filter = Match(required=False, help_text="Which usage counts; empty: all.")
    unit_amount = Amount(
        required=False,
        help_text="For `per` units; of a percentage charge, for each call.",
    )
    per = Count(required=False, max_value=PER_MAX, help_text="1 unless given.")
    tiers = Items(child=TierBody(), required=False, max_length=TIERS_MAX)
    package_size = Count(required=False, max_value=PER_MAX)
    package_amount = Amount(required=False)
    percent = Amount(required=False, help_text="Of the provider's cost.")
    markups = Items(child=MarkupBody(), required=False, max_length=MARKUPS_MAX)
    included_units = Amount(required=False, help_text="So many of each period are free.")
    minimum_amount = Amount(required=False, allow_null=True)
    cap_amount = Amount(required=False, allow_null=True)

    def validate(self, attrs: JsonObject) -> object:
        with errors_at_members(self):
            require(_member_problems(attrs))
            charge = _charge_of(attrs)
            require(charge_problems(charge))
        return charge

    def judge_readable(self, faulty: Collection[str]) -> None:
        if "kind" not in self.readable:
            return
        readable = {"name": "-", **self.readable}
        problems = list(_member_problems(readable))
        if not any(problem.code == "required" for problem in problems):
            problems += charge_problems(_charge_of(readable))
        with errors_at_members(self):
            require(problems)


def _member_problems(attrs: Mapping[str, object]) -> Iterator[Problem]:
    """Judge whether a charge has the members of its kind, and no others."""
    is_flat = attrs["kind"] == _FLAT
    for name in ("amount",) if is_flat else ("metric", "model"):
        if name not in attrs:
            yield Problem(name, "is required", "required")
    for name in attrs:
        if is_flat and name not in FLAT_MEMBERS:
            yield Problem(name, "A flat fee takes no member of usage charges.", "not_taken")
        elif not is_flat and name in _OF_FLAT_ALONE:
            yield Problem(name, "Only a flat fee takes it.", "not_taken")


def _charge_of(attrs: Mapping[str, object]) -> Charge:
    """Return the charge of members that can be read and are of its kind."""
    members: dict[str, Any] = {
        name: value
        for name, value in attrs.items()
        if name != "kind" and (attrs["kind"] == _USAGE or name in FLAT_MEMBERS)
    }
    for name, words in _WORDS.items():
        if name in members:
            members[name] = words(members[name])
    if attrs["kind"] == _FLAT:
        return FlatCharge(**members)
    return UsageCharge(**{n: v for n, v in members.items() if n not in _OF_FLAT_ALONE})


class Charges(Items):
    """The charges of a plan, of which what can be read is kept where others cannot."""

    readable: dict[int, JsonObject]

    def run_child_validation(self, data: Iterable[object]) -> list[object]:
        assert isinstance(self.child, StrictSerializer)
        self.readable = {}
        read: list[Any] = []
        errors: JsonObject = {}
        for index, item in enumerate(data):
            try:
                read.append(self.child.run_validation(item))
            except serializers.ValidationError as error:
                errors[str(index)] = error.detail
            self.readable[index] = self.child.readable
        if errors:
            raise serializers.ValidationError(errors)
        return read


class TermsBody(StrictSerializer):
    """What a version of a plan says."""

    charges = Charges(child=ChargeBody(), allow_empty=False, max_length=CHARGES_MAX)
    minimum_amount = Amount(
        required=False, allow_null=True, help_text="Of all charges of a period together."
    )
    cap_amount = Amount(
        required=False, allow_null=True, help_text="Of all charges of a period together."
    )

    def currency_of(self, attrs: JsonObject) -> str | None:
        """The currency of the plan whose terms these are; None: it cannot be read."""
        currency: str = self.context["currency"]
        return currency

    def validate(self, attrs: JsonObject) -> JsonObject:
        """Replace the members of terms by `terms`."""
        with errors_at_members(self):
            require(self._problems(attrs))
        names = ("charges", "minimum_amount", "cap_amount")
        terms = Terms(**{name: attrs.pop(name) for name in names if name in attrs})
        return {**attrs, "terms": terms}

    def judge_readable(self, faulty: Collection[str]) -> None:
        with errors_at_members(self):
            require(self._problems(self.readable))

    def _problems(self, attrs: JsonObject) -> Iterator[Problem]:
        charges = self.fields["charges"]
        assert isinstance(charges, Charges)
        heads = {
            index: (readable.get("name"), readable.get("metric"))
            for index, readable in getattr(charges, "readable", {}).items()
        }
        yield from heads_problems(heads, currency=self.currency_of(attrs))
        yield from bound_problems(attrs.get("minimum_amount"), attrs.get("cap_amount"))


class VersionBody(TermsBody):
    """A further version of a plan, in force from a moment on."""

    def get_fields(self) -> JsonObject:
        # `from` is a word of Python's own, so it cannot be declared as the others are.
        return {**super().get_fields(), "from": Timestamp(help_text="When it begins.")}


@extend_schema_field({"type": "string", "example": "USD", "minLength": 3, "maxLength": 3})
class Currency(Text):
    """The code of a currency."""

    example = "USD"
    default_error_messages = {"unknown_currency": "must be the code of a currency, as in USD"}

    def to_internal_value(self, data: object) -> str:
        code = super().to_internal_value(data)
        if not is_currency(code):
            self.fail("unknown_currency")
        return code


class PlanBody(TermsBody):
    """A plan and its first version."""

    name = Text()
    currency = Currency(required=False, default="USD")
    interval = Choice(Interval.values, required=False, default=Interval.MONTH.value)
    anchor = Choice(Anchor.values, required=False, default=Anchor.CALENDAR.value)
    timezone = Timezone(required=False, help_text="The workspace's, unless given.")
    trial_days = Count(required=False, min_value=0, max_value=TRIAL_DAYS_MAX, default=0)

    def currency_of(self, attrs: JsonObject) -> str | None:
        return attrs.get("currency")
