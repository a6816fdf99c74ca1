"""From a final statement to a collected invoice, by steps that may each be repeated.

What makes a step safe is what Stripe has, read just before; idempotency keys only keep a request
that is still under way from being carried out twice. See README.md.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, timedelta
from typing import Final, TypeVar

from django.db.models import F
from django.utils import timezone

from billing.collection.claims import ClaimedInvoice, ClaimLost, claim, store, wait_seconds
from billing.collection.invoice_lines import (
    LINE_MARK,
    NUMBER_CHARACTERS_MAX,
    InvoiceLine,
    NotCollectable,
    lines_of,
)
from billing.collection.readings import read_payment
from billing.collection.stripe_customers import ensure_customer
from billing.models import CollectionMethod, InvoiceStep, StatementState
from billing.stripe_gateway import (
    Busy,
    Failed,
    Invoice,
    KeyRejected,
    Line,
    Rejected,
    StripeFailure,
    StripeGateway,
    Unanswered,
)
from common.json_bodies import JsonObject

LINES_A_CALL_MAX: Final = 250
STATEMENT_MARK: Final = "spendgate_statement"
DRAFT: Final = "draft"
VOIDABLE: Final = ("open", "uncollectible")

Item = TypeVar("Item")


def bring_on(*, tenant_id: int, gateway: StripeGateway) -> bool:
    """Bring the next invoice of a tenant as far as it goes. False: none is due.

    A failure is stored with its reason and the time of the next attempt; it concerns this row
    alone. KeyRejected concerns all of a tenant, and is the caller's to store.
    """
    claimed = claim(tenant_id=tenant_id, is_live=gateway.is_live)
    if claimed is None:
        return False
    try:
        _advance(claimed, gateway)
        store(claimed, claimed_until=None, attempts=0, problem=claimed.row.problem)
    except ClaimLost:
        pass
    except KeyRejected as error:
        _give_back(claimed, str(error), wait=timedelta(0))
        raise
    except (StripeFailure, NotCollectable) as error:
        _note_failure(claimed, error)
    return True


def _advance(claimed: ClaimedInvoice, gateway: StripeGateway) -> None:
    row = claimed.row
    if claimed.statement.state == StatementState.VOID and row.step != InvoiceStep.VOIDED:
        _void(claimed, gateway)
    if row.step == InvoiceStep.CREATE:
        _create(claimed, gateway)
    if row.step in (InvoiceStep.LINES, InvoiceStep.FINALIZE):
        _complete(claimed, gateway)
    if row.step == InvoiceStep.COLLECT:
        _collect(claimed, gateway)
    if row.stripe_id:
        read_payment(claimed, gateway)


def _complete(claimed: ClaimedInvoice, gateway: StripeGateway) -> None:
    """Add the lines and finalize; they are added again where the draft turns out to hold others."""
    row = claimed.row
    try:
        while row.step in (InvoiceStep.LINES, InvoiceStep.FINALIZE):
            if row.step == InvoiceStep.LINES:
                _add_lines(claimed, gateway)
            else:
                _finalize(claimed, gateway)
    except Rejected as error:
        if error.is_missing:
            store(claimed, stripe_id="", step=InvoiceStep.CREATE)
        raise


def _create(claimed: ClaimedInvoice, gateway: StripeGateway) -> None:
    """Find the statement's invoice, or make it."""
    if len(claimed.statement.number) > NUMBER_CHARACTERS_MAX:
        raise NotCollectable(f"Numbers at Stripe have at most {NUMBER_CHARACTERS_MAX} characters.")
    lines_of(claimed.amounts)  # what Stripe cannot hold is not begun
    customer = ensure_customer(claimed, gateway)
    invoice = _find_of_former(claimed, gateway, customer) or _find(claimed, gateway, customer)
    if invoice is None:
        store(claimed, stripe_customer=customer)
        try:
            given = _invoice_given(claimed, customer)
            invoice = gateway.create_invoice(given, key=claimed.key("create"))
        except Rejected:
            # Of this number there may be one by now, by a request that had no answer.
            invoice = _find(claimed, gateway, customer)
            if invoice is None:
                raise
    if (invoice.metadata or {}).get(STATEMENT_MARK) != claimed.mark:
        raise NotCollectable(f"Stripe's invoice {invoice.id} is not of this statement.")
    store(claimed, stripe_id=invoice.id, stripe_customer=invoice.customer, step=InvoiceStep.LINES)


