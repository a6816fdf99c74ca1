"""What a tenant's usage is judged by, as one snapshot: prices, budgets, settings.

Each process keeps the snapshots it works with. A snapshot may be old; that is harmless, because the
transaction that writes compares its version with the tenant's under the configuration lock.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from django.db import connection

from metering.budgets.index import BudgetIndex, forget_windows
from metering.budgets.reading import read_budget_index
from metering.limits.breakers import BreakerRule, read_breaker_rules
from metering.limits.rate_limits import RateRule, read_rate_rules
from metering.limits.routes import RouteTable, read_routes
from metering.pricing.book import UNPRICED, PriceBook, Rating, load_price_book
from metering.usage.attribute_mappings import read_attribute_mappings
from metering.usage.decoders.otlp.dimension_keys import USUAL, DimensionKeys
from metering.usage.shapes import Tokens
from tenants.models import Tenant, UnpricedPolicy
from tenants.remembered import Remembered
from tenants.scope import lock_configuration_shared, tenant_scope

T = TypeVar("T")

# Those that a process keeps: some 10 KB each, and 1 KB for every budget. What they know of windows
# and groups is bounded for the process (`budget_rules`).
SNAPSHOTS_MAX: Final = 5_000


# How often a transaction begins again because the configuration changed meanwhile.
CHANGES_MAX: Final = 100


class ConfigurationChanged(Exception):
    """What was found out before the transaction does not hold within it: do it again."""


class Configuration(NamedTuple):
    """One version of a tenant's configuration."""

    tenant_id: int
    version: int
    prices: PriceBook
    budgets: BudgetIndex
    trusts_given_costs: bool
    # Which attributes of telemetry name the dimensions, with the tenant's mappings.
    dimension_keys: DimensionKeys
    unpriced_policy: str
    # Nano-dollars per million input and output tokens, where the policy is to assume them.
    assumed_rates: tuple[int, int] | None
    routes: RouteTable
    rate_limits: tuple[RateRule, ...]
    breakers: tuple[BreakerRule, ...]

    def cost_of(self, rating: Rating, tokens: Tokens) -> int | None:
        """What a call is booked as: its cost, where that is unknown the assumed one, else what is
        known of it; None where nothing is.
        """
        if rating.source != UNPRICED:
            return rating.cost_nanos
        assumed = self.assumed_nanos(tokens)
        return max(assumed or 0, rating.cost_nanos) or assumed

    def assumed_nanos(self, tokens: Tokens) -> int | None:
        """What a call of a model without a price is taken to cost; None where nothing is."""
        if self.assumed_rates is None:
            return None
        input_nanos, output_nanos = self.assumed_rates
        sum_ = tokens.input_tokens * input_nanos + tokens.output_tokens * output_nanos
        return (sum_ + 500_000) // 1_000_000


_SNAPSHOTS: Final = Remembered[int, Configuration]("configuration", int, size_max=SNAPSHOTS_MAX)


def known_configuration(tenant_id: int) -> Configuration:
    """The tenant's configuration as this process knows it, a second old at most."""
    configuration = _SNAPSHOTS.current(tenant_id, lambda known: _read(tenant_id, known))
    assert configuration is not None, "a tenant has a configuration"
    return configuration


def last_known_configuration(tenant_id: int) -> Configuration | None:
    """The tenant's configuration as this process read it last, however long ago."""
    return _SNAPSHOTS.last_known(tenant_id)


def read_configuration(tenant_id: int, *, known: Configuration | None = None) -> Configuration:
    """The tenant's configuration as it is stored; `known` is answered where it still is that."""
    configuration = _read(tenant_id, known)
    _SNAPSHOTS.keep(tenant_id, configuration)
    return configuration


def _read(tenant_id: int, known: Configuration | None) -> Configuration:
    with tenant_scope(tenant_id, is_snapshot=True):
        tenant = Tenant.objects.get(id=tenant_id)
        if known is not None and known.version == tenant.configuration_version:
            return known
        used = _tables_in_use(tenant_id)
        return Configuration(
            tenant_id=tenant_id,
            version=tenant.configuration_version,
            prices=load_price_book(tenant_id, has_own=not used.isdisjoint(_PRICES)),
            budgets=read_budget_index(
                tenant_id,
                version=tenant.configuration_version,
                has_raises="limit_increase" in used,
            ),
            trusts_given_costs=tenant.trusts_given_costs,
            dimension_keys=DimensionKeys(read_attribute_mappings(tenant_id))
            if "attribute_mappings" in used
            else USUAL,
            unpriced_policy=tenant.unpriced_policy,
            assumed_rates=_assumed_rates(tenant),
            routes=read_routes(tenant_id) if "model_route" in used else RouteTable(),
            rate_limits=read_rate_rules(tenant_id) if "rate_limit" in used else (),
            breakers=read_breaker_rules(tenant_id) if "breaker" in used else (),
        )


def as_configured(tenant_id: int, work: Callable[[Configuration], T]) -> T:
    """Do work in a transaction of its own, in which the configuration that it gets stays in
    force.
    """
    configuration = known_configuration(tenant_id)
    while True:
        with tenant_scope(tenant_id):
            if lock_configuration_shared(tenant_id) == configuration.version:
                return work(configuration)
        configuration = read_configuration(tenant_id, known=configuration)


_PRICES: Final = ("tenant_price", "tool_price")
_OPTIONAL: Final = (
    *_PRICES,
    "model_route",
    "rate_limit",
    "breaker",
    "limit_increase",
    "attribute_mappings",
)
_IN_USE: Final = " UNION ALL ".join(
    f"SELECT '{table}' WHERE EXISTS (SELECT FROM {table} WHERE tenant_id = %(tenant_id)s)"
    for table in _OPTIONAL
)


def _tables_in_use(tenant_id: int) -> frozenset[str]:
    """Which tables of what few tenants configure have rows of this one: one question, where one
    each would take half of the time that a tenant's first request takes.
    """
    with connection.cursor() as cursor:
        cursor.execute(_IN_USE, {"tenant_id": tenant_id})
        return frozenset(row[0] for row in cursor.fetchall())


def _assumed_rates(tenant: Tenant) -> tuple[int, int] | None:
    rates = (tenant.assumed_input_nanos_per_mtok, tenant.assumed_output_nanos_per_mtok)
    if tenant.unpriced_policy != UnpricedPolicy.ASSUME or None in rates:
        return None
    return rates[0] or 0, rates[1] or 0


def forget_configurations() -> None:
    """Empty this process's memory (tests make tenants again under the same ids)."""
    _SNAPSHOTS.forget_all()
    forget_windows()
