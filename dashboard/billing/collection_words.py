"""How Stripe's collection of a statement, and a customer's payments, stand, in words."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from django.db.models import Sum
from django.utils import timezone

from billing.collection.claims import uncollected
from billing.collection.credentials import credentials_of
from billing.collection.payment_state import OPEN, PAID, UNCOLLECTIBLE
from billing.models import (
    AccountState,
    CreditNote,
    Customer,
    InvoiceStep,
    Statement,
    StatementState,
    StripeAccount,
    StripeInvoice,
    StripeSettings,
)
from common.sealing import Unreadable

# Ids that the fake Stripe gives to invoices: they are on no page of Stripe's.
FAKE_INVOICE: Final = "in_fake"
PAID_STATE: Final = "Paid"
INVOICE_ADDRESS: Final = "https://dashboard.stripe.com/{}invoices/{}"
TONES: Final = {
    AccountState.CURRENT: "ok",
    AccountState.OVERDUE: "critical",
    AccountState.DISPUTED: "critical",
    AccountState.REFUNDED: "warning",
}


class Collection(NamedTuple):
    """Where the collection of a statement stands. `tone` is a badge's; `link` leads to Stripe."""

    state: str
    detail: str
    tone: str = "outline"
    link: str = ""
    is_test: bool = False

    @property
    def is_paid(self) -> bool:
        """Whether the customer paid, and has nothing back."""
        return self.state == PAID_STATE


class Payments(NamedTuple):
    """How a customer pays."""

    state: str
    tone: str
    since: datetime
    is_halted: bool
    is_test: bool
    # How its statements are collected, in words; empty: as the tenant's.
    method: str


def is_live_now(settings: StripeSettings | None) -> bool | None:
    """Return whether the key that is used now is live; None: no key can be used."""
    try:
        credentials = credentials_of(settings)
    except Unreadable:
        return None
    return None if credentials is None else credentials.is_live


def collections_of(statements: Sequence[Statement]) -> dict[int, Collection]:
    """Return where the collection of these statements stands, by id, of those with an invoice."""
    now = timezone.now()
    invoices = StripeInvoice.objects.filter(statement__in=statements)
    return {each.statement_id: describe(each, now) for each in invoices}


def collection_of(statement: Statement) -> Collection | None:
    """Return where the collection of a statement stands; None of a draft, which has none."""
    if (known := collections_of([statement]).get(statement.id)) is not None:
        return known
    if statement.state != StatementState.FINAL:
        return None
    reason = _why_not(statement)
    if reason:
        return Collection("Not collected", reason)
    return Collection("Waiting", "Its invoice is made within a minute.", "info")


def _why_not(statement: Statement) -> str:
    """Return why a final statement without an invoice gets none; empty: it gets one."""
    settings = StripeSettings.objects.filter(tenant_id=statement.tenant_id).first()
    is_live = is_live_now(settings)
    if settings is None or is_live is None:
        return "Stripe is not connected."
    if not settings.collects:
        return "Collecting with Stripe is off."
    if uncollected(settings, is_live).filter(id=statement.id).exists():
        return ""
    since, final_at = settings.collects_from, statement.finalized_at
    if since is not None and final_at is not None and final_at < since:
        return "It became final before collecting was turned on."
    return "No invoice is made for this customer or plan."


def describe(invoice: StripeInvoice, now: datetime) -> Collection:
    """Say where an invoice stands, by what was last read of it. Pure."""
    mode = "" if invoice.is_live else "test/"
    has_page = invoice.stripe_id and not invoice.stripe_id.startswith(FAKE_INVOICE)
    link = INVOICE_ADDRESS.format(mode, invoice.stripe_id) if has_page else ""
    state, detail, tone = next(words for holds, *words in STATES if holds(invoice, now))
    if invoice.problem:
        detail, tone = invoice.problem, tone if tone == "critical" else "warning"
    return Collection(state, detail, tone, link, not invoice.is_live)


def _is_late(invoice: StripeInvoice, now: datetime) -> bool:
    return invoice.status == OPEN and invoice.due_at is not None and invoice.due_at <= now


# The first that holds of an invoice is said of it: the state, what it means, and a badge's tone.
STATES: Final[Sequence[tuple[Callable[[StripeInvoice, datetime], bool], str, str, str]]] = (
    (
        lambda row, _: row.step == InvoiceStep.VOIDED,
        *("Voided", "The statement is void, and so is its invoice.", "outline"),
    ),
    (
        lambda row, _: row.amount_disputed > 0,
        *("Disputed", "The customer disputes the payment.", "critical"),
    ),
    (
        lambda row, _: row.amount_lost > 0,
        *("Dispute lost", "The payment was taken back.", "critical"),
    ),
    (
        lambda row, _: row.status == PAID and row.amount_refunded > 0,
        *("Refunded", "It was paid, and given back in whole or in part.", "warning"),
    ),
    (lambda row, _: row.status == PAID, PAID_STATE, "The customer paid it.", "ok"),
    (
        lambda row, _: row.status == UNCOLLECTIBLE,
        *("Uncollectible", "It was given up in Stripe.", "critical"),
    ),
    (
        lambda row, _: row.status == OPEN and row.has_payment_failed,
        *("Payment failed", "Stripe could not collect it.", "critical"),
    ),
    (_is_late, "Overdue", "It was not paid in time.", "critical"),
    (lambda row, _: row.status == OPEN, "Open", "It waits for payment.", "info"),
    (
        lambda row, _: row.step != InvoiceStep.DONE,
        *("Draft", "The invoice is being made.", "info"),
    ),
    (lambda *_: True, "Finalized", "Its payment was not read yet.", "outline"),
)


def payments_of(customer: Customer) -> Payments | None:
    """Return how a customer pays, in the mode of the present key; None where it is not known."""
    settings = StripeSettings.objects.filter(tenant_id=customer.tenant_id).first()
    is_live = is_live_now(settings)
    account = StripeAccount.objects.filter(customer=customer, is_live=bool(is_live)).first()
    if is_live is None or account is None:
        return None
    state = AccountState(account.state)
    return Payments(
        state.value,
        TONES[state],
        account.state_since,
        bool(account.halts),
        not is_live,
        account.get_collection_method_display(),
    )


def left_of(statement: Statement) -> int:
    """Return what credit notes have not given back of a statement, before tax."""
    given = CreditNote.objects.filter(statement=statement).aggregate(sum=Sum("net"))["sum"] or 0
    return max(0, statement.taxable - given)