def _find_of_former(
    claimed: ClaimedInvoice, gateway: StripeGateway, customer: str
) -> Invoice | None:
    """Return the statement's invoice for the customer that the account had at Stripe before."""
    former = claimed.row.stripe_customer
    if former in ("", customer):
        return None
    try:
        return _find(claimed, gateway, former)
    except Rejected:
        return None  # there is no such customer any more


def _find(claimed: ClaimedInvoice, gateway: StripeGateway, customer: str) -> Invoice | None:
    """Return the statement's invoice: one that left the draft before the oldest draft.

    Other drafts of the statement are deleted, so that there is one.
    """
    own = [
        invoice
        for invoice in gateway.list_invoices(customer)
        if (invoice.metadata or {}).get(STATEMENT_MARK) == claimed.mark
    ]
    if not own:
        return None
    kept = min(own, key=lambda invoice: (invoice.status == DRAFT, invoice.created, invoice.id))
    for invoice in own:
        if invoice.id != kept.id and invoice.status == DRAFT:
            gateway.delete_draft(invoice.id)
    return kept


def _invoice_given(claimed: ClaimedInvoice, customer: str) -> JsonObject:
    statement = claimed.statement
    is_mailed = claimed.method == CollectionMethod.SEND_INVOICE
    given: JsonObject = {
        "customer": customer,
        "currency": statement.currency.lower(),
        "number": statement.number,
        "auto_advance": False,
        "metadata": {STATEMENT_MARK: claimed.mark, "spendgate_number": statement.number},
        # Nothing that Stripe would add by itself.
        "pending_invoice_items_behavior": "exclude",
        "discounts": "",
        "automatic_tax": {"enabled": False},
        "collection_method": "charge_automatically",
    }
    if is_mailed or claimed.method == CollectionMethod.MANUAL:
        given["collection_method"] = "send_invoice"
        given["days_until_due"] = _days_until_due(claimed)
    return given


def _days_until_due(claimed: ClaimedInvoice) -> int:
    """Return the days until the statement is due; what is due already is due today."""
    due_on, finalized_at = claimed.statement.due_on, claimed.statement.finalized_at
    if due_on is None or finalized_at is None:
        return claimed.account.customer.payment_terms_days
    # Not from today: a repeated request must be the same.
    return max(0, (due_on - finalized_at.astimezone(UTC).date()).days)


def _add_lines(claimed: ClaimedInvoice, gateway: StripeGateway) -> None:
    """Let the draft have each line of the statement once, and none besides."""
    row = claimed.row
    wanted = {line.key: line for line in lines_of(claimed.amounts)}
    if gateway.read_invoice(row.stripe_id).status == DRAFT:
        missing, surplus = _difference(wanted, gateway.list_lines(row.stripe_id))
        # The keys say which lines, as a repetition may have others left to do.
        for line_ids in _parts(surplus):
            key = claimed.key(f"remove:{line_ids[0]}:{len(line_ids)}")
            gateway.remove_lines(row.stripe_id, line_ids, key=key)
        for lines in _parts(missing):
            key = claimed.key(f"add:{row.stripe_id}:{lines[0].key}:{len(lines)}")
            gateway.add_lines(row.stripe_id, _lines_given(claimed, lines), key=key)
        if any(_difference(wanted, gateway.list_lines(row.stripe_id))):
            raise Failed("Stripe has other lines than were just added.")
    store(claimed, step=InvoiceStep.FINALIZE)


def _parts(items: list[Item]) -> Iterator[list[Item]]:
    for start in range(0, len(items), LINES_A_CALL_MAX):
        yield items[start : start + LINES_A_CALL_MAX]


