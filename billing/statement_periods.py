"""Which statements a customer has: one for each period, open as a draft from its first day on."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from django.db import connection
from django.db.models import F
from django.utils import timezone

from billing.models import Customer, Statement, StatementState, Subscription
from billing.periods import Period, Schedule
from tenants.runs import tenants_of

# Whose drafts are opened in one transaction.
CUSTOMERS: Final = 100


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
    """Open the drafts of all periods of a customer that have begun; see `open_drafts_of`."""
    open_drafts_of([customer], now=now)


def open_drafts_of(customers: Sequence[Customer], *, now: datetime | None = None) -> None:
    """Open the drafts of all periods that have begun, remove drafts of periods that no subscription
    has any more, and note when the next period begins. The customers are of one tenant; the caller
    holds their locks, or is alone.

    After the last subscription one further draft stays open, for late changes of what is final.
    """
    now = now or timezone.now()
    subscriptions = _subscriptions(customers)
    statements: defaultdict[int, list[Statement]] = defaultdict(list)
    rows = Statement.objects.filter(customer__in=customers).exclude(state=StatementState.VOID)
    for each in rows.only("customer_id", "period_start", "period_end", "state"):
        statements[each.customer_id].append(each)
    gone: list[int] = []
    missing: list[Statement] = []
    begins: defaultdict[datetime | None, list[int]] = defaultdict(list)
    for customer in customers:
        of_customer = subscriptions[customer.id]
        have = {
            StatementPeriod(each.period_start, each.period_end): each
            for each in statements[customer.id]
        }
        wanted = _wanted(of_customer, have, now)
        gone += [
            each.id
            for period, each in have.items()
            if each.state == StatementState.DRAFT and period not in wanted
        ]
        missing += [
            _new_draft(customer, period, zone)
            for period, zone in wanted.items()
            if period not in have
        ]
        begins[_next_begin(of_customer, now)].append(customer.id)
    remove_drafts(gone)
    # Two that open drafts simultaneously open the same ones.
    Statement.objects.bulk_create(missing, ignore_conflicts=True)
    for begin, ids in begins.items():
        Customer.objects.filter(id__in=ids).exclude(next_draft_at=begin).update(next_draft_at=begin)


def remove_drafts(statement_ids: list[int]) -> None:
    """Remove drafts, which nothing refers to. The ORM would remove their lines as well, of which
    they have none, and which the database refuses to.
    """
    if statement_ids:
        with connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM statement WHERE id = ANY(%s) AND state = %s",
                [statement_ids, StatementState.DRAFT.value],
            )


def open_due_drafts(*, tenant_id: int) -> int:
    """Open the drafts of some customers for whom a period has begun; return their number."""
    now = timezone.now()
    due = Customer.objects.filter(tenant_id=tenant_id, next_draft_at__lte=now)
    customers = list(
        due.select_for_update(no_key=True, skip_locked=True).order_by("next_draft_at")[:CUSTOMERS]
    )
    open_drafts_of(customers, now=now)
    return len(customers)


def tenants_with_due_drafts() -> list[int]:
    """Return the tenants with customers for whom a period has begun. Needs a platform scope."""
    return tenants_of(Customer.objects.filter(next_draft_at__lte=timezone.now()))


def _wanted(
    subscriptions: Sequence[Subscription],
    have: Mapping[StatementPeriod, Statement],
    now: datetime,
) -> dict[StatementPeriod, str]:
    """Return which periods need a statement, each with its time zone."""
    wanted = {
        statement_period(period): subscription.plan.timezone
        for subscription in subscriptions
        for period in schedule_of(subscription).periods_between(subscription.starts_at, now)
    }
    final_ends = [
        period.ends_at for period, each in have.items() if each.state == StatementState.FINAL
    ]
    if (
        final_ends
        and subscriptions
        and not any(period.starts_at >= max(final_ends) for period in wanted)
    ):
        schedule = schedule_of(subscriptions[-1], goes_on=True)
        if (period := schedule.period_at(max(final_ends))) is not None:
            wanted[statement_period(period)] = subscriptions[-1].plan.timezone
    return wanted


def _next_begin(subscriptions: Iterable[Subscription], now: datetime) -> datetime | None:
    """Return when the next period begins; None: none does."""
    begins = []
    for subscription in subscriptions:
        if subscription.starts_at > now:
            begins.append(subscription.starts_at)
        elif (period := schedule_of(subscription).period_at(now)) is not None:
            ends_at = subscription.ends_at
            if ends_at is None or period.ends_at < ends_at:
                begins.append(period.ends_at)
    return min(begins, default=None)


def _new_draft(customer: Customer, period: StatementPeriod, zone: str) -> Statement:
    return Statement(
        tenant_id=customer.tenant_id,
        customer=customer,
        period_start=period.starts_at,
        period_end=period.ends_at,
        timezone=zone,
        currency=customer.currency,
    )


def _subscriptions(customers: Collection[Customer]) -> dict[int, list[Subscription]]:
    """Return each customer's subscriptions, in order."""
    rows = (
        Subscription.objects.filter(customer__in=customers)
        .exclude(ends_at=F("starts_at"))
        .select_related("plan")
        .order_by("starts_at")
    )
    subscriptions: dict[int, list[Subscription]] = {customer.id: [] for customer in customers}
    for row in rows:
        subscriptions[row.customer_id].append(row)
    return subscriptions


def statement_period(period: Period) -> StatementPeriod:
    """Return the period of the statement that a subscription's period is on."""
    return StatementPeriod(period.scheduled_start, period.scheduled_end)
