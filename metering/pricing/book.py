"""Rating: what a call costs by the tenant's prices and the catalogue, in whole nano-dollars.

A `PriceBook` is one tenant's prices at one moment, immutable but for what it remembers; its
holder replaces it when the tenant's configuration changes.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from django.db import connection

from metering.models.prices import CataloguePrice, TenantPrice, ToolPrice
from metering.pricing import model_names
from metering.pricing.rates import CompiledRates, parse_rates
from metering.pricing.schedule import (
    CATALOGUE,
    CONTEXT_BY_TIER,
    PRICED_GEOS,
    Catalogue,
    Price,
    Schedule,
)
from metering.pricing.worst_case import Shape, worst_case_nanos
from metering.usage.shapes import INFERENCE_GEO, OTHER_MODELS, Tokens

OVERRIDE: Final = "override"
UNPRICED: Final = "unpriced"

# Combinations of provider, model and tier that a book remembers.
NAMES_REMEMBERED: Final = 4096


class Rating(NamedTuple):
    """A call's cost, the price that gave it, and where that price stands.

    Unpriced with a price is a call of which the price has no rate for some units, which are
    `unrated`; the cost is that of the rest. `is_free` marks a worst case that nothing of the
    model costs anything.
    """

    cost_nanos: int
    price_id: int | None
    source: str
    unrated: tuple[str, ...] = ()
    is_free: bool = False


_NO_PRICE: Final = Rating(0, None, UNPRICED)
_FREE_TOOL: Final = Rating(0, None, CATALOGUE)


class DatedPriceLike(Protocol):
    """What a tenant's price must tell; `TenantPrice` and `ToolPrice` do."""

    @property
    def price_id(self) -> int: ...

    effective_from: datetime
    effective_to: datetime | None


class TenantPriceLike(DatedPriceLike, Protocol):
    provider: str
    model: str
    rates: Any


class ToolPriceLike(DatedPriceLike, Protocol):
    tool: str
    call_nanos: int


class _Override(NamedTuple):
    effective_from: datetime
    effective_to: datetime | None
    price: Price


class _ToolCall(NamedTuple):
    effective_from: datetime
    effective_to: datetime | None
    rating: Rating


class _Entry(NamedTuple):
    overrides: tuple[_Override, ...]
    schedule: Schedule | None


class PriceBook:
    """One tenant's prices: its own, then the catalogue's."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        tenant_prices: Iterable[TenantPriceLike] = (),
        tool_prices: Iterable[ToolPriceLike] = (),
    ) -> None:
        self._catalogue = catalogue
        self._overrides: dict[str, list[TenantPriceLike]] = {}
        for row in tenant_prices:
            self._overrides.setdefault(_folded(row.model), []).append(row)
        self._tools: dict[str, list[_ToolCall]] = {}
        for tool in sorted(tool_prices, key=_newest_first, reverse=True):
            rating = Rating(tool.call_nanos, tool.price_id, OVERRIDE)
            call = _ToolCall(tool.effective_from, tool.effective_to, rating)
            self._tools.setdefault(tool.tool, []).append(call)
        self._entry = lru_cache(maxsize=NAMES_REMEMBERED)(self._find_entry)

    def rate(  # noqa: PLR0913 - a rating depends on all of these
        self,
        *,
        provider: str | None,
        model: str | None,
        at: datetime,
        tokens: Tokens,
        service_tier: str | None,
        tool: str | None,
        operation: str,
    ) -> Rating:
        """Return what the call costs. Never raises for what a client sent; no price means
        'unpriced'.
        """
        if operation == "tool":
            return self._rate_tool(tool, at)
        extra = tokens.extra
        geo = extra.get(INFERENCE_GEO) if extra is not None else None
        price = self.price_at(
            provider=provider,
            model=model,
            at=at,
            service_tier=service_tier,
            geo=geo if isinstance(geo, str) else None,
        )
        if price is None:
            return _NO_PRICE
        if extra is not None and OTHER_MODELS in extra:
            return self._rate_parts(provider, price, at, tokens)
        return _rating(price, price.cost_nanos(tokens), price.compiled.unrated(tokens))

    def worst_case(
        self,
        *,
        provider: str | None,
        model: str | None,
        moments: Iterable[datetime],
        shape: Shape,
        service_tier: str | None,
        geo: str | None,
    ) -> Rating:
        """Return the most that a model call of this shape costs at any of these moments."""
        ratings = []
        for at in moments:
            price = self.price_at(
                provider=provider, model=model, at=at, service_tier=service_tier, geo=geo
            )
            if price is None:
                return _NO_PRICE
            nanos = worst_case_nanos(price.compiled, shape)
            unrated = price.compiled.unrated(shape.as_tokens())
            ratings.append(_rating(price, nanos, unrated)._replace(is_free=price.compiled.is_free))
        # One that lacks a rate comes before all that lack none.
        return max(ratings, key=lambda one: (one.source == UNPRICED, one.cost_nanos))

    def price_at(
        self,
        *,
        provider: str | None,
        model: str | None,
        at: datetime,
        service_tier: str | None = None,
        geo: str | None = None,
    ) -> Price | None:
        """Return the price in force for a model, if any; `geo` is where the call must run."""
        if not model:
            return None
        overrides, schedule = self._entry(provider or None, model, service_tier, geo)
        for override in overrides:
            if _is_at(override, at):
                return override.price
        return schedule.at(at) if schedule is not None else None

    def names_remembered(self) -> int:
        return self._entry.cache_info().currsize

    def _rate_tool(self, tool: str | None, at: datetime) -> Rating:
        for call in self._tools.get(tool or "", ()):
            if _is_at(call, at):
                return call.rating
        return _FREE_TOOL

    def _rate_parts(
        self, provider: str | None, price: Price, at: datetime, tokens: Tokens
    ) -> Rating:
        """Rate a call of which other models served parts: each part at its own model's price."""
        assert tokens.extra is not None
        parts = tokens.extra[OTHER_MODELS]
        own, cost = tokens, 0
        unrated: set[str] = set()
        for model, keys in parts.items() if isinstance(parts, dict) else ():
            other = self.price_at(provider=provider, model=model, at=at)
            if other is None:
                return _NO_PRICE
            part = _tokens_of(keys)
            cost += other.cost_nanos(part)
            unrated.update(other.compiled.unrated(part))
            own = _without(own, part)
        unrated.update(price.compiled.unrated(own))
        return _rating(price, cost + price.cost_nanos(own), tuple(sorted(unrated)))

    def _find_entry(
        self, provider: str | None, model: str, service_tier: str | None, geo: str | None
    ) -> _Entry:
        found = model_names.find_model(provider, model)
        overrides = self._find_overrides(provider, model, found)
        tier = (service_tier or "").lower()
        tier_known = tier if tier in CONTEXT_BY_TIER else None
        geo_known = geo if geo in PRICED_GEOS else None
        schedule = (
            self._catalogue.schedule(found, tier_known, geo_known) if found is not None else None
        )
        return _Entry(overrides, schedule)

    def _find_overrides(
        self, provider: str | None, model: str, found: model_names.CatalogueModel | None
    ) -> tuple[_Override, ...]:
        """Return the tenant's prices for a model, those that name it most closely first.

        A price for the name as sent beats one for the model that the name means; one that names the
        provider beats one that does not; a later one beats an earlier.
        """
        names = [_folded(model)]
        if found is not None and found.model != names[0]:
            names.append(found.model)
        ranked: list[_Override] = []
        for name in names:
            rows = [
                row
                for row in self._overrides.get(name, ())
                if _is_of(row.provider, provider, found)
            ]
            rows.sort(key=lambda row: (bool(row.provider), *_newest_first(row)), reverse=True)
            ranked.extend(_override(row) for row in rows)
        return tuple(ranked)


