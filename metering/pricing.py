"""Rating: what a call costs by the tenant's prices and the catalogue, in whole nano-dollars.

A `PriceBook` is one tenant's prices at one moment, immutable but for what it remembers; whoever
holds one replaces it when the tenant's configuration changes.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from django.db.models import Count, Max, Q

from metering import model_names
from metering.models.prices import CataloguePrice, TenantPrice, ToolPrice
from metering.rates import CompiledRates, Rate, parse_rates
from metering.usage_shapes import INFERENCE_GEO, OTHER_MODELS, Tokens

CATALOGUE: Final = "catalogue"
OVERRIDE: Final = "override"
UNPRICED: Final = "unpriced"

# A book remembers so many combinations of provider, model and tier, and no more.
NAMES_REMEMBERED: Final = 4096

# The tiers of service for which the catalogue has prices of their own, as its contexts.
_CONTEXT_BY_TIER: Final[dict[str, dict[str, str]]] = {
    "default": {"service_tier": "default"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
    "batch": {"service_tier": "batch", "processing": "batch"},
}
# Where a call may be bound to run at another price.
_PRICED_GEOS: Final = frozenset({"us"})


class Rating(NamedTuple):
    """A call's cost, the price that gave it, and where that price stands.

    Unpriced with a price is a call of which the price has no rate for some units, which are
    `unrated`; the cost is that of the rest.
    """

    cost_nanos: int
    price_id: int | None
    source: str
    unrated: tuple[str, ...] = ()


_NO_PRICE: Final = Rating(0, None, UNPRICED)
_FREE_TOOL: Final = Rating(0, None, CATALOGUE)


class CataloguePriceLike(Protocol):
    """What a catalogue row must tell; `CataloguePrice` does."""

    @property
    def price_id(self) -> int: ...

    provider: str
    model: str
    ordinal: int
    effective_from: date | None
    daily_from: time | None
    daily_to: time | None
    context: Any
    rates: Any


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


class Price(NamedTuple):
    """The price of a model at a moment, ready for rating."""

    price_id: int
    source: str
    provider: str
    model: str
    compiled: CompiledRates

    @property
    def rates(self) -> Mapping[str, Rate]:
        return self.compiled.rates

    def cost_nanos(self, tokens: Tokens) -> int:
        return self.compiled.cost_nanos(tokens)


class Catalogue:
    """The global prices by provider and model, compiled when first asked for."""

    def __init__(self, rows: Iterable[CataloguePriceLike]) -> None:
        self._rows: dict[tuple[str, str], list[CataloguePriceLike]] = {}
        for row in rows:
            self._rows.setdefault((row.provider, row.model), []).append(row)
        for prices in self._rows.values():
            prices.sort(key=lambda row: row.ordinal)
        self._schedules: dict[_ScheduleKey, _Schedule] = {}

    def schedule(
        self, found: model_names.CatalogueModel, tier: str | None, geo: str | None = None
    ) -> "_Schedule | None":
        """The model's prices over time. What is remembered is bounded by the catalogue's size."""
        key = (found, tier, geo)
        schedule = self._schedules.get(key)
        if schedule is None:
            rows = self._rows.get((found.provider, found.model))
            if rows is None:
                return None
            schedule = _Schedule(rows, _context(found, tier, geo))
            self._schedules[key] = schedule
        return schedule


_ScheduleKey = tuple[model_names.CatalogueModel, str | None, str | None]


class _Schedule:
    """The prices of one model for one tier of service: by date, and within a day by time."""

    def __init__(self, rows: Sequence[CataloguePriceLike], context: Mapping[str, str]) -> None:
        self._standard = [row for row in rows if not row.context]
        self._variants = [
            row
            for row in rows
            if row.context and all(context.get(key) == row.context[key] for key in row.context)
        ]
        used = (*self._standard, *self._variants)
        days = sorted({row.effective_from for row in used if row.effective_from is not None})
        cuts = {row.daily_from for row in used if row.daily_from is not None}
        cuts |= {row.daily_to for row in used if row.daily_to is not None}
        self._starts = [datetime.combine(day, time(), UTC) for day in days]
        self._cuts = sorted(cuts)
        self._made: dict[tuple[int, ...], Price] = {}
        self._prices = [
            [self._make(day, moment) for moment in (time(), *self._cuts)]
            for day in (date.min, *days)
        ]

    def at(self, moment: datetime) -> Price:
        prices = (
            self._prices[bisect_right(self._starts, moment)] if self._starts else self._prices[0]
        )
        if self._cuts:
            return prices[bisect_right(self._cuts, moment.astimezone(UTC).time())]
        return prices[0]

    def _make(self, day: date, moment: time) -> Price:
        base = self._standard[0]  # in force when none else is
        for row in self._standard:
            if _is_in_force(row, day, moment):
                base = row  # the last one that is in force
        variants = [row for row in self._variants if _is_in_force(row, day, moment)]
        key = tuple(row.price_id for row in (base, *variants))
        if key not in self._made:
            rates: dict[str, Rate] = {}
            for row in reversed(variants):  # the first one names a rate for good
                rates |= parse_rates(row.rates) if row.rates else {}
            named = next((row for row in variants if row.rates), base)
            standard = parse_rates(base.rates) if base.rates else {}
            self._made[key] = Price(
                named.price_id,
                CATALOGUE,
                base.provider,
                base.model,
                CompiledRates({**standard, **rates}),
            )
        return self._made[key]


def _is_in_force(row: CataloguePriceLike, day: date, moment: time) -> bool:
    if row.effective_from is not None and day < row.effective_from:
        return False
    if row.daily_from is None or row.daily_to is None:
        return True
    if row.daily_to < row.daily_from:
        return moment >= row.daily_from or moment < row.daily_to
    return row.daily_from <= moment < row.daily_to


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
    schedule: _Schedule | None


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
        """What the call costs. Never raises for what a client sent; no price means 'unpriced'."""
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

    def price_at(
        self,
        *,
        provider: str | None,
        model: str | None,
        at: datetime,
        service_tier: str | None = None,
        geo: str | None = None,
    ) -> Price | None:
        """The price in force for a model, or None; `geo` is where the call is bound to run."""
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
        tier_known = tier if tier in _CONTEXT_BY_TIER else None
        geo_known = geo if geo in _PRICED_GEOS else None
        schedule = (
            self._catalogue.schedule(found, tier_known, geo_known) if found is not None else None
        )
        return _Entry(overrides, schedule)

    def _find_overrides(
        self, provider: str | None, model: str, found: model_names.CatalogueModel | None
    ) -> tuple[_Override, ...]:
        """The tenant's prices for a model, those that name it most closely first.

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
    """Whether a price for the provider `named` is for this call; without a name it is for any."""
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


