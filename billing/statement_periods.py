"""Which statements a customer has: one for each period, open as a draft from its first day on."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from django.db import connection
from django.db.models import F, QuerySet
from django.utils import timezone

from billing.models import Customer, Statement, StatementState, Subscription
from billing.periods import Period, Schedule


class StatementPeriod(NamedTuple):
    """What a statement is for: all subscriptions whose periods these are share it."""

    starts_at: datetime
    ends_at: datetime


def schedule_of(subscription: Subscription, *, goes_on: bool = False) -> Schedule:
    """Return the periods of a subscription; with `goes_on` also those after it has ended."""
    plan = subscription.plan
    return Schedule(
        interval=plan.interval,
        anchor=plan.anchor,
        timezone=plan.timezone,
        starts_at=subscription.starts_at,
        ends_at=None if goes_on else subscription.ends_at,
    )


def open_drafts(customer: Customer, *, now: datetime | None = None) -> None:
    """Open the drafts of all periods that have begun, and remove drafts of periods that no
    subscription has any more. The caller holds the customer's lock, or is alone.

    After the last subscription one further draft stays open, for late changes of what is final.
    """
    now = now or timezone.now()
    wanted = dict(_periods(customer, now))
    statements = list(customer.statements.exclude(state=StatementState.VOID))
    have = {StatementPeriod(each.period_start, each.period_end): each for each in statements}
    final_ends = [
        period.ends_at for period, each in have.items() if each.state == StatementState.FINAL
    ]
    if final_ends and not any(period.starts_at >= max(final_ends) for period in wanted):
        wanted |= dict(_following(customer, max(final_ends)))
    gone = [
        each.id
        for period, each in have.items()
        if each.state == StatementState.DRAFT and period not in wanted
    ]
    _remove_drafts(gone)
    Statement.objects.bulk_create(
        [
            Statement(
                tenant_id=customer.tenant_id,
                customer=customer,
                period_start=period.starts_at,
                period_end=period.ends_at,
                timezone=zone,
                currency=customer.currency,
            )
            for period, zone in wanted.items()
            if period not in have
        ],
        # Two that open drafts simultaneously open the same ones.
        ignore_conflicts=True,
    )


def _remove_drafts(ids: Sequence[int]) -> None:
    """Remove drafts. They have no lines, and Django would ask for their removal all the same, which
    the table of lines refuses.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM statement WHERE id = ANY(%s) AND state = %s",
            [list(ids), StatementState.DRAFT.value],
        )


def _periods(customer: Customer, now: datetime) -> Iterator[tuple[StatementPeriod, str]]:
    for subscription in _subscriptions(customer):
        for period in schedule_of(subscription).periods_between(subscription.starts_at, now):
            yield statement_period(period), subscription.plan.timezone


def _following(customer: Customer, at: datetime) -> Iterator[tuple[StatementPeriod, str]]:
    subscription = _subscriptions(customer).last()
    if subscription is not None:
        period = schedule_of(subscription, goes_on=True).period_at(at)
        if period is not None:
            yield statement_period(period), subscription.plan.timezone


def _subscriptions(customer: Customer) -> QuerySet[Subscription]:
    return (
        customer.subscriptions.exclude(ends_at=F("starts_at"))
        .select_related("plan")
        .order_by("starts_at")
    )


def statement_period(period: Period) -> StatementPeriod:
    """Return the period of the statement that a subscription's period is on."""
    return StatementPeriod(period.scheduled_start, period.scheduled_end)
