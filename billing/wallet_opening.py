"""Opening and ending a wallet: whose usage can be held to its credit, and at which price."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from billing.credit_expiry import move_credit_of
from billing.models import CreditCover, Customer, Plan, PlanVersion, Subscription, Wallet
from billing.terms import ChargeModel, Terms, UsageCharge
from billing.wallets import (
    CURRENCY,
    WALLET,
    covered_nanos,
    held_by_grants,
    lock_customer,
    open_wallet_of,
    open_wallets_of,
)
from common.errors import Conflict
from common.formats import moment
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import archive_budget, create_budget, update_budget
from metering.models import Action, Period
from tenants.audit import audited_change, create_audited
from tenants.models import Tenant

FULL_PERCENT: Final = 100
NOTICE_PERCENT: Final = 80
DEFAULT_LEVELS: Final = (LevelRule(NOTICE_PERCENT, Action.NONE.value, ()),)


class NotProportional(Conflict):
    """The customer's usage is not charged in proportion to the provider's cost."""

    code = "not_proportional"


@transaction.atomic
def open_wallet(
    *,
    tenant: Tenant,
    actor: str,
    customer: Customer,
    levels: Sequence[LevelRule] = DEFAULT_LEVELS,
) -> Wallet:
    """Hold a customer's usage to its prepaid credit from now on: a blocking budget whose limit is
    what the grants cover at the customer's price.

    Usage before counts no more than calls that are in flight: neither was asked for here. Raises
    Conflict where there is a wallet already, and NotProportional with the reason where credit
    cannot be counted in the provider's cost.
    """
    lock_customer(customer.id)
    now = timezone.now()
    if open_wallet_of(customer.id) is not None:
        raise Conflict("The customer has a wallet already.")
    _hold_plans(customer)
    percent = percent_above_cost(customer, at=now)
    match = {"customer": _values_of(customer)}
    move_credit_of(customer.id, now=now)
    wallet = Wallet(
        tenant=tenant, customer=customer, percent=percent, opened_at=now, actor=actor[:300]
    )
    wallet.budget = create_budget(
        tenant=tenant,
        actor=actor,
        levels=_with_block(levels),
        starts_at=now,
        name=f"{customer.name[:180]}'s prepaid credit",
        match=match,
        period=Period.LIFETIME,
        limit_cost_nanos=covered_nanos(wallet, held_by_grants(customer.id)),
        managed_by=WALLET,
    )
    return create_audited(wallet, actor=actor)


@transaction.atomic
def change_levels(wallet: Wallet, *, actor: str, levels: Sequence[LevelRule]) -> Wallet:
    """Change at which shares of the credit people are notified, and who. All of it always blocks.

    Raises Conflict for a wallet that has ended.
    """
    lock_customer(wallet.customer_id)
    stored = Wallet.objects.select_related("budget", "customer").get(id=wallet.id)
    if stored.ended_at is not None:
        raise Conflict("The wallet has ended.")
    update_budget(
        stored.budget, actor=actor, changes={}, levels=_with_block(levels), manager=WALLET
    )
    return stored


@transaction.atomic
def end_wallet(wallet: Wallet, *, actor: str) -> Wallet:
    """Stop holding usage to credit. What grants hold stays, for whatever statements charge."""
    lock_customer(wallet.customer_id)
    with audited_change(wallet, actor=actor, action="end") as change:
        if change.row.ended_at is None:
            archive_budget(change.row.budget, actor=actor, manager=WALLET)
            CreditCover.objects.filter(wallet=wallet).delete()
            change.row.ended_at = timezone.now()
    return change.row


def _with_block(levels: Sequence[LevelRule]) -> list[LevelRule]:
    """Return levels that notify, with one that blocks where all credit is used."""
    full = next((level for level in levels if level.percent == FULL_PERCENT), None)
    notify = () if full is None else full.notify
    return [
        *(level for level in levels if level is not full),
        LevelRule(FULL_PERCENT, Action.BLOCK.value, notify),
    ]


def _values_of(customer: Customer) -> str | list[str]:
    """Return the values of `customer` that the budget matches. Raises Conflict if other usage is
    the customer's, too, or not at all times: a budget matches one dimension's values.
    """
    values = [customer.key]
    for link in customer.links.all():
        if link.dimension != "customer" or link.starts_at or link.ends_at:
            raise Conflict(
                "A wallet counts usage by its customer alone; this customer has further links"
                f" ({link.dimension} '{link.value}')."
            )
        if link.value not in values:
            values.append(link.value)
    return values[0] if len(values) == 1 else values


def percent_above_cost(customer: Customer, *, at: datetime) -> Decimal:
    """Return what a customer is charged on top of the provider's cost, in percent: that of its
    plan, or nothing without a plan. Raises NotProportional with the reason if usage is charged in
    another way.
    """
    if customer.currency != CURRENCY:
        raise NotProportional(
            f"A wallet is counted in {CURRENCY}, as the provider's cost is; the customer pays in"
            f" {customer.currency}."
        )
    subscription = _subscription_of(customer, at)
    return Decimal(0) if subscription is None else _percent_of_plan(subscription, at)


def _subscription_of(customer: Customer, at: datetime) -> Subscription | None:
    return (
        Subscription.objects.select_related("plan")
        .filter(Q(ends_at=None) | Q(ends_at__gt=at), customer=customer, starts_at__lte=at)
        .order_by("-starts_at", "-id")
        .first()
    )


def _percent_of_plan(subscription: Subscription, at: datetime) -> Decimal:
    version = (
        PlanVersion.objects.filter(Q(starts_at=None) | Q(starts_at__lte=at), plan=subscription.plan)
        .order_by("-number")
        .first()
    )
    assert version is not None, "a plan has a version that begins with it"
    if subscription.plan.trial_days:
        raise NotProportional("Usage of the plan's trial is free; a wallet would count it.")
    return percent_of_terms(msgspec.convert(version.terms, Terms, strict=False))


def require_followed(customer_ids: Collection[int]) -> None:
    """Refuse a change that an open wallet of one of these customers could not follow: its budget
    counts one dimension's values, at one price, from its opening on. In the transaction of the
    change, after it, with the customer or the plan locked.

    Raises NotProportional, which names the wallet.
    """
    for wallet in open_wallets_of(customer_ids).values():
        try:
            _require_match(wallet)
            _require_price(wallet)
        except Conflict as refusal:
            raise NotProportional(
                f"{wallet.customer}'s wallet could not follow this change: {refusal} End the wallet"
                " first; it may be opened again afterwards."
            ) from refusal


def _require_match(wallet: Wallet) -> None:
    values, counted = (
        {given} if isinstance(given, str) else set(given)
        for given in (_values_of(wallet.customer), wallet.budget.match["customer"])
    )
    if values != counted:
        other = ", ".join(f"'{value}'" for value in sorted(values ^ counted))
        raise Conflict(
            f"It counts the usage of the values that it was opened with, not of {other}."
        )


def _require_price(wallet: Wallet) -> None:
    """Compare the wallet's price with the customer's whenever that may change. Time without a plan
    is not charged for.
    """
    customer, begin = wallet.customer, wallet.opened_at
    subscriptions = customer.subscriptions.filter(Q(ends_at=None) | Q(ends_at__gt=begin))
    starts = subscriptions.values_list("starts_at", flat=True)
    versions = PlanVersion.objects.filter(plan__in=_hold_plans(customer), starts_at__gt=begin)
    moments = {begin, *starts, *versions.values_list("starts_at", flat=True)}
    for at in sorted(each for each in moments if each is not None and each >= begin):
        subscription = _subscription_of(customer, at)
        percent = wallet.percent if subscription is None else _percent_of_plan(subscription, at)
        if percent != wallet.percent:
            raise Conflict(
                f"It counts cost and {_plain(wallet.percent)}%, and usage from"
                f" {moment(at)} on would be charged at cost and {_plain(percent)}%."
            )


def _hold_plans(customer: Customer) -> list[int]:
    """Lock a customer's plans until commit: a version that is added meanwhile waits, and then finds
    the wallet. After the customer.
    """
    plans = Plan.objects.filter(subscriptions__customer=customer).order_by("id")
    return [plan.id for plan in plans.select_for_update(no_key=True, of=("self",))]


def _plain(percent: Decimal) -> str:
    return f"{percent.normalize():f}"


def percent_of_terms(terms: Terms) -> Decimal:
    """Return the percentage on top of cost that terms charge all usage with. Pure. Raises
    NotProportional with the reason.
    """
    charges = [charge for charge in terms.charges if isinstance(charge, UsageCharge)]
    if reason := next(_reasons(terms, charges), None):
        raise NotProportional(f"A wallet counts the provider's cost, but {reason}.")
    return charges[0].percent or Decimal(0)


def _reasons(terms: Terms, charges: Sequence[UsageCharge]) -> Iterator[str]:
    if terms.minimum_amount is not None or terms.cap_amount is not None:
        yield "the plan has a minimum or a cap"
    if len(charges) != 1:
        yield f"the plan has {len(charges) or 'no'} charges for usage; it needs one, cost-plus"
    for charge in charges:
        if charge.model != ChargeModel.COST_PLUS:
            yield f"“{charge.name}” is not charged as cost-plus"
        bounds: tuple[Any, ...] = (charge.minimum_amount, charge.cap_amount, charge.unit_amount)
        if charge.included_units or any(bound is not None for bound in bounds):
            yield f"“{charge.name}” has an allowance, a minimum, a cap or an amount for each call"
        if charge.markups:
            yield f"“{charge.name}” has other percentages for some models"
        if charge.filter:
            yield f"“{charge.name}” is for a part of the usage"
