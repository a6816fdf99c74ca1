"""Prepaid credit: granting it, what a statement may draw, and drawing it."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from billing.credit_entries import Payment, applied_to, write_entry
from billing.credit_order import in_order, needed_of, share_out
from billing.currencies import money_of
from billing.models import (
    Coupon,
    CreditCover,
    CreditEntryKind,
    CreditGrant,
    CreditState,
    Customer,
    Statement,
    Wallet,
)
from billing.wallets import (
    charge_of,
    committed_in,
    follow_grants,
    lock_customer,
    open_wallet_of,
    open_wallets_of,
    still_wallet_of,
    unpaid_in,
    uses_of,
)
from common.errors import Conflict
from metering.core.validation import Problem, amount_problems, require, require_row
from tenants.audit import create_audited, record_change
from tenants.models import Tenant

# The most that one grant may be, in minor units, and the grants with a balance of one customer.
GRANT_MAX: Final = 10**11
GRANTS_MAX: Final = 1_000
PRIORITY_MAX: Final = 100
ROLLOVER_MONTHS_MAX: Final = 120


def validate_grant(grant: CreditGrant) -> None:
    """Raise ValidationError with an error for each field that is wrong."""
    require_row(grant, _problems(grant))


def _problems(grant: CreditGrant) -> Iterator[Problem]:
    yield from money_problems(grant, "amount", "rollover_max")
    yield from amount_problems(
        grant,
        priority=(0, PRIORITY_MAX),
        rollover_percent=(1, 100),
        rollover_months=(1, ROLLOVER_MONTHS_MAX),
    )
    if grant.expires_at is not None:
        if grant.expires_at <= grant.effective_at:
            yield Problem("expires_at", "Must be after the credit takes effect.")
        elif grant.expires_at <= timezone.now():
            yield Problem("expires_at", "Must lie in the future.")
    elif grant.rollover_percent is not None:
        yield Problem("rollover_percent", "Only credit that expires is rolled over.")
    if grant.rollover_percent is None and (grant.rollover_max or grant.rollover_months):
        yield Problem("rollover_percent", "Say which share of the unused credit is rolled over.")


def money_problems(row: CreditGrant | Coupon, *names: str) -> Iterator[Problem]:
    """Judge amounts in minor units of a customer's currency, in words of the currency."""
    for name in names:
        value: int | None = getattr(row, name)
        if value is not None and not 0 < value <= GRANT_MAX:
            most = money_of(GRANT_MAX, row.customer.currency)
            yield Problem(name, f"Give at most {most}." if value > 0 else "Give more than 0.")


@transaction.atomic
def grant_credit(
    *,
    tenant: Tenant,
    actor: str,
    customer: Customer,
    amount: int,
    kind: str,
    effective_at: datetime | None = None,
    **fields: Any,
) -> CreditGrant:
    """Give a customer credit, in minor units of its currency. Its wallet may spend it from commit
    on, or from `effective_at`. Raises ValidationError.
    """
    lock_customer(customer.id)
    now = timezone.now()
    starts_at = effective_at or now
    grant = CreditGrant(
        tenant=tenant,
        customer=customer,
        amount=amount,
        kind=kind,
        effective_at=starts_at,
        state=CreditState.ACTIVE if starts_at <= now else CreditState.SCHEDULED,
        actor=actor[:300],
        **fields,
    )
    validate_grant(grant)
    if grants_with_balance(customer.id).count() >= GRANTS_MAX:
        require([Problem("customer", f"A customer has at most {GRANTS_MAX:,} grants in use.")])
    create_audited(grant, actor=actor)
    write_entry(grant, CreditEntryKind.GRANTED, amount, actor=actor)
    follow_grants(customer.id, actor=actor)
    return grant


def grants_with_balance(customer_id: int) -> Any:
    """Return a customer's grants that hold something."""
    return CreditGrant.objects.filter(customer_id=customer_id, balance__gt=0)


def available(customer_id: int, *, at: datetime) -> int:
    """Return what a statement that is finalized at a time may draw, in minor units.

    With a wallet, no more than it has counted: its credit pays for usage, at its price, and for
    nothing else.
    """
    return available_of([customer_id], at=at).get(customer_id, 0)


def available_of(customer_ids: Collection[int], *, at: datetime) -> dict[int, int]:
    """Return what a statement of each of these customers, of one tenant, may draw, if anything."""
    grants: defaultdict[int, list[CreditGrant]] = defaultdict(list)
    for grant in CreditGrant.objects.filter(customer_id__in=customer_ids, balance__gt=0):
        grants[grant.customer_id].append(grant)
    wallets = open_wallets_of(grants)
    uses = uses_of(wallets.values())
    covers = _covers(wallets.values())
    amounts: dict[int, int] = {}
    for customer_id, of_customer in grants.items():
        wallet = wallets.get(customer_id)
        held = sum(most for _, most in _drawable(of_customer, wallet, covers, at))
        amounts[customer_id] = (
            held if wallet is None else min(held, unpaid_in(wallet, uses[wallet.id]))
        )
    return amounts


