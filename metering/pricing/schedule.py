"""The catalogue's prices of a model over time, by the date and the hour, for a kind of service."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Final, NamedTuple

from metering.models.prices import CataloguePrice
from metering.pricing.model_names import CatalogueModel
from metering.pricing.rates import CompiledRates, Rate, parse_rates
from metering.usage.shapes import INFERENCE_GEO, Tokens

CATALOGUE: Final = "catalogue"

# The tiers of service for which the catalogue has prices of their own, as its contexts.
CONTEXT_BY_TIER: Final[dict[str, dict[str, str]]] = {
    "default": {"service_tier": "default"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
    "batch": {"service_tier": "batch", "processing": "batch"},
}
# Where a call may be bound to run at another price.
PRICED_GEOS: Final = frozenset({"us"})


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

    def __init__(self, rows: Iterable[CataloguePrice]) -> None:
        self._rows: dict[tuple[str, str], list[CataloguePrice]] = {}
        for row in sorted(rows, key=lambda row: row.ordinal):
            self._rows.setdefault((row.provider, row.model), []).append(row)
        self._schedules: dict[_Key, Schedule] = {}

    def schedule(
        self, model: CatalogueModel, tier: str | None, geo: str | None = None
    ) -> "Schedule | None":
        """Return the model's prices over time. What is remembered is bounded by the catalogue's
        size.
        """
        key = (model, tier, geo)
        schedule = self._schedules.get(key)
        rows = self._rows.get((model.provider, model.model))
        if schedule is None and rows is not None:
            schedule = self._schedules[key] = Schedule(rows, _context(model, tier, geo))
        return schedule


_Key = tuple[CatalogueModel, str | None, str | None]


class Schedule:
    """The prices of one model for one tier of service: by date, and within a day by time."""

    def __init__(self, rows: Sequence[CataloguePrice], context: Mapping[str, str]) -> None:
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


def _is_in_force(row: CataloguePrice, day: date, moment: time) -> bool:
    if row.effective_from is not None and day < row.effective_from:
        return False
    if row.daily_from is None or row.daily_to is None:
        return True
    if row.daily_to < row.daily_from:
        return moment >= row.daily_from or moment < row.daily_to
    return row.daily_from <= moment < row.daily_to


def _context(model: CatalogueModel, tier: str | None, geo: str | None) -> dict[str, str]:
    """Return what the variants of a model's price are chosen by."""
    if not model.has_variants:
        # A reseller's tiers are not its maker's.
        return {"batch_at": model.reseller} if tier == "batch" else {}
    context = CONTEXT_BY_TIER[tier] if tier is not None else {}
    return context if geo is None else {**context, INFERENCE_GEO: geo}
