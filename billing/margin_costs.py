"""What usage cost at its providers, by the customer whose usage it is, month, plan and feature.

Usage without a customer is what is left of the total, so the parts always add up to it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from itertools import pairwise
from typing import Final, NamedTuple

from billing.margin_months import month_begin, next_month
from billing.models import Customer, Subscription
from billing.usage import Demand, Piece, read_usage
from metering.reporting.intervals import Bucket
from metering.reporting.kept import require_sums
from metering.reporting.question import InvalidQuestion, UsageQuestion
from metering.reporting.usage import measures_in
from metering.rollups.sets import OTHER

CELLS_MAX: Final = 100_000


class Cost(NamedTuple):
    """What a customer's usage cost in a part of a month; None: usage without a customer."""

    customer_id: int | None
    plan_id: int | None
    month: date
    feature: str
    nanos: int


class _Part(NamedTuple):
    """A part of a month, and the plan that a customer is on in it."""

    month: date
    piece: Piece
    plan_id: int | None


def read_costs(tenant_id: int, months: Sequence[date], *, by_feature: bool) -> list[Cost]:
    """Return what the usage of these months, in UTC, cost. Within a snapshot."""
    dimensions = frozenset({"feature"} if by_feature else ())
    total = _total(tenant_id, months, by_feature=by_feature)
    parts = _parts(tenant_id, months)
    usage = read_usage(
        tenant_id,
        [
            Demand(customer_id, tuple(part.piece for part in each), frozenset({dimensions}))
            for customer_id, each in parts.items()
        ],
    )
    costs: defaultdict[Cost, int] = defaultdict(int)
    for customer_id, each in parts.items():
        for index, part in enumerate(each):
            for group, measures in usage[customer_id].of(dimensions, index):
                feature = _feature(group["feature"]) if by_feature else ""
                total[part.month, feature] -= measures.cost_nanos
                costs[Cost(customer_id, part.plan_id, part.month, feature, 0)] += (
                    measures.cost_nanos
                )
    for (month, feature), nanos in total.items():
        costs[Cost(None, None, month, feature, 0)] += nanos
    return [key._replace(nanos=nanos) for key, nanos in costs.items() if nanos]


def _total(
    tenant_id: int, months: Sequence[date], *, by_feature: bool
) -> defaultdict[tuple[date, str], int]:
    """Return what all usage cost, by month and feature."""
    question = UsageQuestion(
        tenant_id=tenant_id,
        starts_at=month_begin(months[0]),
        ends_at=month_begin(next_month(months[-1])),
        interval="month",
    )
    require_sums(question)
    buckets = [
        Bucket(begin, begin, month_begin(next_month(month)))
        for month in months
        for begin in [month_begin(month)]
    ]
    group_by = ("feature",) if by_feature else ()
    total: defaultdict[tuple[date, str], int] = defaultdict(int)
    cells = measures_in(question, buckets, group_by, None, limit=CELLS_MAX + 1)
    if len(cells) > CELLS_MAX:
        detail = f"These months have more than {CELLS_MAX:,} features; ask for fewer months."
        raise InvalidQuestion("range_too_long", detail)
    for (number, key), measures in cells.items():
        total[months[number - 1], _feature(key[0]) if key else ""] += measures.cost_nanos
    return total


def _feature(value: str) -> str:
    """Return a feature as readers see it."""
    return OTHER.strip() if value == OTHER else value


def _parts(tenant_id: int, months: Sequence[date]) -> dict[int, list[_Part]]:
    """Return the months of every customer, cut where it changes plans."""
    begin, end = month_begin(months[0]), month_begin(next_month(months[-1]))
    subscriptions: defaultdict[int, list[Subscription]] = defaultdict(list)
    rows = Subscription.objects.filter(tenant_id=tenant_id, starts_at__lt=end)
    for row in rows.exclude(ends_at__lte=begin).order_by("starts_at", "id"):
        subscriptions[row.customer_id].append(row)
    customers = Customer.objects.filter(tenant_id=tenant_id).order_by("id")
    return {
        customer_id: [
            part for month in months for part in _parts_of(month, subscriptions[customer_id])
        ]
        for customer_id in customers.values_list("id", flat=True)
    }


def _parts_of(month: date, subscriptions: Sequence[Subscription]) -> list[_Part]:
    """Return a month in parts. Time without a plan counts with the plan before, or the first."""
    begin, end = month_begin(month), month_begin(next_month(month))
    inside = [
        each
        for each in subscriptions
        if each.starts_at < end and (each.ends_at is None or each.ends_at > begin)
    ]
    cuts = sorted({each.starts_at for each in inside[1:] if begin < each.starts_at < end})
    return [
        _Part(month, Piece(*bounds), _plan_at(bounds[0], inside))
        for bounds in pairwise([begin, *cuts, end])
    ]


def _plan_at(at: datetime, subscriptions: Sequence[Subscription]) -> int | None:
    plan_ids = [each.plan_id for each in subscriptions if each.starts_at <= at]
    plan_ids = plan_ids or [each.plan_id for each in subscriptions[:1]]
    return plan_ids[-1] if plan_ids else None


def costs_of_features(costs: Sequence[Cost]) -> Mapping[tuple[int, date], Mapping[str, int]]:
    """Return what each customer's features cost in each month."""
    of_features: defaultdict[tuple[int, date], defaultdict[str, int]] = defaultdict(
        lambda: defaultdict(int)
    )
    for cost in costs:
        if cost.customer_id is not None:
            of_features[cost.customer_id, cost.month][cost.feature] += cost.nanos
    return of_features
