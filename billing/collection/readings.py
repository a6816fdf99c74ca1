"""Reading again how an invoice is paid. What is read replaces what was known, so it does not
matter how often or in which order word of changes comes.
"""

from datetime import UTC, datetime

from django.utils import timezone

from billing.collection.accounts import judge_account
from billing.collection.claims import ClaimedInvoice, store
from billing.collection.payment_state import LOST_DISPUTE, OPEN, OPEN_DISPUTES, REFUNDED
from billing.models import StripeInvoice
from billing.stripe_gateway import Rejected, StripeGateway
from common.json_bodies import JsonObject
from tenants.scope import tenant_scope

# Of an invoice that is no longer at Stripe.
DELETED = "deleted"


def read_payment(claimed: ClaimedInvoice, gateway: StripeGateway) -> None:
    """Read an invoice and its payments, store them, and judge the account by them.

    Wishes that come during the reading are kept for the next.
    """
    row = claimed.row
    with tenant_scope(row.tenant_id):
        wanted = StripeInvoice.objects.values_list("reads_wanted", flat=True).get(id=row.id)
    store(claimed, **_read(row, gateway), read_at=timezone.now(), reads_done=wanted)
    judge_account(tenant_id=row.tenant_id, account_id=row.account_id)


def _read(row: StripeInvoice, gateway: StripeGateway) -> JsonObject:
    try:
        invoice = gateway.read_invoice(row.stripe_id)
    except Rejected as error:
        if error.is_missing:
            return {"status": DELETED}
        raise
    refunded = disputed = lost = 0
    for payment in gateway.list_payments(invoice_id=invoice.id):
        intent = payment.payment.payment_intent
        if intent is None:
            continue
        refunded += sum(
            refund.amount for refund in gateway.list_refunds(intent) if refund.status in REFUNDED
        )
        for dispute in gateway.list_disputes(intent):
            disputed += dispute.amount if dispute.status in OPEN_DISPUTES else 0
            lost += dispute.amount if dispute.status == LOST_DISPUTE else 0
    due = invoice.due_date
    return {
        "status": invoice.status or "",
        "total": invoice.total,
        "amount_due": invoice.amount_due,
        "amount_paid": invoice.amount_paid,
        "amount_refunded": refunded,
        "amount_disputed": disputed,
        "amount_lost": lost,
        "has_payment_failed": invoice.status == OPEN and invoice.attempt_count > 0,
        "due_at": None if due is None else datetime.fromtimestamp(due, UTC),
    }
