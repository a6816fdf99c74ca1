"""Which invoice is next, and which worker brings it on.

A claim is a row's `claimed_until`. Who stores a result names it, so a worker that was away for
longer than its claim stores nothing.
"""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.db.models import F, Q, QuerySet
from django.utils import timezone

from billing.collection.invoice_lines import StatementAmounts
from billing.models import (
    CollectionMethod,
    InvoiceStep,
    Statement,
    StatementState,
    StripeAccount,
    StripeInvoice,
    StripeSettings,
)
from tenants.scope import tenant_scope

# Longer than all calls of a step together.
LEASE: Final = timedelta(minutes=10)
# Rows looked at for one that is free.
CANDIDATES_MAX: Final = 50
# Statements that are queued in one transaction.
QUEUED_MAX: Final = 500
ENDED: Final = (InvoiceStep.DONE, InvoiceStep.VOIDED)
FIRST_WAIT_SECONDS: Final = 10
LONGEST_WAIT_SECONDS: Final = 6 * 3600


class ClaimLost(Exception):
    """Another worker has the row by now, or it is gone."""


class ClaimedInvoice(NamedTuple):
    """A row that this worker brings on, with all that a step needs of the database."""

    row: StripeInvoice
    statement: Statement
    account: StripeAccount
    until: datetime
    method: CollectionMethod
    amounts: StatementAmounts

    @property
    def mark(self) -> str:
        """What Stripe's invoice says of whose it is."""
        return f"{self.row.tenant_id}:{self.statement.id}"

    def key(self, action: str) -> str:
        """Return the idempotency key of a request."""
        mode = "live" if self.row.is_live else "test"
        return f"spendgate:{mode}:{self.mark}:{action}:{self.row.key_number}"


def queue_statements(*, tenant_id: int, is_live: bool) -> int:
    """Make a row for each final statement that is to be collected; return their number."""
    with tenant_scope(tenant_id):
        settings = StripeSettings.objects.get(tenant_id=tenant_id)
        new = list(uncollected(settings, is_live).order_by("sequence")[:QUEUED_MAX])
        accounts = _accounts_of(tenant_id, {each.customer_id for each in new}, is_live)
        StripeInvoice.objects.bulk_create(
            [
                StripeInvoice(
                    tenant_id=tenant_id,
                    statement=statement,
                    account_id=accounts[statement.customer_id],
                    is_live=is_live,
                )
                for statement in new
            ],
            ignore_conflicts=True,  # another worker may queue the same
        )
    return len(new)


def uncollected(settings: StripeSettings, is_live: bool) -> QuerySet[Statement]:
    """Return the final statements that are to have an invoice and have no row for it yet."""
    return (
        Statement.objects.filter(
            tenant_id=settings.tenant_id,
            state=StatementState.FINAL,
            finalized_at__gte=settings.collects_from,
            stripe_invoice=None,
        )
        .exclude(id__in=_kept_out(settings, is_live))
        .exclude(lines__subscription__plan__stripe_meters__is_live=is_live)
    )


def _kept_out(settings: StripeSettings, is_live: bool) -> QuerySet[Statement, int]:
    """Return the statements of customers who are not collected from."""
    accounts = StripeAccount.objects.filter(tenant_id=settings.tenant_id, is_live=is_live)
    none = Q(collection_method=CollectionMethod.NONE)
    statements = Statement.objects.filter(tenant_id=settings.tenant_id)
    if settings.collection_method != CollectionMethod.NONE:
        kept_out = accounts.filter(none).values("customer_id")
        return statements.filter(customer_id__in=kept_out).values_list("id", flat=True)
    asked = accounts.exclude(none | Q(collection_method="")).values("customer_id")
    return statements.exclude(customer_id__in=asked).values_list("id", flat=True)


