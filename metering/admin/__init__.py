"""Admin pages of limits and prices.

Facts (usage, windows, ledger) have composite keys, which the admin cannot serve. Each module
registers its pages when it is imported, so every one of them is named here.
"""

from metering.admin import (
    breakers,
    budgets,
    crossings,
    halts,
    jobs,
    limit_increases,
    prices,
    rate_limits,
    routes,
)

__all__ = [
    "breakers",
    "budgets",
    "crossings",
    "halts",
    "jobs",
    "limit_increases",
    "prices",
    "rate_limits",
    "routes",
]
