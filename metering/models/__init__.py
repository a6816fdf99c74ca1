"""Rows of metering: configuration (prices, budgets) and facts (usage, ledger, roll-ups)."""

from metering.models.budgets import (
    Action,
    Budget,
    BudgetLevel,
    BudgetWindow,
    Crossing,
    EntryKind,
    LedgerEntry,
    Mode,
    Period,
)
from metering.models.prices import CataloguePrice, TenantPrice, ToolPrice
from metering.models.rollups import MEASURES, UsageHistogram, UsageRollup
from metering.models.usage import (
    BATCH_ID_STRIDE,
    Correction,
    CostSource,
    EventKey,
    IngestBatch,
    Operation,
    Outcome,
    Route,
    Status,
    UsageEvent,
)

__all__ = [
    "BATCH_ID_STRIDE",
    "MEASURES",
    "Action",
    "Budget",
    "BudgetLevel",
    "BudgetWindow",
    "CataloguePrice",
    "Correction",
    "CostSource",
    "Crossing",
    "EntryKind",
    "EventKey",
    "IngestBatch",
    "LedgerEntry",
    "Mode",
    "Operation",
    "Outcome",
    "Period",
    "Route",
    "Status",
    "TenantPrice",
    "ToolPrice",
    "UsageEvent",
    "UsageHistogram",
    "UsageRollup",
]
