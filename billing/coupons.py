"""Coupons: which one a statement gets, and how they are made and ended."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from django.db import transaction
from django.db.models import Count, F, Q
from django.utils import timezone

from billing import totals
from billing.credits import money_problems
from billing.models import Coupon, CouponUse, Customer, Statement, StatementState
from common.json_bodies import JsonObject
from metering.core.validation import Problem, amount_problems, require, require_row
from tenants.audit import audited_change, create_audited
from tenants.models import Tenant

STATEMENTS_MAX: Final = 1_000
# Coupons of one customer that have not ended.
COUPONS_MAX: Final = 100


class Discount(NamedTuple):
    """A coupon as a statement is charged with it: a percentage, or an amount in minor units."""

    coupon_id: int
    name: str
    percent: Decimal | None
    amount: int | None


def validate_coupon(coupon: Coupon) -> None:
    """Raise ValidationError with an error for each field that is wrong."""
    require_row(coupon, _problems(coupon))


def _problems(coupon: Coupon) -> Iterator[Problem]:
    if (coupon.percent is None) == (coupon.amount is None):
        yield Problem("percent", "Give a percentage or an amount, and not both.", "required")
    elif coupon.percent is not None and not 0 < coupon.percent <= 100:
        yield Problem("percent", "Give more than 0 and at most 100.")
    yield from money_problems(coupon, "amount")
    yield from amount_problems(coupon, statements_max=(1, STATEMENTS_MAX))
    if coupon.ends_at is not None and coupon.ends_at <= coupon.starts_at:
        yield Problem("ends_at", "Must be after the coupon begins.")


@transaction.atomic
def create_coupon(
    *,
    tenant: Tenant,
    actor: str,
    customer: Customer,
    starts_at: datetime | None = None,
    **fields: Any,
) -> Coupon:
    """Give a customer a coupon. Raises ValidationError."""
    coupon = Coupon(
        tenant=tenant,
        customer=customer,
        starts_at=starts_at or timezone.now(),
        actor=actor[:300],
        **fields,
    )
    validate_coupon(coupon)
    lasting = Coupon.objects.filter(Q(ends_at=None) | Q(ends_at__gt=timezone.now()))
    if lasting.filter(customer=customer).count() >= COUPONS_MAX:
        require([Problem("customer", f"A customer has at most {COUPONS_MAX} coupons at a time.")])
    return create_audited(coupon, actor=actor)


@transaction.atomic
def end_coupon(coupon: Coupon, *, actor: str) -> Coupon:
    """Let a coupon end now. One that has ended stays as it is; statements keep theirs."""
    now = timezone.now()
    with audited_change(coupon, actor=actor, action="end") as change:
        stored = change.row
        if stored.ends_at is None or stored.ends_at > now:
            stored.ends_at = max(now, stored.starts_at)
    return change.row


def discounts_of(statements: Collection[Statement], *, at: datetime) -> dict[int, Discount]:
    """Return the discounts of statements that are finalized at a time, by the statement's id: of
    each the oldest coupon that lasts at its period's end, was made by then, and is not used up.
    """
    coupons = _coupons_of({each.customer_id for each in statements}, at=at)
    discounts = {
        each.id: _oldest(coupons[each.customer_id], each.period_end) for each in statements
    }
    return {id_: discount for id_, discount in discounts.items() if discount is not None}


def _coupons_of(customer_ids: Collection[int], *, at: datetime) -> dict[int, list[Coupon]]:
    """Return the coupons of customers that were made by then and are not used up, oldest first."""
    used = Count("uses", filter=~Q(uses__statement__state=StatementState.VOID))
    coupons: dict[int, list[Coupon]] = {customer_id: [] for customer_id in customer_ids}
    for coupon in (
        Coupon.objects.filter(customer_id__in=customer_ids, created_at__lte=at)
        .annotate(used=used)
        .filter(Q(statements_max=None) | Q(used__lt=F("statements_max")))
        .order_by("starts_at", "id")
    ):
        coupons[coupon.customer_id].append(coupon)
    return coupons


def _oldest(coupons: Iterable[Coupon], period_end: datetime) -> Discount | None:
    for coupon in coupons:
        is_later = coupon.ends_at is None or coupon.ends_at >= period_end
        if coupon.starts_at < period_end and is_later:
            return Discount(coupon.id, coupon.name, coupon.percent, coupon.amount)
    return None


def mark_used(discount: Discount, statement: Statement) -> None:
    """Count a final statement as one that the coupon is for; it counts no more once it is void.

    Under the customer's lock, so that no two statements get the last use.
    """
    CouponUse.objects.create(
        tenant_id=statement.tenant_id, coupon_id=discount.coupon_id, statement=statement
    )


def coupon_of(facts: Mapping[str, Any] | None) -> totals.Coupon | None:
    """Return the coupon that a statement was charged with, from what it keeps."""
    if facts is None:
        return None
    percent = facts.get("percent")
    return totals.Coupon(None if percent is None else Decimal(percent), facts.get("amount"))


def discount_facts(discount: Discount) -> JsonObject:
    """Return a discount as a statement keeps it (`Statement.coupon`)."""
    if discount.percent is not None:
        return {"name": discount.name, "percent": str(discount.percent.normalize())}
    return {"name": discount.name, "amount": discount.amount}
