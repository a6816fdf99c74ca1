"""Grants that take effect, expire and roll over, by a job.

Without a wallet a grant expires with all that it holds. In a wallet it keeps what it pays for of
usage that has happened but is not on a statement yet, and of calls in flight: those began before
the expiry. When such calls end for less than they had reserved, the rest expires, too.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta
from django.db import connection, transaction
from django.db.models import Q, Sum
from django.utils import timezone

from billing.credit_entries import write_entry
from billing.credit_order import in_order, needed_of
from billing.credits import held_before
from billing.currencies import money_of
from billing.models import CreditCover, CreditEntryKind, CreditGrant, CreditState, Wallet
from billing.wallets import (
    charge_of,
    committed_in,
    follow_grants,
    held_by_grants,
    lock_customer,
    still_wallet_of,
    use_of,
)
from common.queries import fetch_rows
from metering.models import BudgetWindow, Reservation, ReservationState
from tenants.audit import create_audited
from tenants.scope import tenant_scope

# Grants of one customer that one transaction moves.
GRANTS_AT_ONCE: Final = 100
ACTOR: Final = "credit that begins or expires"
# Customers for whom an expired grant keeps something for a call that has ended.
_CALLS_ENDED: Final = f"""
    SELECT g.customer_id FROM credit_cover v JOIN credit_grant g ON g.id = v.grant_id
    WHERE v.tenant_id = %(tenant)s AND EXISTS (
        SELECT FROM unnest(v.in_flight) AS f (id) LEFT JOIN reservation r
            ON r.tenant_id = v.tenant_id AND r.id = f.id
            AND r.state = {ReservationState.OPEN.value}
        WHERE r.id IS NULL)
"""
# A customer with something to do that no other worker has.
_CUSTOMER: Final = f"""
    SELECT c.id FROM customer c WHERE c.tenant_id = %(tenant)s AND c.id IN (
        SELECT customer_id FROM credit_grant WHERE tenant_id = %(tenant)s
            AND state <> '{CreditState.EXPIRED}' AND expires_at <= %(now)s
        UNION
        SELECT customer_id FROM credit_grant WHERE tenant_id = %(tenant)s
            AND state = '{CreditState.SCHEDULED}' AND effective_at <= %(now)s
        UNION {_CALLS_ENDED}
    ) ORDER BY c.id LIMIT 1 FOR NO KEY UPDATE OF c SKIP LOCKED
"""


def tenants_with_due_credit() -> list[int]:
    """Return tenants with credit that begins or expires, or that waits for calls. Needs a platform
    scope.
    """
    now = timezone.now()
    due = CreditGrant.objects.filter(
        Q(expires_at__lte=now) & ~Q(state=CreditState.EXPIRED)
        | Q(effective_at__lte=now, state=CreditState.SCHEDULED)
    )
    tenants = {*due.values_list("tenant_id", flat=True).distinct()}
    return sorted(tenants | {*CreditCover.objects.values_list("tenant_id", flat=True).distinct()})


@transaction.atomic
def move_due_credit(*, tenant_id: int, now: datetime | None = None) -> int:
    """Move the credit of one customer that is due; return how many grants moved, 0 if no customer
    has any. The customer is locked, and one that is locked already is left to its holder.
    """
    now = now or timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(_CUSTOMER, {"tenant": tenant_id, "now": now})
        row = cursor.fetchone()
    return 0 if row is None else move_credit_of(row[0], now=now)


def settle_ended_calls(*, tenant_id: int, customer_ids: Collection[int]) -> None:
    """Settle what expired grants keep for calls of these customers that have ended, without waiting
    for a worker: statements draw what those calls cost. A transaction for each customer, before
    that of the statements, because calls of the tenant stand still meanwhile.
    """
    wanted = {"tenant": tenant_id, "customers": list(customer_ids)}
    with tenant_scope(tenant_id):
        rows = fetch_rows(f"{_CALLS_ENDED} AND g.customer_id = ANY(%(customers)s)", wanted)
    for customer_id in sorted({customer_id for (customer_id,) in rows}):
        with tenant_scope(tenant_id):
            lock_customer(customer_id)
            move_credit_of(customer_id, now=timezone.now())


def move_credit_of(customer_id: int, *, now: datetime) -> int:
    """Move the credit of a customer that is due, under its lock; return how many grants moved."""
    wallet = still_wallet_of(customer_id)
    grants = CreditGrant.objects.select_for_update().filter(customer_id=customer_id)
    moved = grants.filter(state=CreditState.SCHEDULED, effective_at__lte=now).update(
        state=CreditState.ACTIVE
    )
    if wallet is not None:
        moved += _settle_covers(wallet)
    expired = in_order(
        grants.filter(state=CreditState.ACTIVE, expires_at__lte=now).order_by("id")[:GRANTS_AT_ONCE]
    )
    for grant in expired:
        _expire(grant, wallet, now)
    follow_grants(customer_id, actor=ACTOR)
    return moved + len(expired)


def _expire(grant: CreditGrant, wallet: Wallet | None, now: datetime) -> None:
    """Let a grant expire, but for what the wallet has promised of it."""
    before = held_before(grant)
    committed = 0 if wallet is None else committed_in(wallet)
    kept = needed_of(grant.balance, paid_before=before, committed=committed)
    unused = grant.balance - kept
    in_flight = [] if wallet is None or not kept else _open_reservations(wallet)
    if wallet is not None and in_flight:
        use = use_of(wallet)
        CreditCover.objects.create(
            tenant_id=grant.tenant_id,
            grant=grant,
            wallet=wallet,
            kept=kept,
            paid_before=before + use.applied,
            spent_nanos=use.spent_nanos,
            in_flight=in_flight,
        )
    rolled = rolled_over(grant, unused)
    if unused > rolled:
        note = _kept_words(grant, kept, len(in_flight)) if kept else ""
        write_entry(grant, CreditEntryKind.EXPIRED, rolled - unused, actor=ACTOR, note=note)
    if rolled:
        write_entry(grant, CreditEntryKind.ROLLED_OVER, -rolled, actor=ACTOR)
    grant.state, grant.expired_at = CreditState.EXPIRED, now
    grant.save(update_fields=["state", "expired_at"])
    if rolled:
        _grant_the_rest(grant, rolled)


def _kept_words(grant: CreditGrant, kept: int, calls: int) -> str:
    amount = money_of(kept, grant.customer.currency)
    if not calls:
        return f"{amount} stays for usage that is not charged yet."
    what = "1 call" if calls == 1 else f"{calls:,} calls"
    return f"{amount} stays for usage that is not charged yet and for {what} in flight."


def _open_reservations(wallet: Wallet) -> list[UUID]:
    """Return the reservations that hold something in the wallet's budget."""
    windows = BudgetWindow.objects.filter(tenant_id=wallet.tenant_id, budget_id=wallet.budget_id)
    held = Reservation.objects.filter(
        tenant_id=wallet.tenant_id,
        state=ReservationState.OPEN,
        window_ids__overlap=list(windows.values_list("id", flat=True)),
    )
    return list(held.values_list("id", flat=True))


