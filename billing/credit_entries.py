"""Where a grant's balance moves: by an entry, in the same transaction. There is no other writer."""

from typing import NamedTuple

from django.db.models import F

from billing.models import CreditEntry, CreditEntryKind, CreditGrant, Statement


class Payment(NamedTuple):
    """The statement that credit pays, and the wallet that is open meanwhile."""

    statement: Statement
    wallet_id: int | None


def write_entry(
    grant: CreditGrant,
    kind: CreditEntryKind,
    amount: int,
    *,
    actor: str,
    payment: Payment | None = None,
    note: str = "",
) -> CreditEntry:
    """Add an entry, and move the balance by its amount.

    Invariant: a grant's balance is the sum of its entries, and never below zero nor above what was
    granted; a CHECK refuses the rest. The caller holds the customer's lock.
    """
    assert amount != 0, "an entry moves something"
    moved = CreditGrant.objects.filter(id=grant.id).update(balance=F("balance") + amount)
    assert moved == 1, "the grant is there"
    grant.balance += amount
    return CreditEntry.objects.create(
        tenant_id=grant.tenant_id,
        grant=grant,
        kind=kind,
        amount=amount,
        statement=None if payment is None else payment.statement,
        wallet_id=None if payment is None else payment.wallet_id,
        note=note,
        actor=actor[:300],
    )


def applied_to(statement: Statement) -> dict[tuple[int, int | None], int]:
    """Return what a statement has drawn and not given back, by grant and wallet."""
    net: dict[tuple[int, int | None], int] = {}
    for entry in CreditEntry.objects.filter(
        statement=statement, kind__in=[CreditEntryKind.APPLIED, CreditEntryKind.RETURNED]
    ).order_by("id"):
        key = (entry.grant_id, entry.wallet_id)
        net[key] = net.get(key, 0) - entry.amount
    return {key: amount for key, amount in net.items() if amount}
