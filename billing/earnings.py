"""What customers pay and cost in a stretch of time, as their statements stand now.

Read within one snapshot.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime
from typing import Final

from django.db.models import Q, QuerySet

from billing.currencies import digits_of
from billing.margin_revenue import read_revenue
from billing.models import Customer, Statement, StatementState
from billing.usage import Demand, Piece, read_usage
from common.money import NANOS_PER_USD
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import total_usage

_EVERYTHING: Final[frozenset[str]] = frozenset()


def customers_between(tenant_id: int, starts_at: datetime) -> QuerySet[Customer]:
    """Return the customers that were not archived before a moment."""
    wanted = Q(archived_at=None) | Q(archived_at__gt=starts_at)
    return Customer.objects.filter(wanted, tenant_id=tenant_id)


def revenue_of(
    tenant_id: int, customer_ids: Collection[int], first: date, last: date
) -> dict[tuple[int, date], int]:
    """Return what each of these customers is charged for each of these months, in minor units,
    before tax: what is not there is nothing.
    """
    revenue: defaultdict[tuple[int, date], int] = defaultdict(int)
    for part in read_revenue(tenant_id, first, last, customer_ids=customer_ids):
        revenue[part.customer_id, part.month] += part.amount
    return revenue


def statements_between(
    tenant_id: int, customer_ids: Collection[int], starts_at: datetime, ends_at: datetime
) -> dict[int, Statement]:
    """Return the last statement, not void, that each customer has of a time."""
    rows = Statement.objects.filter(
        tenant_id=tenant_id,
        customer_id__in=customer_ids,
        period_start__lt=ends_at,
        period_end__gt=starts_at,
    ).exclude(state=StatementState.VOID)
    return {row.customer_id: row for row in rows.order_by("period_start", "id")}


def nanos_of(minor: int, currency: str) -> int:
    """Return minor units as billionths of the currency."""
    scale: int = 10 ** digits_of(currency)
    return minor * (NANOS_PER_USD // scale)


def costs_of(
    tenant_id: int, customer_ids: Iterable[int], pieces: Sequence[Piece]
) -> dict[int, list[int]]:
    """Return what the usage of each customer cost the provider in each piece, in nano-dollars.
    Pieces are in order and do not overlap.
    """
    demands = [
        Demand(customer_id, tuple(pieces), frozenset([_EVERYTHING])) for customer_id in customer_ids
    ]
    return {
        customer_id: [
            sum(measures.cost_nanos for _, measures in used.of(_EVERYTHING, index))
            for index in range(len(pieces))
        ]
        for customer_id, used in read_usage(tenant_id, demands).items()
    }


def total_cost(tenant_id: int, piece: Piece) -> int:
    """Return what all usage of a tenant cost in a piece of time."""
    question = UsageQuestion(
        tenant_id=tenant_id, starts_at=piece.starts_at, ends_at=piece.ends_at, interval="none"
    )
    return total_usage(question).cost_nanos
