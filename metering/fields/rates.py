"""Rates of a price on forms and lists: which there are, in which unit, and as people read them."""

from collections.abc import Mapping
from typing import Any, Final

from django import forms

from common.money import usd_from_nanos
from metering.pricing.rates import check_rates, parse_rates, units
from tenants.number_fields import UsdField

UNIT_WORDS: Final = {1_000_000: "per million", 1000: "per thousand", 1: "each"}
# What forms offer; the API takes every class of usage that the price library knows.
RATE_LABELS: Final = {
    "input_tokens": "Input tokens",
    "output_tokens": "Output tokens",
    "cache_read_tokens": "Read from a cache",
    "cache_write_tokens": "Written to a cache",
    "cache_write_1h_tokens": "Written for an hour",
    "output_reasoning_tokens": "Reasoning tokens",
    "input_audio_tokens": "Audio input tokens",
    "output_audio_tokens": "Audio output tokens",
    "web_searches": "Web searches",
    "requests": "Requests",
}


def rate_unit(key: str) -> str:
    """For how many of it a rate is: per million, per thousand, each."""
    return UNIT_WORDS[units().units[key].per]


def rate_fields() -> dict[str, UsdField]:
    """Return a field of forms for each rate."""
    return {
        f"rate_{key}": UsdField(label=f"{label}, USD {rate_unit(key)}", required=False)
        for key, label in RATE_LABELS.items()
    }


class RatesForm(forms.Form):
    """A form with `rate_fields`, which become the `rates` of a price."""

    def clean(self) -> dict[str, object]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        rates = data["rates"] = _read_rates(data)
        if problem := check_rates(rates) if rates else "Give at least one rate.":
            self.add_error("rate_input_tokens", problem)
        return data


def _read_rates(data: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Rates as a price stores them, from a form's nano-dollars by `rate_<key>`."""
    return {
        key: {"nanos": str(data[f"rate_{key}"]), "per": units().units[key].per}
        for key in RATE_LABELS
        if data.get(f"rate_{key}") is not None
    }


def format_rates(rates: Mapping[str, object]) -> str:
    """Rates as people read them: "input $3, output $15 per million; requests $1 per thousand"."""
    by_unit: dict[str, list[str]] = {}
    parsed = parse_rates(rates)
    for key, rate in parsed.items():
        per = units().units[key].per
        words = key.removeprefix("output_") if key == "output_reasoning_tokens" else key
        amount = usd_from_nanos(round(rate.nanos * per / rate.per))
        words = words.removesuffix("_tokens").replace("_", " ")
        by_unit.setdefault(UNIT_WORDS.get(per, f"per {per:,}"), []).append(f"{words} ${amount}")
    parts = [f"{', '.join(amounts)} {unit}" for unit, amounts in by_unit.items()]
    if any(rate.tiers for rate in parsed.values()):
        parts.append("other rates for long input")
    return "; ".join(parts)
