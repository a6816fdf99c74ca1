"""What customers pay and cost in a stretch of time, as their statements stand now.

Read within one snapshot.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final, NamedTuple

from django.db.models import Q, QuerySet

from billing.currencies import digits_of
from billing.drafts import drafts_of
from billing.models import Customer, Statement, StatementState
from billing.totals import round_half_away
from billing.usage import Demand, Piece, read_usage
from common.money import NANOS_PER_USD
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import total_usage

_EVERYTHING: Final[frozenset[str]] = frozenset()
_MICROSECOND: Final = timedelta(microseconds=1)


class Revenue(NamedTuple):
    """What a customer pays in billionths of its currency, before tax, and the latest statement."""

    nanos: int
    statement: Statement


def customers_between(tenant_id: int, starts_at: datetime) -> QuerySet[Customer]:
    """Return the customers that were not archived before a moment."""
    wanted = Q(archived_at=None) | Q(archived_at__gt=starts_at)
    return Customer.objects.filter(wanted, tenant_id=tenant_id)


def revenue_between(
    tenant_id: int, customer_ids: Collection[int], starts_at: datetime, ends_at: datetime
) -> dict[int, Revenue]:
    """Return the revenue of each of these customers that has a statement of this time.

    A statement's net amount counts in a time as its period lies in it: whole for a month of a
    monthly plan, a third for a month of a quarterly one.
    """
    statements = (
        Statement.objects.filter(
            tenant_id=tenant_id,
            customer_id__in=customer_ids,
            period_start__lt=ends_at,
            period_end__gt=starts_at,
        )
        .exclude(state=StatementState.VOID)
        .select_related("customer")
        .order_by("period_start", "id")
    )
    drafts = drafts_of([each for each in statements if each.state == StatementState.DRAFT])
    amounts: defaultdict[int, Fraction] = defaultdict(Fraction)
    latest: dict[int, Statement] = {}
    for statement in statements:
        draft = drafts.get(statement.id)
        minor = statement.taxable if draft is None else draft.totals.taxable
        share = _share(statement, starts_at, ends_at)
        amounts[statement.customer_id] += share * _nanos(minor, statement.currency)
        latest[statement.customer_id] = statement
    return {
        customer_id: Revenue(round_half_away(amounts[customer_id]), statement)
        for customer_id, statement in latest.items()
    }


def _share(statement: Statement, starts_at: datetime, ends_at: datetime) -> Fraction:
    inside = min(ends_at, statement.period_end) - max(starts_at, statement.period_start)
    whole = statement.period_end - statement.period_start
    return Fraction(inside // _MICROSECOND, whole // _MICROSECOND)


def _nanos(minor: int, currency: str) -> int:
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
            sum(measures.cost_nanos for _, measures in used.of(_EVERYTHING, place))
            for place in range(len(pieces))
        ]
        for customer_id, used in read_usage(tenant_id, demands).items()
    }


def total_cost(tenant_id: int, piece: Piece) -> int:
    """Return what all usage of a tenant cost in a piece of time."""
    question = UsageQuestion(
        tenant_id=tenant_id, starts_at=piece.starts_at, ends_at=piece.ends_at, interval="none"
    )
    return total_usage(question).cost_nanos
