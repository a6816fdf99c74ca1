"""Customers, statements and credit for tests, made without rating."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from django.utils import timezone

from billing import credit_notes, credits
from billing.models import CreditEntry, CreditGrant, Customer, Statement, StatementState, Wallet
from billing.wallet_opening import open_wallet
from tests.factories import Account

_numbers = count(1)
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


def make_grant(
    account: Account, customer: Customer, amount: int, *, kind: str = "paid", **fields: Any
) -> CreditGrant:
    with account.scope():
        return credits.grant_credit(
            tenant=account.tenant,
            actor="tests",
            customer=customer,
            amount=amount,
            kind=kind,
            **fields,
        )


def make_wallet(account: Account, customer: Customer, **fields: Any) -> Wallet:
    with account.scope():
        return open_wallet(tenant=account.tenant, actor="tests", customer=customer, **fields)


def charge(
    account: Account,
    customer: Customer,
    total: int,
    *,
    taxes: tuple[tuple[str, str, int], ...] = (),
) -> Statement:
    """Finalize a statement of an amount as finalization does: credit notes, then prepaid credit."""
    number = next(_numbers)
    with account.scope():
        now = timezone.now()
        notes = min(credit_notes.unused(customer.id), total)
        credit = min(credits.available(customer.id, at=now), total - notes)
        taxable = total - sum(amount for *_, amount in taxes)
        statement = Statement.objects.create(
            tenant=account.tenant,
            customer=customer,
            period_start=EPOCH + timedelta(days=number),
            period_end=EPOCH + timedelta(days=number + 1),
            timezone="UTC",
            currency=customer.currency,
            state=StatementState.FINAL,
            sequence=number,
            number=str(number),
            finalized_at=now,
            subtotal=taxable,
            taxable=taxable,
            taxes=[
                {"name": name, "percent": percent, "amount": amount}
                for name, percent, amount in taxes
            ],
            total=total,
            credit_notes_applied=notes,
            credit_applied=credit,
            amount_due=total - notes - credit,
        )
        credit_notes.apply_to(statement, notes)
        credits.draw(statement, credit, now)
        return statement


def void(account: Account, statement: Statement) -> None:
    """Void a statement as billing does."""
    with account.scope():
        final = Statement.objects.filter(id=statement.id, state=StatementState.FINAL)
        final.update(state=StatementState.VOID, voided_at=timezone.now())
        credits.give_back(statement)
        credit_notes.give_back(statement)


def balances(account: Account, customer: Customer) -> list[int]:
    """Return what each grant holds, oldest first."""
    with account.scope():
        grants = CreditGrant.objects.filter(customer=customer).order_by("id")
        return list(grants.values_list("balance", flat=True))


def entries(account: Account, customer: Customer) -> list[tuple[str, int]]:
    """Return every entry of a customer's credit, oldest first."""
    with account.scope():
        rows = CreditEntry.objects.filter(grant__customer=customer).order_by("id")
        return list(rows.values_list("kind", "amount"))
