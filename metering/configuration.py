"""What a tenant's usage is judged by, as one snapshot: prices, budgets, settings.

Each process keeps the snapshots it works with. A snapshot may be old; that is harmless, because the
transaction that writes compares its version with the tenant's under the configuration lock.
"""

import threading
import time
from typing import Final, NamedTuple

from metering.budget_rules import BudgetBook
from metering.budgets import read_book
from metering.pricing import PriceBook, load_price_book
from tenants.models import Tenant
from tenants.scope import tenant_scope

SNAPSHOTS_MAX: Final = 1_000
# How long a process trusts its snapshot where nothing compares versions (how to read a payload,
# say).
SNAPSHOT_SECONDS: Final = 1.0


class Configuration(NamedTuple):
    """One version of a tenant's configuration."""

    tenant_id: int
    version: int
    prices: PriceBook
    budgets: BudgetBook
    trusts_given_costs: bool


_snapshots: dict[int, tuple[Configuration, float]] = {}
_lock = threading.Lock()


def known_configuration(tenant_id: int) -> Configuration:
    """The tenant's configuration as this process knows it, a second old at most."""
    known = _snapshots.get(tenant_id)
    if known is not None and known[1] > time.monotonic() - SNAPSHOT_SECONDS:
        return known[0]
    return read_configuration(tenant_id, known=known[0] if known else None)


def read_configuration(tenant_id: int, *, known: Configuration | None = None) -> Configuration:
    """The tenant's configuration as it is stored; `known` is answered where it still is that."""
    with tenant_scope(tenant_id, is_snapshot=True):
        tenant = Tenant.objects.get(id=tenant_id)
        if known is not None and known.version == tenant.configuration_version:
            return _remember(known)
        return _remember(
            Configuration(
                tenant_id=tenant_id,
                version=tenant.configuration_version,
                prices=load_price_book(tenant_id),
                budgets=read_book(tenant_id, version=tenant.configuration_version),
                trusts_given_costs=tenant.trusts_given_costs,
            )
        )


def _remember(configuration: Configuration) -> Configuration:
    with _lock:
        if len(_snapshots) >= SNAPSHOTS_MAX:
            _snapshots.clear()
        _snapshots[configuration.tenant_id] = (configuration, time.monotonic())
    return configuration


def forget_configurations() -> None:
    """Empty this process's memory (tests make tenants anew under the same ids)."""
    with _lock:
        _snapshots.clear()
