"""Rates at the edge: `{"input_per_mtok_usd": "3"}` outside, the library's usage keys inside."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from common.api.fields import Spoken
from common.expectations import must_be_object
from common.json_bodies import JsonObject
from common.money import nanos_from_usd
from metering.pricing.rates import Rate, check_rates, units

# How the price library marks the unit of a price, and how a field says it.
_UNIT_WORDS: Final = {
    "_mtok": "_per_mtok_usd",
    "_kcount": "_per_thousand_usd",
    "_hours": "_per_hour_usd",
    "_mchars": "_per_million_characters_usd",
    "_gpixels": "_per_billion_pixels_usd",
    "_kpages": "_per_thousand_pages_usd",
}


def _field_name(price_key: str) -> str:
    for mark, words in _UNIT_WORDS.items():
        if price_key.endswith(mark):
            return price_key.removesuffix(mark).replace("output_reasoning", "reasoning") + words
    raise AssertionError(price_key)


FIELD_BY_KEY: Final = {key: _field_name(unit.price_key) for key, unit in units().units.items()}
KEY_BY_FIELD: Final = {field: key for key, field in FIELD_BY_KEY.items()}
RATE_USD_MAX: Final = 1_000_000
TIERS_MAX: Final = 10

_RATE_SCHEMA: Final = {"type": "string", "example": "3.75"}
RATES_SCHEMA: Final[JsonObject] = {
    "type": "object",
    "properties": dict.fromkeys(KEY_BY_FIELD, _RATE_SCHEMA),
    "additionalProperties": False,
    "minProperties": 1,
    "example": {"input_per_mtok_usd": "3", "output_per_mtok_usd": "15"},
}
# In the OpenAPI document these are a component of their own.
RATES_REFERENCE: Final = {"$ref": "#/components/schemas/Rates"}
_TIER_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "above_input_tokens": {"type": "integer", "minimum": 0},
        "rates": RATES_REFERENCE,
    },
    "required": ["above_input_tokens", "rates"],
    "additionalProperties": False,
}
TIERS_SCHEMA: Final = {"type": "array", "maxItems": TIERS_MAX, "items": _TIER_SCHEMA}


@extend_schema_field(RATES_REFERENCE)
class NamedRates(Spoken):
    """Rates by class of usage, as whole nano-dollars by the price library's keys."""

    def to_internal_value(self, data: object) -> dict[str, int]:
        if not isinstance(data, dict) or not data:
            raise serializers.ValidationError(must_be_object({"input_per_mtok_usd": "3"}))
        errors: dict[str, str] = {}
        rates: dict[str, int] = {}
        for field, value in data.items():
            try:
                rates[_key_of(field)] = _rate_nanos(value)
            except ValueError as error:
                errors[field] = str(error)
        if errors:
            raise serializers.ValidationError(errors)
        return rates


@extend_schema_field(TIERS_SCHEMA)
class Tiers(Spoken):
    """Rates of whole calls with more input than a number of tokens, in rising order."""

    def to_internal_value(self, data: object) -> list[tuple[int, dict[str, int]]]:
        if not isinstance(data, list) or len(data) > TIERS_MAX:
            raise serializers.ValidationError(f"must be a list of at most {TIERS_MAX} tiers")
        return [self._tier(item) for item in data]

    def _tier(self, item: object) -> tuple[int, dict[str, int]]:
        if not isinstance(item, dict) or item.keys() != {"above_input_tokens", "rates"}:
            raise serializers.ValidationError("a tier has 'above_input_tokens' and 'rates'")
        above = item["above_input_tokens"]
        if type(above) is not int or not 0 <= above <= 2**53:
            raise serializers.ValidationError("'above_input_tokens' must be a whole number")
        return above, NamedRates().to_internal_value(item["rates"])


def stored_rates(rates: Mapping[str, int], tiers: list[tuple[int, dict[str, int]]]) -> JsonObject:
    """Rates and tiers as a price row holds them. Raises ValidationError for what is no price."""
    stored: JsonObject = {
        key: {"nanos": str(nanos), "per": units().units[key].per} for key, nanos in rates.items()
    }
    for above, tier in tiers:
        for key, nanos in tier.items():
            if key not in stored:
                message = f"a tier's {FIELD_BY_KEY[key]} needs a rate to rise from"
                raise serializers.ValidationError({"tiers": message})
            stored[key].setdefault("tiers", []).append({"above": above, "nanos": str(nanos)})
    if problem := check_rates(stored):
        raise serializers.ValidationError({"rates": problem})
    return stored


def rates_answer(rates: Mapping[str, Rate]) -> JsonObject:
    """The members `rates` and `tiers` of a price, from its parsed rates."""
    tiers: dict[int, dict[str, str]] = {}
    for key, rate in rates.items():
        for tier in rate.tiers:
            tiers.setdefault(tier.above, {})[FIELD_BY_KEY[key]] = _usd(key, rate, tier.nanos)
    return {
        "rates": {FIELD_BY_KEY[key]: _usd(key, rate, rate.nanos) for key, rate in rates.items()},
        "tiers": [{"above_input_tokens": above, "rates": tiers[above]} for above in sorted(tiers)],
    }


def _key_of(field: str) -> str:
    if field not in KEY_BY_FIELD:
        raise ValueError("is no class of usage that can be priced")
    return KEY_BY_FIELD[field]


def _rate_nanos(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('must be a decimal number of USD, as in "3.75"')
    nanos = nanos_from_usd(value)
    if nanos > RATE_USD_MAX * 10**9:
        raise ValueError(f"must be at most {RATE_USD_MAX:,} USD")
    return nanos


def _usd(key: str, rate: Rate, nanos: Fraction) -> str:
    """The rate of the unit that its field names, as a decimal."""
    for_unit = nanos * units().units[key].per / rate.per
    usd = Decimal(for_unit.numerator) / Decimal(for_unit.denominator)
    text = f"{usd.scaleb(-9):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
