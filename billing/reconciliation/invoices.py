"""Invoices in Stripe against the statements that they are for, to the minor unit."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from billing.collection.totals import InvoiceTotal, stripe_totals_of
from billing.currencies import amount_of
from billing.models import Statement
from billing.reconciliation.results import Difference, KindResult
from tenants.models import Tenant

OTHER_CURRENCY = "The invoice is in {currency}."
NO_INVOICE = "There is no invoice of it."


class InvoiceTotals(Protocol):
    """Asks Stripe what the invoices of statements come to, by the statement's id. A statement
    without an invoice is left out; None: it is not to have one. Outside of any transaction.
    """

    def __call__(
        self, tenant: Tenant, statements: Sequence[Statement], /
    ) -> Mapping[int, InvoiceTotal | None]: ...


def invoice_totals_of(tenant: Tenant) -> InvoiceTotals | None:
    """Return what asks the tenant's Stripe account; None if none is connected."""
    return stripe_totals_of(tenant)


def compare_invoices(
    statements: Sequence[Statement],
    totals: Mapping[int, InvoiceTotal | None],
    result: KindResult,
) -> Iterator[Difference]:
    """Yield what differs, and count everything in the result."""
    for statement in statements:
        if statement.id in totals and totals[statement.id] is None:
            continue
        result.compared += 1
        invoice = totals.get(statement.id)
        is_same_currency = invoice is not None and invoice.currency.upper() == statement.currency
        total = invoice.total if invoice is not None and is_same_currency else 0
        expected = Decimal(amount_of(statement.total, statement.currency))
        invoiced = Decimal(amount_of(total, statement.currency))
        result.add(statement.currency, expected=expected, found=invoiced)
        if invoiced != expected:
            yield Difference(
                unit=statement.currency,
                expected=expected,
                found=invoiced,
                statement_id=statement.id,
                line=invoice.invoice_id if invoice is not None else "",
                note=_note(invoice, is_same_currency=is_same_currency),
            )


def _note(invoice: InvoiceTotal | None, *, is_same_currency: bool) -> str:
    if invoice is None:
        return NO_INVOICE
    return "" if is_same_currency else OTHER_CURRENCY.format(currency=invoice.currency.upper())
