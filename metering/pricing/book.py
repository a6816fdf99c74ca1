"""Rating: what a call costs by the tenant's prices and the catalogue, in whole nano-dollars.

A `PriceBook` is one tenant's prices at one moment, immutable but for what it remembers; its
holder replaces it when the tenant's configuration changes.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from operator import sub
from typing import Final, Generic, NamedTuple, TypeVar

from common.bounded_memory import BoundedMemory
from common.queries import Row, fetch_row
from metering.models.prices import CataloguePrice, TenantPrice, ToolPrice
from metering.pricing import model_names
from metering.pricing.model_names import CatalogueModel
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
from metering.usage.columns import token_counts, tokens_of
from metering.usage.shapes import INFERENCE_GEO, OTHER_MODELS, Tokens

Content = TypeVar("Content")

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


class _Dated(NamedTuple, Generic[Content]):
    """What a tenant's price gives while it is in force."""

    effective_from: datetime
    effective_to: datetime | None
    content: Content


class _Entry(NamedTuple):
    overrides: tuple[_Dated[Price], ...]
    schedule: Schedule | None


class PriceBook:
    """One tenant's prices: its own, then the catalogue's."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        tenant_prices: Iterable[TenantPrice] = (),
        tool_prices: Iterable[ToolPrice] = (),
    ) -> None:
        self._catalogue = catalogue
        self._overrides: dict[str, list[TenantPrice]] = {}
        for row in tenant_prices:
            self._overrides.setdefault(_folded(row.model), []).append(row)
        self._tools: dict[str, list[_Dated[Rating]]] = {}
        for tool in sorted(tool_prices, key=_newest_first, reverse=True):
            rating = Rating(tool.call_nanos, tool.price_id, OVERRIDE)
            call = _Dated(tool.effective_from, tool.effective_to, rating)
            self._tools.setdefault(tool.tool, []).append(call)
        self.entry = lru_cache(maxsize=NAMES_REMEMBERED)(self._find_entry)

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
            return _in_force(self._tools.get(tool or "", ()), at) or _FREE_TOOL
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
        return max(ratings, key=lambda rating: (rating.source == UNPRICED, rating.cost_nanos))

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
        overrides, schedule = self.entry(provider or None, model, service_tier, geo)
        override = _in_force(overrides, at)
        if override is not None or schedule is None:
            return override
        return schedule.at(at)

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
        known = model_names.find_model(provider, model)
        overrides = self._find_overrides(provider, model, known)
        if known is None:
            return _Entry(overrides, None)
        tier = (service_tier or "").lower()
        return _Entry(
            overrides,
            self._catalogue.schedule(
                known,
                tier if tier in CONTEXT_BY_TIER else None,
                geo if geo in PRICED_GEOS else None,
            ),
        )

    def _find_overrides(
        self, provider: str | None, model: str, known: CatalogueModel | None
    ) -> tuple[_Dated[Price], ...]:
        """Return the tenant's prices for a model, those that name it most closely first.

        A price for the name as sent beats one for the model that the name means; one that names the
        provider beats one that does not; a later one beats an earlier.
        """
        names = [_folded(model)]
        if known is not None and known.model != names[0]:
            names.append(known.model)
        ranked: list[_Dated[Price]] = []
        for name in names:
            rows = self._overrides.get(name, ())
            for row in sorted(
                (row for row in rows if _is_of(row.provider, provider, known)),
                key=lambda row: (bool(row.provider), *_newest_first(row)),
                reverse=True,
            ):
                compiled = CompiledRates(parse_rates(row.rates))
                price = Price(row.price_id, OVERRIDE, row.provider, row.model, compiled)
                ranked.append(_Dated(row.effective_from, row.effective_to, price))
        return tuple(ranked)


def _rating(price: Price, cost_nanos: int, unrated: tuple[str, ...]) -> Rating:
    if unrated:
        return Rating(cost_nanos, price.price_id, UNPRICED, unrated)
    return Rating(cost_nanos, price.price_id, price.source)


def _is_of(named: str, provider: str | None, model: CatalogueModel | None) -> bool:
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
    return not provider and model is not None and model.provider == known.id


def _in_force(prices: Iterable[_Dated[Content]], at: datetime) -> Content | None:
    """Return the first of what is in force at a time."""
    for starts_at, ends_at, content in prices:
        if starts_at <= at and (ends_at is None or at < ends_at):
            return content
    return None


def _newest_first(row: TenantPrice | ToolPrice) -> tuple[datetime, int]:
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
    left = map(sub, token_counts(tokens), token_counts(part))
    extra = {key: value for key, value in (tokens.extra or {}).items() if key != OTHER_MODELS}
    return tokens_of(left, extra or None)


_catalogues = BoundedMemory[Row, Catalogue](size_max=1)


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
    # Rows are only added and superseded, so these change with every change.
    version = fetch_row(
        "SELECT max(id), max(created_at), max(superseded_at),"
        " count(*) FILTER (WHERE superseded_at IS NULL) FROM catalogue_price"
    )
    catalogue = _catalogues.get(version)
    if catalogue is None:
        catalogue = Catalogue(CataloguePrice.objects.filter(superseded_at=None))
        _catalogues.keep(version, catalogue)
    return catalogue
