"""What usage costs at given rates: parsed once, then a few whole-number multiplications a call.

A price names a rate for some usage keys of the price library. Each token is billed at the most
specific key that is priced: of 10 input tokens, 4 of them read from a cache that has its own rate,
6 cost the input rate; where the cache has none, all 10 do. Instead of splitting the counts for
every call, each key gets a coefficient beforehand (the cache's is its own rate less the input
rate), so that the cost is the sum of coefficient times count.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache
from typing import Final, NamedTuple

import msgspec
from genai_prices.data_units import unit_data
from genai_prices.units import UnitRegistry
from genai_prices.validation import validate_model_price

from metering.usage.shapes import OVERLAP, Tokens

# The most that one rate may be: a million dollars. It keeps any cost far inside eight bytes' reach.
RATE_NANOS_MAX: Final = Decimal(10) ** 15
RATE_DECIMALS_MAX: Final = 12

# The library calls these otherwise than the fields of Tokens.
_FIELD_BY_KEY: Final = {
    **{
        name: name for name in Tokens.__struct_fields__ if name not in ("reasoning_tokens", "extra")
    },
    "output_reasoning_tokens": "reasoning_tokens",
}
# What providers bill by and the price library has no unit for, in its form.
_OWN_UNITS: Final = {
    "output_images": ("_kcount", 1000, {"family": "images", "direction": "output"}),
    "output_video_seconds": (
        "_hours",
        3600,
        {"family": "durations", "direction": "output", "modality": "video"},
    ),
    "search_sources": ("_kcount", 1000, {"family": "tool_calls", "tool_type": "search_source"}),
    "document_searches": (
        "_kcount",
        1000,
        {"family": "tool_calls", "tool_type": "document_search"},
    ),
    "url_fetches": ("_kcount", 1000, {"family": "tool_calls", "tool_type": "url_fetch"}),
}
_CACHED: Final = frozenset({"cache_read_tokens", "cache_write_tokens"})
# Kinds of input that may have been read from the cache without the provider saying how much.
_CACHED_KINDS: Final = ("audio", "image", "video")


class Tier(NamedTuple):
    """The rate of a whole call whose input exceeds `above` tokens."""

    above: int
    nanos: Fraction


class Rate(NamedTuple):
    """Nano-dollars for `per` of what is counted; fewer than `minimum`, but some, count as that.

    Output that no report breaks down is all of this kind where `is_unsplit`.
    """

    nanos: Fraction
    per: int
    tiers: tuple[Tier, ...] = ()
    minimum: int = 0
    is_unsplit: bool = False


@cache
def units() -> UnitRegistry:
    """Return the usage keys that a price may name, and which of them are parts of which."""
    own = {
        key: {
            "price_key": key.removesuffix("_seconds") + mark,
            "per": per,
            "dimensions": dimensions,
        }
        for key, (mark, per, dimensions) in _OWN_UNITS.items()
    }
    return UnitRegistry({**unit_data, **own})


def check_rates(raw: object) -> str | None:
    """Say what is wrong with rates as stored, or None. What passes can be compiled."""
    try:
        rates = parse_rates(raw)
        registry = units().units
        validate_model_price({registry[key].price_key for key in rates}, units())
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def parse_rates(raw: object) -> dict[str, Rate]:
    """Read rates as stored. Raises ValueError with a sentence about the first that is wrong."""
    if not isinstance(raw, Mapping) or not raw:
        raise ValueError("Rates must map at least one usage key to its rate.")
    return {key: _parse_rate(key, entry) for key, entry in raw.items()}


def _parse_rate(key: str, entry: object) -> Rate:
    unit = units().units.get(key)
    if unit is None:
        raise ValueError(f"{key} is not a usage key that can be priced.")
    if not isinstance(entry, Mapping) or "nanos" not in entry:
        raise ValueError(f"{key}: a rate is an object with 'nanos'.")
    per = entry.get("per", unit.per)
    minimum = entry.get("minimum", 0)
    if type(per) is not int or per < 1 or type(minimum) is not int or minimum < 0:
        raise ValueError(f"{key}: 'per' must be a positive and 'minimum' no negative whole number.")
    return Rate(
        _parse_nanos(key, entry["nanos"]),
        per,
        _parse_tiers(key, entry),
        minimum,
        entry.get("is_unsplit") is True,
    )


def _parse_tiers(key: str, entry: Mapping[str, object]) -> tuple[Tier, ...]:
    raw = entry.get("tiers", [])
    if not isinstance(raw, list):
        raise ValueError(f"{key}: 'tiers' must be a list.")
    tiers = []
    for item in raw:
        above = item.get("above") if isinstance(item, Mapping) else None
        if type(above) is not int or above < 0:
            raise ValueError(f"{key}: a tier needs 'above', a whole number of input tokens.")
        tiers.append(Tier(above, _parse_nanos(key, item.get("nanos"))))
    if [tier.above for tier in tiers] != sorted({tier.above for tier in tiers}):
        raise ValueError(f"{key}: tiers must rise and not repeat.")
    return tuple(tiers)


def _parse_nanos(key: str, value: object) -> Fraction:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InvalidOperation
        nanos = Decimal(value)
    except InvalidOperation as error:
        raise ValueError(f"{key}: 'nanos' must be a decimal string.") from error
    if not nanos.is_finite() or not 0 <= nanos <= RATE_NANOS_MAX:
        raise ValueError(f"{key}: 'nanos' must lie between 0 and {RATE_NANOS_MAX:f}.")
    exponent = nanos.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -RATE_DECIMALS_MAX:
        raise ValueError(f"{key}: 'nanos' has more than {RATE_DECIMALS_MAX} decimals.")
    return Fraction(nanos)


class Bracket:
    """One price's coefficients for calls of one range of input sizes.

    All coefficients are whole numbers of nano-dollars times `scale`, which makes them exact.
    """

    __slots__ = (
        *("fixed", "half", "input", "leaves", "output", "read", "reasoning", "scale", "web"),
        *("write", "write_1h"),
    )

    def __init__(self, nanos_by_key: Mapping[str, Fraction]) -> None:
        # Rounding adds half a nano-dollar, so the scale must be even.
        self.scale = 2 * math.lcm(*(nanos.denominator for nanos in nanos_by_key.values()))
        self.half = self.scale // 2
        scaled = {key: int(nanos * self.scale) for key, nanos in nanos_by_key.items()}
        self.leaves = tuple((key, scaled[key]) for key in _most_specific_first(scaled))
        coefficients: dict[str, int] = {}
        for key in reversed(_most_specific_first(scaled)):
            wholes = units().ancestor_usage_keys(key)
            coefficients[key] = scaled[key] - sum(coefficients.get(whole, 0) for whole in wholes)
        self.fixed = coefficients.get("requests", 0) + self.half
        self.input = coefficients.get("input_tokens", 0)
        self.output = coefficients.get("output_tokens", 0)
        self.read = coefficients.get("cache_read_tokens", 0)
        self.write = coefficients.get("cache_write_tokens", 0)
        self.write_1h = coefficients.get("cache_write_1h_tokens", 0)
        self.reasoning = coefficients.get("output_reasoning_tokens", 0)
        self.web = coefficients.get("web_searches", 0)


class CompiledRates:
    """Rates made ready for rating. Immutable."""

    __slots__ = ("_brackets", "_has_tokens", "_parts", "_plain", "_thresholds", "_unsplit", "rates")

    def __init__(self, rates: Mapping[str, Rate]) -> None:
        self.rates = dict(rates)
        thresholds = sorted({tier.above for rate in rates.values() for tier in rate.tiers})
        self._thresholds = tuple(thresholds)
        self._brackets = tuple(
            Bracket({key: _nanos_each(rate, above) for key, rate in rates.items()})
            for above in (-1, *thresholds)
        )
        self._parts = {
            key: [part for part in rates if key in units().ancestor_usage_keys(part)]
            for key in rates
        }
        self._plain = tuple(
            key in rates for key in ("input_tokens", "output_tokens", "web_searches")
        )
        self._unsplit = next((key for key, rate in rates.items() if rate.is_unsplit), None)
        self._has_tokens = any(key in rates for key in ("input_tokens", "output_tokens"))

    def unrated(self, tokens: Tokens) -> tuple[str, ...]:
        """Return what a call used that no rate is for, neither its own nor that of a whole it is
        part of.

        A call that tells nothing is no free call where the price is for something else than tokens:
        then the units of the price are what is missing.
        """
        has_input, has_output, has_web = self._plain
        if (
            tokens.extra is None
            and (has_input or not tokens.input_tokens)
            and (has_output or not tokens.output_tokens)
            and (has_web or not tokens.web_searches)
        ):
            is_told = tokens.input_tokens or tokens.output_tokens or tokens.web_searches
            return () if self._has_tokens or is_told else tuple(sorted(self.rates))
        return tuple(sorted(key for key in _used(tokens) if not self._is_rated(key)))

    def _is_rated(self, key: str) -> bool:
        if key in self.rates:
            return True
        return key in units().units and not units().ancestor_usage_keys(key).isdisjoint(self.rates)

    def cost_nanos(self, tokens: Tokens) -> int:
        """Return the cost of one call: summed exactly, rounded once, half up."""
        if self._unsplit is not None and not _is_output_split(tokens):
            extra = {**(tokens.extra or {}), self._unsplit: tokens.output_tokens}
            tokens = msgspec.structs.replace(tokens, extra=extra)
        given = tokens.input_tokens
        bracket = self._bracket(given)
        read = tokens.cache_read_tokens
        write = tokens.cache_write_tokens
        if (
            tokens.extra is not None
            or tokens.input_audio_tokens
            or tokens.output_audio_tokens
            or read + write > given
        ):
            return (self.unrounded(bracket, tokens) + bracket.half) // bracket.scale
        total = bracket.fixed + given * bracket.input + tokens.output_tokens * bracket.output
        if read:
            total += read * bracket.read
        if write:
            total += write * bracket.write + tokens.cache_write_1h_tokens * bracket.write_1h
        if bracket.reasoning:
            total += tokens.reasoning_tokens * bracket.reasoning
        if tokens.web_searches:
            total += tokens.web_searches * bracket.web
        return total // bracket.scale

    @property
    def is_free(self) -> bool:
        """Whether the price says of everything it names that it costs nothing."""
        return bool(self.rates) and not any(
            nanos for bracket in self._brackets for _, nanos in bracket.leaves
        )

    def brackets_up_to(self, input_tokens: int) -> list[tuple[int, Bracket]]:
        """Each range of input sizes that a call of at most so much input may fall into, with the
        largest input in it.
        """
        reached = self._thresholds[: bisect_left(self._thresholds, input_tokens)]
        return list(zip((*reached, input_tokens), self._brackets, strict=False))

    def _bracket(self, input_tokens: int) -> Bracket:
        if self._thresholds:
            return self._brackets[bisect_left(self._thresholds, input_tokens)]
        return self._brackets[0]

    def unrounded(self, bracket: Bracket, tokens: Tokens) -> int | Fraction:
        """Return the cost in the bracket's unit: splits the counts as the price library does.

        A part that exceeds its whole is billed, and its whole then counts nothing beside it.
        """
        counts = _counts(tokens)
        billed: dict[str, int | Fraction] = {}
        total: int | Fraction = 0
        for key, nanos in bracket.leaves:
            used = self._count(key, counts) - sum(billed[part] for part in self._parts[key])
            if key == "input_tokens" and billed.keys() >= _CACHED:
                used += counts.get(OVERLAP, 0)
            billed[key] = max(used, 0)
            total += billed[key] * nanos
        return total

    def _count(self, key: str, counts: Mapping[str, int | Fraction]) -> int | Fraction:
        used = counts.get(key, 0)
        if not used and key not in _FIELD_BY_KEY:
            # A whole that was not told is at least as large as its parts.
            known = units()
            parts = (part for part in counts if part in known.units)
            sizes = [counts[part] for part in parts if key in known.ancestor_usage_keys(part)]
            used = max(sizes, default=0)
        minimum = self.rates[key].minimum
        return max(used, minimum) if used else used


def _is_output_split(tokens: Tokens) -> bool:
    is_split = tokens.output_audio_tokens or tokens.reasoning_tokens
    return bool(is_split) or any(key.startswith("output_") for key in tokens.extra or ())


def _used(tokens: Tokens) -> list[str]:
    """Every unit that a call used some of."""
    extra = (tokens.extra or {}).items()
    return [
        *(key for key, field in _FIELD_BY_KEY.items() if getattr(tokens, field)),
        *(key for key, used in extra if isinstance(used, int | float) and used and key != OVERLAP),
    ]


def _nanos_each(rate: Rate, above: int) -> Fraction:
    nanos = rate.nanos
    for tier in rate.tiers:
        if tier.above <= above:
            nanos = tier.nanos
    return nanos / rate.per


def _most_specific_first(keys: Iterable[str]) -> list[str]:
    registry = units().units
    return sorted(keys, key=lambda key: (-len(registry[key].dimensions), key))


def _counts(tokens: Tokens) -> dict[str, int | Fraction]:
    """Every count of a call by the library's key: one request, and cached audio that must be."""
    counted = ((key, getattr(tokens, field)) for key, field in _FIELD_BY_KEY.items())
    counts: dict[str, int | Fraction] = {"requests": 1, **{key: n for key, n in counted if n}}
    for key, value in (tokens.extra or {}).items():
        if isinstance(value, float):
            counts[key] = Fraction(Decimal(repr(value)))
        elif isinstance(value, int):
            counts[key] = value
    for kind in _CACHED_KINDS:
        joint, whole = f"cache_{kind}_read_tokens", f"input_{kind}_tokens"
        if joint not in counts and whole in counts:
            # When cached tokens and tokens of a kind do not both fit in the input, some are both.
            cached, given = counts.get("cache_read_tokens", 0), counts.get("input_tokens", 0)
            if cached + counts[whole] > given:
                counts[joint] = cached + counts[whole] - given
    return counts
