"""The body of `POST /v1/rating-preview`."""

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Final, NamedTuple

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.api.plans_body import PlanBody
from billing.currencies import minor_units
from billing.plan_rules import QUANTITY_MAX
from billing.preview import GivenUsage
from billing.terms import Metric
from billing.totals import Coupon, TaxRate
from common.api.fields import (
    Amount,
    Choice,
    Items,
    Spoken,
    StrictSerializer,
    Text,
    Timestamp,
    problem_at,
)
from common.json_bodies import JsonObject
from common.times import YEAR, is_known_year, parse_timestamp
from metering.fields.body import Match

USAGE_MAX: Final = 2000
TAX_RATES_MAX: Final = 20
PERCENT_MAX: Final = 100
PERIOD: Final = (
    'must be a month, as in "2026-11", or an object with "start" and "end": dates in the plan\'s'
    " zone, or times"
)
_MONTH: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# A date is that day's begin in a zone that is known later.
Moment = date | datetime


class AskedPeriod(NamedTuple):
    """The period that begins in the month of `start`, or, with an end, from one to the other."""

    start: Moment
    end: Moment | None


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$"},
            {
                "type": "object",
                "properties": {"start": {"type": "string"}, "end": {"type": "string"}},
                "required": ["start", "end"],
                "additionalProperties": False,
            },
        ],
        "example": "2026-11",
        "description": "The plan's period that begins in a month (else the one that it lies in), or"
        " a whole period of one's own: dates in the plan's zone or times, the end not included.",
    }
)
class AskedPeriodField(Spoken):
    """A period of a plan."""

    example = "2026-11"
    default_error_messages = {"invalid": PERIOD}

    def to_internal_value(self, data: object) -> AskedPeriod:
        if isinstance(data, str) and (match := _MONTH.fullmatch(data)) is not None:
            start, end = self._moment(f"{match[0]}-01"), None
        elif isinstance(data, dict) and data.keys() == {"start", "end"}:
            start, end = self._moment(data["start"]), self._moment(data["end"])
        else:
            self.fail("invalid")
        return AskedPeriod(start, end)

    def _moment(self, text: object) -> Moment:
        if not isinstance(text, str):
            self.fail("invalid")
        try:
            read = date.fromisoformat(text) if _DATE.fullmatch(text) else parse_timestamp(text)
        except ValueError:
            self.fail("invalid")
        if not is_known_year(read):
            raise serializers.ValidationError(YEAR, code="range")
        return read


class GivenUsageBody(StrictSerializer):
    """Some usage; it counts for each charge of its metric whose filter matches."""

    metric = Choice([each.value for each in Metric], help_text="`cost` is in USD.")
    quantity = Amount(help_text=f"At most {QUANTITY_MAX:,}.")
    time = Timestamp(required=False, help_text="The end of the period, unless given.")
    dimensions = Match(required=False, help_text="The values of this usage, one for each.")

    def validate_quantity(self, quantity: Decimal) -> Decimal:
        if quantity > QUANTITY_MAX:
            raise serializers.ValidationError(f"must be at most {QUANTITY_MAX:,}", "max_value")
        return quantity

    def validate_dimensions(self, dimensions: JsonObject) -> JsonObject:
        for name, value in dimensions.items():
            if not isinstance(value, str):
                raise problem_at(name, "must be one value")
        return dimensions

    def validate(self, attrs: JsonObject) -> object:
        return GivenUsage(**{"dimensions": {}, **attrs, "metric": Metric(attrs["metric"])})


class TaxRateBody(StrictSerializer):
    """A tax on the net amount."""

    name = Text()
    percent = Amount()

    def validate(self, attrs: JsonObject) -> object:
        _require_percent(attrs["percent"])
        return TaxRate(**attrs)


class CouponBody(StrictSerializer):
    """A discount: a percentage of the subtotal, or an amount."""

    percent = Amount(required=False)
    amount = Amount(required=False)

    def validate(self, attrs: JsonObject) -> JsonObject:
        if len(attrs) != 1:
            raise serializers.ValidationError("needs 'percent' or 'amount'", code="missing_field")
        if "percent" in attrs:
            _require_percent(attrs["percent"])
        return attrs


def _require_percent(percent: Decimal) -> None:
    if percent > PERCENT_MAX:
        raise problem_at("percent", f"must be at most {PERCENT_MAX}", "max_value")


class RatingPreviewBody(StrictSerializer):
    """A plan, what was used, and when."""

    plan = PlanBody(help_text="As for `POST /v1/plans`.")
    usage = Items(child=GivenUsageBody(), max_length=USAGE_MAX)
    period = AskedPeriodField()
    starts_at = Timestamp(
        required=False, help_text="When the subscription begins. Else before the period, no trial."
    )
    ends_at = Timestamp(required=False, help_text="When the subscription ends.")
    tax_rates = Items(child=TaxRateBody(), required=False, max_length=TAX_RATES_MAX)
    coupon = CouponBody(required=False)
    credit = Amount(required=False, help_text="Prepaid credit that may be used.")

    def validate(self, attrs: JsonObject) -> JsonObject:
        if "starts_at" in attrs and "ends_at" in attrs and attrs["starts_at"] >= attrs["ends_at"]:
            raise problem_at("ends_at", "must be later than 'starts_at'")
        currency = attrs["plan"]["currency"]
        coupon = attrs.get("coupon", {})
        attrs["coupon"] = Coupon(
            percent=coupon.get("percent"),
            amount=_minor(coupon, "amount", currency, within="coupon"),
        )
        attrs["credit"] = _minor(attrs, "credit", currency) or 0
        return attrs


def _minor(attrs: JsonObject, name: str, currency: str, *, within: str = "") -> int | None:
    if name not in attrs:
        return None
    try:
        return minor_units(attrs[name], currency)
    except ValueError as error:
        wrong = problem_at(name, str(error))
        raise serializers.ValidationError({within: wrong.detail}) if within else wrong from error