def _difference(
    wanted: dict[str, InvoiceLine], stored: Iterable[Line]
) -> tuple[list[InvoiceLine], list[str]]:
    """Return the lines that Stripe lacks, and the ids of those that it should not have."""
    missing, surplus = dict(wanted), []
    for line in stored:
        key = line.metadata.get(LINE_MARK, "")
        if key in missing and missing[key].amount == line.amount:
            del missing[key]
        else:
            surplus.append(line.id)
    return list(missing.values()), surplus


def _lines_given(claimed: ClaimedInvoice, lines: Iterable[InvoiceLine]) -> list[JsonObject]:
    starts_at = int(claimed.statement.period_start.timestamp())
    ends_at = int(claimed.statement.period_end.timestamp())
    return [line.given(starts_at=starts_at, ends_at=ends_at) for line in lines]


def _finalize(claimed: ClaimedInvoice, gateway: StripeGateway) -> None:
    """Finalize the draft if its total is the statement's; it is compared again afterwards."""
    row = claimed.row
    invoice = _find(claimed, gateway, row.stripe_customer)
    if invoice is None or invoice.id != row.stripe_id:
        # A draft was deleted by hand, or another was kept in its place.
        store(claimed, stripe_id="", step=InvoiceStep.CREATE)
        raise Failed("The draft is no longer at Stripe; it is made again.")
    total = sum(line.amount for line in lines_of(claimed.amounts))
    if invoice.status == DRAFT:
        if invoice.total != total:
            store(claimed, step=InvoiceStep.LINES)
            return
        try:
            invoice = gateway.finalize(row.stripe_id, key=claimed.key(f"finalize:{row.stripe_id}"))
        except Rejected:
            invoice = gateway.read_invoice(row.stripe_id)
            if invoice.status == DRAFT:
                raise
    if (invoice.total, invoice.number) != (total, claimed.statement.number):
        raise NotCollectable(
            f"Stripe finalized invoice {invoice.number} with {invoice.total}, but statement"
            f" {claimed.statement.number} is {total}. It is not collected."
        )
    store(claimed, step=InvoiceStep.COLLECT, total=invoice.total)


def _collect(claimed: ClaimedInvoice, gateway: StripeGateway) -> None:
    """Let Stripe charge or mail the open invoice; what is paid or zero needs neither."""
    row = claimed.row
    if gateway.read_invoice(row.stripe_id).status == "open":
        if claimed.method == CollectionMethod.CHARGE:
            gateway.advance(row.stripe_id, key=claimed.key("advance"))
        elif claimed.method == CollectionMethod.SEND_INVOICE:
            gateway.send(row.stripe_id, key=claimed.key("send"))
    store(claimed, step=InvoiceStep.DONE, reads_wanted=F("reads_wanted") + 1, problem="")


def _void(claimed: ClaimedInvoice, gateway: StripeGateway) -> None:
    """Take back the invoice of a statement that is void by now."""
    problem = ""
    customer = claimed.row.stripe_customer
    invoice = _find(claimed, gateway, customer) if customer else None
    if invoice is not None:
        store(claimed, stripe_id=invoice.id)
        if invoice.status == DRAFT:
            gateway.delete_draft(invoice.id)
        elif invoice.status in VOIDABLE:
            gateway.void(invoice.id, key=claimed.key("void"))
        elif invoice.status == "paid":
            problem = "The invoice was paid before its statement was voided: refund it in Stripe."
    store(claimed, step=InvoiceStep.VOIDED, problem=problem)


def _note_failure(claimed: ClaimedInvoice, error: Exception) -> None:
    """Store why a row failed and when it is tried again."""
    wait = wait_seconds(claimed.row.attempts)
    if isinstance(error, Busy):
        wait = max(wait, int(error.retry_after_seconds or 0))
    elif not isinstance(error, Unanswered):
        # Stripe has answered, and would give the same answer to the same key.
        claimed.row.key_number += 1
    _give_back(claimed, str(error), wait=timedelta(seconds=wait))


def _give_back(claimed: ClaimedInvoice, problem: str, *, wait: timedelta) -> None:
    try:
        store(
            claimed,
            key_number=claimed.row.key_number,
            problem=problem[:600],
            next_attempt_at=timezone.now() + wait,
            claimed_until=None,
        )
    except ClaimLost:
        return
