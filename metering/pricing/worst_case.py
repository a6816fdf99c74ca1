"""The most that a request may cost: the dearest class of each direction that its shape allows.

A request that says nothing of a cache may write to the one that is kept longest, and one that says
nothing of modalities may hold and answer whatever its model has a rate for. Pure.
"""

from collections.abc import Collection, Mapping
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Final, NamedTuple

from metering.pricing.rates import CompiledRates, units
from metering.usage.shapes import Tokens

# What a request may write to the provider's cache; anything else is kept for an hour.
CACHE_NONE: Final = "none"
CACHE_5M: Final = "5m"


class Shape(NamedTuple):
    """What a request asks for, as far as it says. None allows all that the model has a rate for.

    `units` are what is no token, by usage key; `output_tokens` those of all answers together.
    """

    input_tokens: int
    output_tokens: int
    units: Mapping[str, int | float]
    cache: str | None = None
    input_modalities: Collection[str] | None = None
    output_modalities: Collection[str] | None = None

    def as_tokens(self) -> Tokens:
        """Return the same as usage, in the cheapest way: text, and nothing cached."""
        extra = {key: used for key, used in self.units.items() if key != "web_searches" and used}
        return Tokens(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            web_searches=ceil(self.units.get("web_searches", 0)),
            extra={**extra} or None,
        )


def worst_case_nanos(compiled: CompiledRates, shape: Shape) -> int:
    """Return the cost of the dearest call of this shape, rounded once, half up.

    A tier of the price is chosen by the whole input, of which the request may use less: each tier
    that it reaches counts, should a higher one be cheaper.
    """
    allowed = _Allowed(
        shape.cache,
        None if shape.input_modalities is None else frozenset(shape.input_modalities),
        None if shape.output_modalities is None else frozenset(shape.output_modalities),
    )
    beside = shape._replace(input_tokens=0, output_tokens=0).as_tokens()
    worst = 0
    for input_tokens, bracket in compiled.brackets_up_to(shape.input_tokens):
        total = compiled.unrounded(bracket, beside)
        for used, direction in ((input_tokens, "input"), (shape.output_tokens, "output")):
            rates = [rate for key, rate in bracket.leaves if _is_allowed(key, direction, allowed)]
            total += used * max(rates, default=0)
        worst = max(worst, int(Fraction(total + bracket.half) // bracket.scale))
    return worst


class _Allowed(NamedTuple):
    """What of a shape decides which rates its tokens may be billed at."""

    cache: str | None
    input: frozenset[str] | None
    output: frozenset[str] | None


@lru_cache(maxsize=4096)
def _is_allowed(key: str, direction: str, allowed: _Allowed) -> bool:
    """Return whether tokens of the call may be billed at this key's rate."""
    dimensions = units().units[key].dimensions
    if dimensions["family"] != "tokens" or dimensions.get("direction") != direction:
        return False
    wanted = allowed.output if direction == "output" else allowed.input
    modality = dimensions.get("modality")
    if wanted is not None and modality is not None and modality not in wanted:
        return False
    if dimensions.get("token_type") != "cache_write":
        return True
    return allowed.cache != CACHE_NONE and not (
        allowed.cache == CACHE_5M and dimensions.get("cache_ttl") == "1h"
    )