def _settle_covers(wallet: Wallet) -> int:
    """Let expire what grants kept for calls that have ended since; return how many grants moved."""
    covers = CreditCover.objects.filter(wallet=wallet).select_related("grant")
    return sum(_settle_cover(cover, wallet) for cover in covers.order_by("grant_id"))


def _settle_cover(cover: CreditCover, wallet: Wallet) -> bool:
    still_open, reserved_nanos, cost_nanos = _state_of(wallet.tenant_id, cover.in_flight)
    if len(still_open) == len(cover.in_flight):
        return False
    ended = len(cover.in_flight) - len(still_open)
    cover.spent_nanos += cost_nanos
    cover.in_flight = still_open
    kept = needed_of(
        cover.kept,
        paid_before=cover.paid_before,
        committed=charge_of(wallet, cover.spent_nanos + reserved_nanos),
    )
    unneeded = cover.kept - kept
    gone = min(unneeded, cover.grant.balance - _needed_after_others(cover.grant, wallet))
    if gone:
        what = "A call" if ended == 1 else f"{ended:,} calls"
        write_entry(
            cover.grant,
            CreditEntryKind.EXPIRED,
            -gone,
            actor=ACTOR,
            note=f"{what} in flight at the expiry ended for less than reserved.",
        )
    cover.kept -= gone
    # Calls that began before this was seen have the rest: it is for them as if they were in flight.
    cover.paid_before -= unneeded - gone
    if still_open:
        cover.save()
    else:
        cover.delete()
    return True


def _needed_after_others(grant: CreditGrant, wallet: Wallet) -> int:
    """Return what a grant must keep for usage that all other grants do not cover."""
    others = held_by_grants(grant.customer_id) - grant.balance
    return needed_of(grant.balance, paid_before=others, committed=committed_in(wallet))


def _state_of(tenant_id: int, ids: Sequence[UUID]) -> tuple[list[UUID], int, int]:
    """Return which of these reservations are open, what they hold, and what the others cost."""
    rows = Reservation.objects.filter(tenant_id=tenant_id, id__in=ids)
    still_open, reserved_nanos, cost_nanos = list[UUID](), 0, 0
    for row in rows.only("id", "state", "reserved_nanos", "cost_nanos"):
        if row.state == ReservationState.OPEN:
            still_open.append(row.id)
            reserved_nanos += row.reserved_nanos
        else:
            cost_nanos += row.cost_nanos or 0
    return still_open, reserved_nanos, cost_nanos


def rolled_over(grant: CreditGrant, unused: int) -> int:
    """Return what of the unused amount becomes a grant of its own, rounded down: a share of it, and
    no more than rolled-over grants of the customer may still hold.
    """
    if grant.rollover_percent is None:
        return 0
    share = unused * grant.rollover_percent // 100
    if grant.rollover_max is None:
        return share
    others = CreditGrant.objects.filter(
        customer_id=grant.customer_id, state=CreditState.ACTIVE, rolled_from__isnull=False
    ).exclude(id=grant.id)
    held = others.aggregate(sum=Sum("balance"))["sum"] or 0
    return max(0, min(share, grant.rollover_max - held))


def _grant_the_rest(grant: CreditGrant, amount: int) -> None:
    assert grant.expires_at is not None, "it has expired"
    expires_at = None
    if grant.rollover_months is not None:
        local = grant.expires_at.astimezone(ZoneInfo(grant.customer.timezone))
        expires_at = local + relativedelta(months=grant.rollover_months)
    rest = CreditGrant(
        tenant_id=grant.tenant_id,
        customer_id=grant.customer_id,
        amount=amount,
        kind=grant.kind,
        priority=grant.priority,
        state=CreditState.ACTIVE,
        effective_at=grant.expires_at,
        expires_at=expires_at,
        rolled_from=grant,
        reference=grant.reference,
        actor=ACTOR,
    )
    create_audited(rest, actor=ACTOR)
    write_entry(rest, CreditEntryKind.ROLLED_OVER, amount, actor=ACTOR)