def _rating(price: Price, cost_nanos: int, unrated: tuple[str, ...]) -> Rating:
    if unrated:
        return Rating(cost_nanos, price.price_id, UNPRICED, unrated)
    return Rating(cost_nanos, price.price_id, price.source)


def _override(row: TenantPriceLike) -> _Override:
    compiled = CompiledRates(parse_rates(row.rates))
    price = Price(row.price_id, OVERRIDE, row.provider, row.model, compiled)
    return _Override(row.effective_from, row.effective_to, price)


def _is_of(named: str, provider: str | None, found: model_names.CatalogueModel | None) -> bool:
    """Return whether a price for the provider `named` is for this call; without a name it is for
    any.
    """
    if not named or (provider and _folded(named) == _folded(provider)):
        return True
    known = model_names.find_provider(named)
    if known is None:
        return False
    seller = model_names.find_provider(provider)
    if seller is not None:
        return seller.id == known.id
    return not provider and found is not None and found.provider == known.id


def _is_at(row: _Override | _ToolCall, at: datetime) -> bool:
    return row.effective_from <= at and (row.effective_to is None or at < row.effective_to)


def _newest_first(row: DatedPriceLike) -> tuple[datetime, int]:
    # Of two that start together the row written later holds; tenant ids fall below zero.
    return row.effective_from, abs(row.price_id)


def _folded(name: str) -> str:
    return name.strip().lower()


def _tokens_of(keys: Mapping[str, int]) -> Tokens:
    return Tokens(
        input_tokens=keys.get("input_tokens", 0),
        output_tokens=keys.get("output_tokens", 0),
        cache_read_tokens=keys.get("cache_read_tokens", 0),
        cache_write_tokens=keys.get("cache_write_tokens", 0),
        cache_write_1h_tokens=keys.get("cache_write_1h_tokens", 0),
        reasoning_tokens=keys.get("output_reasoning_tokens", 0),
    )


def _without(tokens: Tokens, part: Tokens) -> Tokens:
    """Return the counts that are left when a part of the call is taken out."""
    left = {
        name: getattr(tokens, name) - getattr(part, name)
        for name in Tokens.__struct_fields__
        if name != "extra"
    }
    extra = {key: value for key, value in (tokens.extra or {}).items() if key != OTHER_MODELS}
    return Tokens(**left, extra=extra or None)


_remembered: tuple[tuple[Any, ...], Catalogue] | None = None


def load_price_book(tenant_id: int, *, has_own: bool = True) -> PriceBook:
    """Read a tenant's prices, inside its scope; `has_own` is False where it is known to have none
    of its own. The catalogue is read once for all tenants.
    """
    return PriceBook(
        catalogue=_load_catalogue(),
        tenant_prices=list(TenantPrice.objects.filter(tenant_id=tenant_id)) if has_own else [],
        tool_prices=list(ToolPrice.objects.filter(tenant_id=tenant_id)) if has_own else [],
    )


def _load_catalogue() -> Catalogue:
    """Return the catalogue as stored, read again only when an import has changed it."""
    global _remembered  # noqa: PLW0603 - one catalogue a process, since it is the same for all
    # Rows are only added and superseded, so these change with every change.
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(id), max(created_at), max(superseded_at),"
            " count(*) FILTER (WHERE superseded_at IS NULL) FROM catalogue_price"
        )
        version = cursor.fetchone()
    if _remembered is None or _remembered[0] != version:
        rows = CataloguePrice.objects.filter(superseded_at=None)
        _remembered = (version, Catalogue(list(rows)))
    return _remembered[1]
