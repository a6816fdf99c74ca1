"""A customer's wallet: prepaid credit as a blocking budget over the customer's usage.

The budget counts the provider's cost, and grants are in what the customer is charged for it: cost
plus the wallet's percentage. Its limit is what the grants cover, used or not, at that price. What a
statement takes from a grant stays covered, since the budget still counts that usage; so only what
is granted, expires, is voided or comes back moves the limit.

Locks, in this order: the customer's row, the tenant's configuration, grants, the budget.
"""

import math
from collections.abc import Collection
from fractions import Fraction
from typing import Final, NamedTuple

from django.db.models import Sum

from billing.currencies import digits_of
from billing.models import CreditEntry, CreditGrant, CreditState, Customer, Wallet
from common.money import NANOS_PER_USD, USD_NANOS_MAX
from common.queries import fetch_rows
from metering.configuration.budgets import update_budget
from tenants.scope import hold_configuration

# `Budget.managed_by` of a wallet's budget.
WALLET: Final = "wallet"
CURRENCY: Final = "USD"
MINOR_UNITS: Final[int] = 10 ** digits_of(CURRENCY)


class WalletUse(NamedTuple):
    """What a wallet has counted: the provider's cost of calls, and what statements took for it."""

    spent_nanos: int
    reserved_nanos: int
    applied: int


def lock_customer(customer_id: int) -> Customer:
    """Lock a customer until commit: its credit moves in one transaction at a time."""
    return Customer.objects.select_for_update(no_key=True).get(id=customer_id)


def open_wallet_of(customer_id: int) -> Wallet | None:
    """Return the customer's wallet that is open, or None."""
    wallets = Wallet.objects.select_related("budget", "customer")
    return wallets.filter(customer_id=customer_id, ended_at=None).first()


def open_wallets_of(customer_ids: Collection[int]) -> dict[int, Wallet]:
    """Return the open wallets of these customers, by customer."""
    wallets = Wallet.objects.select_related("budget", "customer")
    open_ones = wallets.filter(customer_id__in=customer_ids, ended_at=None)
    return {wallet.customer_id: wallet for wallet in open_ones}


def still_wallet_of(customer_id: int) -> Wallet | None:
    """Return the customer's open wallet with its budget at a standstill until commit: no call
    begins or ends, so what is spent and reserved stays as it is read.
    """
    wallet = open_wallet_of(customer_id)
    if wallet is not None:
        hold_configuration(wallet.tenant_id)
    return wallet


def use_of(wallet: Wallet) -> WalletUse:
    """Return what a wallet has counted so far."""
    return uses_of([wallet])[wallet.id]


def uses_of(wallets: Collection[Wallet]) -> dict[int, WalletUse]:
    """Return what each of these wallets, of one tenant, has counted so far, by id."""
    if not wallets:
        return {}
    (tenant_id,) = {wallet.tenant_id for wallet in wallets}
    counted = {
        budget_id: (int(spent), int(reserved))
        for budget_id, spent, reserved in fetch_rows(
            "SELECT budget_id, sum(spent_nanos), sum(reserved_nanos) FROM budget_window"
            " WHERE tenant_id = %s AND budget_id = ANY(%s) GROUP BY budget_id",
            [tenant_id, [wallet.budget_id for wallet in wallets]],
        )
    }
    applied = _applied_in(wallets)
    return {
        wallet.id: WalletUse(*counted.get(wallet.budget_id, (0, 0)), applied.get(wallet.id, 0))
        for wallet in wallets
    }


def applied_in(wallet: Wallet) -> int:
    """Return what statements took of the wallet's credit and have not given back."""
    return _applied_in([wallet]).get(wallet.id, 0)


def _applied_in(wallets: Collection[Wallet]) -> dict[int, int]:
    sums = CreditEntry.objects.filter(wallet__in=wallets).values("wallet_id")
    moved = sums.annotate(sum=Sum("amount")).values_list("wallet_id", "sum")
    return {wallet_id: -amount for wallet_id, amount in moved}


def charge_of(wallet: Wallet, nanos: int) -> int:
    """Return what the customer is charged for a provider's cost, in minor units, rounded up."""
    return math.ceil(nanos * _price(wallet) * MINOR_UNITS / NANOS_PER_USD)


def covered_nanos(wallet: Wallet, minor: int) -> int:
    """Return the provider's cost that an amount in minor units pays for, rounded down."""
    return math.floor(minor * NANOS_PER_USD / (_price(wallet) * MINOR_UNITS))


def _price(wallet: Wallet) -> Fraction:
    return 1 + Fraction(wallet.percent) / 100


def held_by_grants(customer_id: int) -> int:
    """Return what a customer's grants hold that have taken effect."""
    held = CreditGrant.objects.filter(customer_id=customer_id, balance__gt=0)
    held = held.exclude(state=CreditState.SCHEDULED)
    return held.aggregate(sum=Sum("balance"))["sum"] or 0


def limit_of(wallet: Wallet) -> int:
    """Return the limit that the wallet's budget must have, in nano-dollars."""
    covered = held_by_grants(wallet.customer_id) + applied_in(wallet)
    return min(covered_nanos(wallet, covered), USD_NANOS_MAX)


def unpaid_in(wallet: Wallet, use: WalletUse) -> int:
    """Return what statements may take: what the wallet has counted and none of them took yet."""
    return max(0, charge_of(wallet, use.spent_nanos) - use.applied)


def committed_in(wallet: Wallet) -> int:
    """Return what credit must stay for: usage that no statement took yet, and open reservations."""
    use = use_of(wallet)
    nanos = use.spent_nanos + use.reserved_nanos
    return max(0, charge_of(wallet, nanos) - use.applied)


def follow_grants(customer_id: int, *, actor: str) -> None:
    """Give the budget of the customer's open wallet the limit that its grants cover now.

    In the transaction that moved a grant, by the holder of the customer's lock. Reservations that
    come later are judged by the new limit.
    """
    wallet = open_wallet_of(customer_id)
    if wallet is None:
        return
    limit = limit_of(wallet)
    if wallet.budget.limit_cost_nanos != limit:
        update_budget(
            wallet.budget, actor=actor, changes={"limit_cost_nanos": limit}, manager=WALLET
        )
