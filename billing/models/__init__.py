"""Tables of billing. They have plain keys: there are few rows beside the tables of facts."""

from billing.models.customers import Customer, CustomerLink
from billing.models.plans import Anchor, Interval, Plan, PlanVersion, Subscription
from billing.models.reconciliation import (
    Drift,
    ProviderBillLine,
    Reconciliation,
    ReconciliationKind,
    ReconciliationSettings,
    ReconciliationState,
)
from billing.models.settings import BillingSettings
from billing.models.statements import (
    LineKind,
    Series,
    SeriesName,
    Statement,
    StatementLine,
    StatementState,
)

__all__ = [
    "Anchor",
    "BillingSettings",
    "Customer",
    "CustomerLink",
    "Drift",
    "Interval",
    "LineKind",
    "Plan",
    "PlanVersion",
    "ProviderBillLine",
    "Reconciliation",
    "ReconciliationKind",
    "ReconciliationSettings",
    "ReconciliationState",
    "Series",
    "SeriesName",
    "Statement",
    "StatementLine",
    "StatementState",
    "Subscription",
]