@transaction.atomic
def draw(statement: Statement, amount: int, at: datetime) -> None:
    """Pay a statement from its customer's grants. The amount is at most what is `available` under
    the customer's lock, which the caller holds.
    """
    assert amount >= 0, "a statement draws credit; voiding it gives that back"
    wallet = open_wallet_of(statement.customer_id)
    assert amount <= available(statement.customer_id, at=at), "no more than is available"
    covers = _covers([] if wallet is None else [wallet])
    grants = grants_with_balance(statement.customer_id)
    for grant, part in share_out(amount, _drawable(grants, wallet, covers, at)):
        write_entry(
            grant,
            CreditEntryKind.APPLIED,
            -part,
            actor=statement.finalized_by or "finalization",
            payment=Payment(statement, None if wallet is None else wallet.id),
        )


@transaction.atomic
def give_back(statement: Statement, *, actor: str = "void") -> int:
    """Return what a statement drew to the grants that it came from; return the sum.

    To those that have expired since, too: the period is charged again, by a statement that draws
    what has come back first. It does not expire a second time. A second call returns nothing.
    """
    lock_customer(statement.customer_id)
    returned = 0
    for (grant_id, wallet_id), amount in applied_to(statement).items():
        grant = CreditGrant.objects.select_for_update().get(id=grant_id)
        write_entry(
            grant,
            CreditEntryKind.RETURNED,
            amount,
            actor=actor,
            payment=Payment(statement, wallet_id),
        )
        returned += amount
    if returned:
        follow_grants(statement.customer_id, actor=actor)
    return returned


@transaction.atomic
def void_credit(
    grant: CreditGrant, *, actor: str, reason: str, amount: int | None = None
) -> CreditGrant:
    """Take back what a grant holds, or a part of it. A wallet keeps what it has promised: usage
    that no statement has charged yet, and calls in flight. Raises Conflict if that is too much.
    """
    lock_customer(grant.customer_id)
    wallet = still_wallet_of(grant.customer_id)
    stored = CreditGrant.objects.select_for_update().get(id=grant.id)
    free = stored.balance - (0 if wallet is None else promised_by(stored, wallet))
    if (amount or 1) > free:
        kept = "" if free == stored.balance else "; the rest is for usage that is not charged yet"
        raise Conflict(f"The credit has less to take back than that{kept}.")
    write_entry(stored, CreditEntryKind.VOIDED, -(amount or free), actor=actor, note=reason)
    record_change(
        tenant_id=stored.tenant_id,
        actor=actor,
        action="void",
        subject=stored,
        before={"balance": stored.balance + (amount or free)},
        after={"balance": stored.balance},
    )
    follow_grants(stored.customer_id, actor=actor)
    return stored


def promised_by(grant: CreditGrant, wallet: Wallet) -> int:
    """Return what of a grant a wallet needs for usage that it has counted or holds for calls."""
    if grant.state == CreditState.SCHEDULED:
        return 0
    return needed_of(grant.balance, paid_before=held_before(grant), committed=committed_in(wallet))


def held_before(grant: CreditGrant) -> int:
    """Return what the grants hold that are drawn before this one."""
    others = grants_with_balance(grant.customer_id).exclude(state=CreditState.SCHEDULED)
    ordered = in_order([*others.exclude(id=grant.id), grant])
    return sum(other.balance for other in ordered[: ordered.index(grant)])


def _drawable(
    held: Iterable[CreditGrant],
    wallet: Wallet | None,
    covers: Mapping[int, CreditCover],
    at: datetime,
) -> list[tuple[CreditGrant, int]]:
    """Return the grants that pay at a time, in their order, with the most that each may pay, of a
    customer's grants that hold something.

    In a wallet a grant lasts until it is seen to have expired: the budget counts on it until then.
    """
    grants = [
        grant
        for grant in held
        if grant.state == CreditState.EXPIRED
        or (
            grant.effective_at <= at
            and (wallet is not None or grant.expires_at is None or at < grant.expires_at)
        )
    ]
    return [
        (grant, grant.balance - (held_for_calls(covers[grant.id]) if grant.id in covers else 0))
        for grant in in_order(grants)
    ]


def _covers(wallets: Collection[Wallet]) -> dict[int, CreditCover]:
    """Return what expired grants keep in these wallets, by grant."""
    covers = CreditCover.objects.filter(wallet__in=wallets).select_related("wallet", "grant")
    return {cover.grant_id: cover for cover in covers}


def held_for_calls(cover: CreditCover) -> int:
    """Return what an expired grant keeps for calls that are in flight as far as a worker has seen.

    If a refund took what a call no longer needed before that, this is all that the grant holds.
    """
    needed = needed_of(
        cover.kept,
        paid_before=cover.paid_before,
        committed=charge_of(cover.wallet, cover.spent_nanos),
    )
    return min(cover.kept - needed, cover.grant.balance)


def held_of(grants: Collection[CreditGrant]) -> dict[int, int]:
    """Return what each of these grants keeps for calls in flight, by id; of most it is nothing."""
    covers = CreditCover.objects.filter(grant__in=grants).select_related("wallet", "grant")
    return {cover.grant_id: held_for_calls(cover) for cover in covers}
