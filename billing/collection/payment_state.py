"""How a customer pays, by what was last read of its invoices. Pure: no database, no clock.

Only the present facts count, never the order in which word of them came.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from billing.models.stripe import AccountState

OPEN: Final = "open"
PAID: Final = "paid"
UNCOLLECTIBLE: Final = "uncollectible"
# https://docs.stripe.com/api/disputes/object: while one of these, the money may come back.
OPEN_DISPUTES: Final = frozenset(
    ("needs_response", "under_review", "warning_needs_response", "warning_under_review")
)
LOST_DISPUTE: Final = "lost"
REFUNDED: Final = frozenset(("succeeded", "pending"))


class PaymentFacts(NamedTuple):
    """What was last read of an invoice. `sequence` is the statement's number in its series."""

    sequence: int
    status: str
    due_at: datetime | None
    has_payment_failed: bool
    amount_refunded: int
    amount_disputed: int
    amount_lost: int

    def is_overdue(self, now: datetime) -> bool:
        """Whether it is owed, and a payment failed, was taken back, or did not come in time."""
        if self.amount_lost or self.status == UNCOLLECTIBLE:
            return True
        is_late = self.due_at is not None and self.due_at <= now
        return self.status == OPEN and (self.has_payment_failed or is_late)


def state_of(invoices: Iterable[PaymentFacts], *, now: datetime) -> AccountState:
    """Return how a customer pays: a dispute counts before what is overdue, that before a refund."""
    known = sorted(invoices, key=lambda invoice: invoice.sequence)
    if any(invoice.amount_disputed for invoice in known):
        return AccountState.DISPUTED
    if any(invoice.is_overdue(now) for invoice in known):
        return AccountState.OVERDUE
    paid = [invoice for invoice in known if invoice.status == PAID]
    if paid and paid[-1].amount_refunded:
        return AccountState.REFUNDED
    return AccountState.CURRENT


def next_due(invoices: Iterable[PaymentFacts], *, now: datetime) -> datetime | None:
    """Return when the state may change without word from Stripe: an open invoice becomes due."""
    return min(
        (
            invoice.due_at
            for invoice in invoices
            if invoice.status == OPEN and invoice.due_at is not None and invoice.due_at > now
        ),
        default=None,
    )
