"""What a plan says, as it is stored and rated. Pure: no database, no clock.

Amounts are in the plan's currency, exact. The rules that they are rated by are in docs/billing.md.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

import msgspec


class Metric(StrEnum):
    """What a usage charge counts; `cost` is the provider's, in USD."""

    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CACHE_READ_TOKENS = "cache_read_tokens"
    CACHE_WRITE_TOKENS = "cache_write_tokens"
    REASONING_TOKENS = "reasoning_tokens"
    # Input and output, which include the other classes.
    TOKENS = "tokens"
    REQUESTS = "requests"
    TOOL_CALLS = "tool_calls"
    COST = "cost"


class ChargeModel(StrEnum):
    """How a quantity becomes an amount."""

    PER_UNIT = "per_unit"
    GRADUATED = "graduated"
    VOLUME = "volume"
    PACKAGE = "package"
    PERCENTAGE = "percentage"
    COST_PLUS = "cost_plus"


class When(StrEnum):
    """When a flat fee is owed: from the first day of a period, or at its end."""

    ADVANCE = "advance"
    ARREARS = "arrears"


class Proration(StrEnum):
    """How a flat fee counts for a part of a period."""

    DAY = "day"
    SECOND = "second"
    NONE = "none"


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of quantities up to and including `up_to` (None: all above)."""

    up_to: Decimal | None
    unit_amount: Decimal = Decimal(0)
    flat_amount: Decimal = Decimal(0)


class Markup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A percentage of its own for a model or a provider in a cost-plus charge."""

    percent: Decimal
    model: str | None = None
    provider: str | None = None


class FlatCharge(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="flat"):
    """A fee for each period."""

    name: str
    amount: Decimal
    when: When = When.ARREARS
    proration: Proration = Proration.DAY


class UsageCharge(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="kind",
    tag="usage",
    omit_defaults=True,
    dict=True,
):
    """An amount for what was used. Which members count depends on `model`."""

    name: str
    metric: Metric
    model: ChargeModel
    # Dimension to value, or to any of a list of values, as the match of a budget.
    filter: Mapping[str, str | list[str]] = {}
    unit_amount: Decimal | None = None
    per: int = 1
    tiers: list[Tier] = []
    package_size: int | None = None
    package_amount: Decimal | None = None
    percent: Decimal | None = None
    markups: list[Markup] = []
    included_units: Decimal = Decimal(0)
    minimum_amount: Decimal | None = None
    cap_amount: Decimal | None = None

    @cached_property
    def wanted(self) -> Mapping[str, frozenset[str]]:
        """The values that the filter asks for, by dimension."""
        return {
            name: frozenset(value if isinstance(value, list) else [value])
            for name, value in self.filter.items()
        }

    @cached_property
    def dimensions(self) -> frozenset[str]:
        """The dimensions by which usage must be known."""
        named = set(self.filter)
        if any(markup.model is not None for markup in self.markups):
            named.add("model")
        if any(markup.provider is not None for markup in self.markups):
            named.add("provider")
        return frozenset(named)


Charge = FlatCharge | UsageCharge


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version of a plan: its charges, whose names differ, and the bounds of their sum."""

    charges: list[Charge]
    minimum_amount: Decimal | None = None
    cap_amount: Decimal | None = None


class Version(NamedTuple):
    """A version of a plan's terms: in force from `starts_at` (None: ever) until the next begins."""

    number: int
    starts_at: datetime | None
    terms: Terms
