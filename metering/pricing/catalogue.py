"""The price library's catalogue as plain rows, in the form that `catalogue_price` stores."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import Final, NamedTuple, NotRequired, TypedDict

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import (
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from metering.pricing.rates import units

# Groq bills at least ten seconds of each transcription; the library knows this in code alone.
_LEAST_SECONDS: Final = 10
_LEAST_SECONDS_MODELS: Final = {
    ("groq", "whisper-large-v3"),
    ("groq", "whisper-large-v3-turbo"),
}

Constraint = StartDateConstraint | TimeOfDateConstraint | None


class StoredTier(TypedDict):
    """A tier of a rate as JSON."""

    above: int
    nanos: str


class StoredRate(TypedDict):
    """A rate as JSON: see `Rate`. One that a supplement made says where it was read, and when."""

    per: int
    nanos: str
    tiers: NotRequired[list[StoredTier]]
    minimum: NotRequired[int]
    is_unsplit: NotRequired[bool]
    source: NotRequired[str]
    read: NotRequired[str]


StoredRates = dict[str, StoredRate]


class CatalogueRow(NamedTuple):
    """One price; see `CataloguePrice` for how rows of a model play together."""

    provider: str
    model: str
    name: str
    ordinal: int
    effective_from: date | None
    daily_from: time | None
    daily_to: time | None
    context: dict[str, str]
    rates: StoredRates


@cache
def catalogue_version() -> str:
    return version("genai-prices")


def catalogue_rows() -> list[CatalogueRow]:
    """Every price of the installed library."""
    return [
        row
        for provider in get_snapshot().providers
        for model in provider.models
        for row in _rows_of(provider, model)
    ]


def _rows_of(provider: Provider, model: ModelInfo) -> list[CatalogueRow]:
    prices: list[tuple[dict[str, str], Constraint, ModelPrice]] = []
    if isinstance(model.prices, ModelPrice):
        prices.append(({}, None, model.prices))
    else:
        prices.extend(({}, price.constraint, price.prices) for price in model.prices)
    prices.extend(
        (variant.when, variant.constraint, variant.prices) for variant in model.price_variants or ()
    )
    has_minimum = (provider.id, model.id) in _LEAST_SECONDS_MODELS
    return [
        CatalogueRow(
            provider.id,
            model.id,
            model.name or "",
            ordinal,
            *_limits(constraint),
            dict(context),
            _rates_of(price, has_minimum),
        )
        for ordinal, (context, constraint, price) in enumerate(prices)
    ]


def _limits(constraint: Constraint) -> tuple[date | None, time | None, time | None]:
    if isinstance(constraint, StartDateConstraint):
        return constraint.start_date, None, None
    if isinstance(constraint, TimeOfDateConstraint):
        return None, _in_utc(constraint.start_time), _in_utc(constraint.end_time)
    return None, None, None


def _in_utc(daily: time) -> time:
    if daily.tzinfo is None:
        return daily
    return datetime.combine(date(1970, 1, 1), daily).astimezone(UTC).time()


def _rates_of(price: ModelPrice, has_minimum: bool) -> StoredRates:
    rates: StoredRates = {}
    for price_key, value in sorted(vars(price).items()):
        if value is None or price_key.startswith("_"):
            continue
        unit = units().unit_for_price_key(price_key)
        is_tiered = isinstance(value, TieredPrices)
        rate = StoredRate(per=unit.per, nanos=nanos_text(value.base if is_tiered else value))
        if is_tiered:
            rate["tiers"] = [
                {"above": tier.start, "nanos": nanos_text(tier.price)} for tier in value.tiers
            ]
        if has_minimum and unit.usage_key in ("audio_seconds", "input_audio_seconds"):
            rate["minimum"] = _LEAST_SECONDS
        rates[unit.usage_key] = rate
    return rates


def nanos_text(usd: Decimal) -> str:
    """Return dollars as nano-dollars, in as many digits as they have."""
    nanos = f"{usd.scaleb(9):f}"
    return nanos.rstrip("0").rstrip(".") if "." in nanos else nanos
