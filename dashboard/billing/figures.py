"""What a tenant earns on its customers in a month: on each, and on all of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from statistics import median_low
from typing import Final

from django.db.models import F, Q

from billing.earnings import (
    costs_of,
    customers_between,
    nanos_of,
    revenue_of,
    statements_between,
    total_cost,
)
from billing.models import Customer, Statement, Subscription
from billing.plan_rules import COST_CURRENCY
from billing.usage import Piece
from dashboard.billing.months import Month

WEEKS: Final = 12
WEEK: Final = timedelta(days=7)


@dataclass(frozen=True)
class CustomerFigures:
    """A customer's month. The cost is in nano-dollars, revenue in billionths of the customer's
    currency; without a statement there is none.
    """

    customer: Customer
    plan: str
    cost_nanos: int
    revenue_nanos: int
    statement: Statement | None

    @property
    def is_comparable(self) -> bool:
        """Whether revenue and cost are in one currency. Nothing here converts."""
        return self.customer.currency == COST_CURRENCY

    @property
    def margin_nanos(self) -> int | None:
        return self.revenue_nanos - self.cost_nanos if self.is_comparable else None

    @property
    def is_loss(self) -> bool:
        """Whether the customer costs more than it pays. Who has no statement is not billed at all,
        and not meant.
        """
        margin = self.margin_nanos
        return margin is not None and margin < 0 and self.statement is not None


@dataclass(frozen=True)
class Earnings:
    """All customers' month. Sums are of customers who pay in dollars; `cost_nanos` is of all usage,
    that of no customer included.
    """

    rows: Sequence[CustomerFigures]
    cost_nanos: int
    # Of the same time before, as far into it as this one has come.
    cost_before_nanos: int

    @cached_property
    def comparable(self) -> list[CustomerFigures]:
        return [row for row in self.rows if row.is_comparable]

    @cached_property
    def in_other_currencies(self) -> int:
        return len(self.rows) - len(self.comparable)

    @cached_property
    def other_cost_nanos(self) -> int:
        """What customers cost who pay in other currencies: it has no margin in dollars."""
        return sum(row.cost_nanos for row in self.rows if not row.is_comparable)

    @cached_property
    def revenue_nanos(self) -> int:
        return sum(row.revenue_nanos for row in self.comparable)

    @cached_property
    def margin_nanos(self) -> int:
        return self.revenue_nanos - self.comparable_cost_nanos

    @cached_property
    def unclaimed_nanos(self) -> int:
        return self.cost_nanos - sum(row.cost_nanos for row in self.rows)

    @cached_property
    def minus_unclaimed_nanos(self) -> int:
        return -self.unclaimed_nanos

    @cached_property
    def comparable_cost_nanos(self) -> int:
        """What the margin is left of revenue after: all cost but that of other currencies."""
        return self.cost_nanos - self.other_cost_nanos

    @cached_property
    def losses(self) -> list[CustomerFigures]:
        """Customers who cost more than they pay, the largest loss first."""
        return sorted(
            (row for row in self.comparable if row.is_loss), key=lambda row: row.margin_nanos or 0
        )

    @cached_property
    def each_nanos(self) -> int:
        return (self.cost_nanos - self.unclaimed_nanos) // len(self.rows) if self.rows else 0

    @cached_property
    def median_nanos(self) -> int:
        return median_low([row.cost_nanos for row in self.rows]) if self.rows else 0


def read_earnings(tenant_id: int, month: Month, before: Month) -> Earnings:
    """Return what all customers pay and cost in a month, beside the cost of the month before."""
    customers = list(customers_between(tenant_id, month.starts_at))
    span = _piece(month.starts_at, month.until)
    elapsed = month.until - month.starts_at
    ids = [each.id for each in customers]
    revenue = revenue_of(tenant_id, ids, month.first, month.first)
    return Earnings(
        rows=_figures(tenant_id, customers, month, revenue),
        cost_nanos=total_cost(tenant_id, span),
        cost_before_nanos=total_cost(
            tenant_id,
            _piece(before.starts_at, min(before.starts_at + elapsed, before.ends_at)),
        ),
    )


def read_costliest(tenant_id: int, month: Month, number: int) -> list[CustomerFigures]:
    """Return as many of the customers that cost most in a month: these alone are rated."""
    customers = list(customers_between(tenant_id, month.starts_at))
    span = _piece(month.starts_at, month.until)
    costs = costs_of(tenant_id, [each.id for each in customers], [span])
    customers.sort(key=lambda each: (-costs[each.id][0], each.name, each.id))
    shown = customers[:number]
    revenue = revenue_of(tenant_id, [each.id for each in shown], month.first, month.first)
    return _figures(tenant_id, shown, month, revenue)


def _piece(starts_at: datetime, until: datetime) -> Piece:
    # In the first moment of a month no time has passed, which is no question.
    return Piece(starts_at, max(until, starts_at + timedelta(microseconds=1)))


def figures_by_month(
    tenant_id: int, customer: Customer, months: Sequence[Month]
) -> list[CustomerFigures]:
    """Return one customer's figures in months that follow each other, in their order."""
    first, last = min(each.first for each in months), max(each.first for each in months)
    revenue = revenue_of(tenant_id, [customer.id], first, last)
    return [_figures(tenant_id, [customer], month, revenue)[0] for month in months]


def _figures(
    tenant_id: int,
    customers: Sequence[Customer],
    month: Month,
    revenue: Mapping[tuple[int, date], int],
) -> list[CustomerFigures]:
    ids = [each.id for each in customers]
    costs = costs_of(tenant_id, ids, [_piece(month.starts_at, month.until)])
    plans = _plans_at(tenant_id, ids, month.until)
    statements = statements_between(tenant_id, ids, month.starts_at, month.ends_at)
    return [
        CustomerFigures(
            each,
            plans.get(each.id, ""),
            costs[each.id][0],
            nanos_of(revenue.get((each.id, month.first), 0), each.currency),
            statements.get(each.id),
        )
        for each in customers
    ]


def _plans_at(tenant_id: int, customer_ids: Collection[int], at: datetime) -> dict[int, str]:
    """Return the name of the plan that each customer is on at a moment."""
    running = Subscription.objects.filter(
        Q(ends_at=None) | Q(ends_at__gt=at) & Q(ends_at__gt=F("starts_at")),
        tenant_id=tenant_id,
        customer_id__in=customer_ids,
        starts_at__lte=at,
    )
    return dict(running.order_by("starts_at").values_list("customer_id", "plan__name"))


def weekly_costs(
    tenant_id: int, customer_ids: Collection[int], now: datetime
) -> dict[int, list[int]]:
    """Return what each of these customers cost in each of the last weeks, the oldest first."""
    pieces = [Piece(now - WEEK * (back + 1), now - WEEK * back) for back in reversed(range(WEEKS))]
    return costs_of(tenant_id, customer_ids, pieces)