def _context(
    found: model_names.CatalogueModel, tier: str | None, geo: str | None
) -> dict[str, str]:
    """What the variants of a model's price are chosen by."""
    if not found.has_variants:
        # A reseller's tiers are not its maker's.
        return {"batch_at": found.reseller} if tier == "batch" else {}
    context = _CONTEXT_BY_TIER[tier] if tier is not None else {}
    return context if geo is None else {**context, INFERENCE_GEO: geo}


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
    """The counts that are left when a part of the call is taken out."""
    left = {
        name: getattr(tokens, name) - getattr(part, name)
        for name in Tokens.__struct_fields__
        if name != "extra"
    }
    extra = {key: value for key, value in (tokens.extra or {}).items() if key != OTHER_MODELS}
    return Tokens(**left, extra=extra or None)


_remembered: tuple[tuple[Any, ...], Catalogue] | None = None


def load_price_book(tenant_id: int) -> PriceBook:
    """Read a tenant's prices, inside its scope. The catalogue is read once for all tenants."""
    return PriceBook(
        catalogue=_load_catalogue(),
        tenant_prices=list(TenantPrice.objects.filter(tenant_id=tenant_id)),
        tool_prices=list(ToolPrice.objects.filter(tenant_id=tenant_id)),
    )


def _load_catalogue() -> Catalogue:
    """The catalogue as stored, read again only when an import has changed it."""
    global _remembered  # noqa: PLW0603 - one catalogue a process, since it is the same for all
    # Rows are only added and superseded, so these change with every change.
    state = CataloguePrice.objects.aggregate(
        Max("id"),
        Max("created_at"),
        Max("superseded_at"),
        current=Count("id", filter=Q(superseded_at=None)),
    )
    version = tuple(state.values())
    if _remembered is None or _remembered[0] != version:
        rows = CataloguePrice.objects.filter(superseded_at=None)
        _remembered = (version, Catalogue(list(rows)))
    return _remembered[1]