def _accounts_of(tenant_id: int, customers: set[int], is_live: bool) -> dict[int, int]:
    StripeAccount.objects.bulk_create(
        [
            StripeAccount(tenant_id=tenant_id, customer_id=customer, is_live=is_live)
            for customer in sorted(customers)
        ],
        ignore_conflicts=True,
    )
    accounts = StripeAccount.objects.filter(customer_id__in=customers, is_live=is_live)
    return dict(accounts.values_list("customer_id", "id"))


def due(tenant_id: int, *, is_live: bool, now: datetime) -> QuerySet[StripeInvoice]:
    """Return the rows that something is to be done for and no worker has, oldest wish first."""
    to_void = Q(statement__state=StatementState.VOID) & ~Q(step=InvoiceStep.VOIDED)
    is_open = ~Q(step__in=ENDED) | Q(reads_wanted__gt=F("reads_done")) | to_void
    is_free = Q(claimed_until=None) | Q(claimed_until__lte=now)
    return StripeInvoice.objects.filter(
        is_open & is_free, tenant_id=tenant_id, is_live=is_live, next_attempt_at__lte=now
    ).order_by("next_attempt_at", "id")


def claim(*, tenant_id: int, is_live: bool) -> ClaimedInvoice | None:
    """Take the next row. None if there is none.

    A customer has one invoice under way at a time: its account's row is locked while a row of it
    is claimed, so two workers never make two customers at Stripe.
    """
    now = timezone.now()
    with tenant_scope(tenant_id):
        settings = StripeSettings.objects.get(tenant_id=tenant_id)
        for row in due(tenant_id, is_live=is_live, now=now)[:CANDIDATES_MAX]:
            account = _lock_account(row, now)
            locked = account and _lock_row(row.id, tenant_id, is_live=is_live, now=now)
            if not account or not locked:
                continue
            locked.claimed_until = now + LEASE
            locked.attempts += 1
            locked.save(update_fields=["claimed_until", "attempts"])
            return _claimed(locked, account, settings)
    return None


def _lock_account(row: StripeInvoice, now: datetime) -> StripeAccount | None:
    """Lock the account of a row, unless another has it or one of its invoices is under way."""
    account = (
        StripeAccount.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("customer")
        .filter(id=row.account_id)
        .first()
    )
    # A second statement, so that it sees the claim of the last holder of the lock.
    is_taken = StripeInvoice.objects.filter(
        account_id=row.account_id, claimed_until__gt=now
    ).exists()
    return None if is_taken else account


def _lock_row(row_id: int, tenant_id: int, *, is_live: bool, now: datetime) -> StripeInvoice | None:
    rows = due(tenant_id, is_live=is_live, now=now).filter(id=row_id)
    return rows.select_for_update(skip_locked=True, of=("self",)).first()


def _claimed(
    row: StripeInvoice, account: StripeAccount, settings: StripeSettings
) -> ClaimedInvoice:
    statement = Statement.objects.get(id=row.statement_id)
    amounts = StatementAmounts(
        currency=statement.currency,
        lines=list(statement.lines.order_by("position").values_list("name", "amount")),
        coupon=statement.coupon,
        coupon_amount=statement.coupon_amount,
        taxes=statement.taxes,
        credit_notes_applied=statement.credit_notes_applied,
        credit_applied=statement.credit_applied,
        amount_due=statement.amount_due,
    )
    method = CollectionMethod(account.collection_method or settings.collection_method)
    assert row.claimed_until is not None, "it was claimed just now"
    return ClaimedInvoice(row, statement, account, row.claimed_until, method, amounts)


def store(claimed: ClaimedInvoice, **changes: object) -> None:
    """Store what a claimed row has come to, in a transaction of its own. Raises ClaimLost."""
    row = claimed.row
    with tenant_scope(row.tenant_id):
        held = StripeInvoice.objects.filter(id=row.id, claimed_until=claimed.until)
        if held.update(**changes) != 1:
            raise ClaimLost
        if changes.keys() - {"claimed_until"}:
            row.refresh_from_db(fields=list(changes))


def wait_seconds(attempts: int) -> int:
    """Return how long a row waits after this number of attempts."""
    doublings = max(0, min(attempts - 1, 20))
    return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS << doublings)
