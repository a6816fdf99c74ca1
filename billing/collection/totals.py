"""What Stripe's invoices come to, read from Stripe for the comparison with statements."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from billing.collection.claims import uncollected
from billing.collection.credentials import working_credentials
from billing.collection.invoice_lines import minor_amount
from billing.models import Statement, StripeInvoice, StripeSettings
from billing.stripe_gateway import Credentials, Rejected, StripeGateway
from tenants.models import Tenant
from tenants.scope import tenant_scope


class InvoiceTotal(NamedTuple):
    """What an invoice comes to, in minor units of its currency."""

    invoice_id: str
    currency: str
    total: int


class StripeTotals:
    """Asks with a tenant's key."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def __call__(
        self, tenant: Tenant, statements: Sequence[Statement], /
    ) -> Mapping[int, InvoiceTotal | None]:
        """Return the totals by statement; None for those that are not to have an invoice in this
        mode. The credit that the invoice has as lines is added to what it comes to.
        """
        is_live = self._credentials.is_live
        with tenant_scope(tenant.id):
            settings = StripeSettings.objects.get(tenant=tenant)
            ids = [statement.id for statement in statements]
            rows = {
                row.statement_id: row.stripe_id
                for row in StripeInvoice.objects.filter(statement__in=ids, is_live=is_live)
            }
            missing = set(
                uncollected(settings, is_live).filter(id__in=ids).values_list("id", flat=True)
            )
        gateway = StripeGateway(self._credentials)
        totals: dict[int, InvoiceTotal | None] = {}
        for statement in statements:
            if statement.id not in rows and statement.id not in missing:
                totals[statement.id] = None
            elif stripe_id := rows.get(statement.id):
                total = _total(statement, stripe_id, gateway)
                if total is not None:
                    totals[statement.id] = total
        return totals


def stripe_totals_of(tenant: Tenant) -> StripeTotals | None:
    """Return what asks a tenant's Stripe account; None if the tenant does not collect, or its key
    rests. In the tenant's scope.
    """
    credentials = working_credentials(tenant.id)
    return None if credentials is None else StripeTotals(credentials)


def _total(statement: Statement, stripe_id: str, gateway: StripeGateway) -> InvoiceTotal | None:
    try:
        invoice = gateway.read_invoice(stripe_id)
    except Rejected as error:
        if error.is_missing:
            return None
        raise
    currency = invoice.currency.upper()
    total = minor_amount(invoice.total, currency)
    total += statement.credit_notes_applied + statement.credit_applied
    return InvoiceTotal(invoice.id, currency, total)
