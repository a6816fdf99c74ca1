"""Tables of billing. They have plain keys: there are few rows beside the tables of facts."""

from billing.models.customers import Customer, CustomerLink
from billing.models.plans import Anchor, Interval, Plan, PlanVersion, Subscription
from billing.models.settings import BillingSettings
from billing.models.statements import (
    LineKind,
    Series,
    SeriesName,
    Statement,
    StatementLine,
    StatementState,
)
from billing.models.stripe import (
    AccountState,
    CollectionMethod,
    InvoiceStep,
    StripeAccount,
    StripeEvent,
    StripeInvoice,
    StripeMeter,
    StripeMeterValue,
    StripeSettings,
)

__all__ = [
    "AccountState",
    "Anchor",
    "BillingSettings",
    "CollectionMethod",
    "Customer",
    "CustomerLink",
    "Interval",
    "InvoiceStep",
    "LineKind",
    "Plan",
    "PlanVersion",
    "Series",
    "SeriesName",
    "Statement",
    "StatementLine",
    "StatementState",
    "StripeAccount",
    "StripeEvent",
    "StripeInvoice",
    "StripeMeter",
    "StripeMeterValue",
    "StripeSettings",
    "Subscription",
]
