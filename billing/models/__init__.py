"""Tables of billing. They have plain keys: there are few rows beside the tables of facts."""

from billing.models.coupons import Coupon, CouponUse
from billing.models.credit_notes import CreditNote, CreditNoteApplication, CreditNoteLine
from billing.models.credits import (
    CreditCover,
    CreditEntry,
    CreditEntryKind,
    CreditGrant,
    CreditKind,
    CreditState,
    Wallet,
)
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
    StatementFile,
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
    "Coupon",
    "CouponUse",
    "CreditCover",
    "CreditEntry",
    "CreditEntryKind",
    "CreditGrant",
    "CreditKind",
    "CreditNote",
    "CreditNoteApplication",
    "CreditNoteLine",
    "CreditState",
    "Customer",
    "CustomerLink",
    "Drift",
    "Interval",
    "InvoiceStep",
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
    "StatementFile",
    "StatementLine",
    "StatementState",
    "StripeAccount",
    "StripeEvent",
    "StripeInvoice",
    "StripeMeter",
    "StripeMeterValue",
    "StripeSettings",
    "Subscription",
    "Wallet",
]
