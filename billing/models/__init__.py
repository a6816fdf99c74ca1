"""Tables of billing. They have plain keys: there are few rows beside the tables of facts."""

from billing.models.customers import Customer, CustomerLink
from billing.models.plans import Anchor, Interval, Plan, PlanVersion, Subscription
from billing.models.settings import BillingSettings
from billing.models.statements import (
    LineKind,
    Series,
    SeriesName,
    Statement,
    StatementFile,
    StatementLine,
    StatementState,
)

__all__ = [
    "Anchor",
    "BillingSettings",
    "Customer",
    "CustomerLink",
    "Interval",
    "LineKind",
    "Plan",
    "PlanVersion",
    "Series",
    "SeriesName",
    "Statement",
    "StatementFile",
    "StatementLine",
    "StatementState",
    "Subscription",
]
