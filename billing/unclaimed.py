"""Usage that is no customer's. Read within one snapshot."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from django.db.models import Q

from billing.customers import LINK_DIMENSIONS
from billing.models import CustomerLink
from metering.reporting.intervals import Bucket
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import measures_in
from metering.rollups.sets import OTHER

# Links of one dimension by value.
_Links = Mapping[str, Mapping[str, list[CustomerLink]]]


class Unclaimed(NamedTuple):
    """What calls with a value of a dimension used that belongs to no customer; without a value: "".
    `is_rest` is the long tail of values, which cannot be told apart.
    """

    value: str
    calls: int
    cost_nanos: int
    is_rest: bool


def unclaimed_by(
    tenant_id: int, dimension: str, starts_at: datetime, ends_at: datetime
) -> list[Unclaimed]:
    """Return the usage of no customer by the values of a dimension, the highest cost first."""
    links = _links_of(tenant_id)
    # The chosen dimension and the linked ones tell whether a call has a customer.
    linked = [name for name in LINK_DIMENSIONS if name in links and name != dimension]
    group_by = (dimension, *linked)
    bounds = [starts_at, *_cuts(tenant_id, starts_at, ends_at), ends_at]
    portion = [Bucket(first, first, last) for first, last in pairwise(bounds)]
    question = UsageQuestion(
        tenant_id=tenant_id,
        starts_at=starts_at,
        ends_at=ends_at,
        interval="none",
    )
    calls: defaultdict[str, int] = defaultdict(int)
    costs: defaultdict[str, int] = defaultdict(int)
    for (number, key), measures in measures_in(question, portion, group_by, None).items():
        group = dict(zip(group_by, key, strict=True))
        if _is_claimed(links, group, portion[number - 1].start):
            continue
        calls[group[dimension]] += measures.requests + measures.tool_calls
        costs[group[dimension]] += measures.cost_nanos
    rows = [Unclaimed(value, calls[value], costs[value], value == OTHER) for value in calls]
    return sorted(rows, key=lambda row: (-row.cost_nanos, -row.calls, row.value))


def _links_of(tenant_id: int) -> _Links:
    links: defaultdict[str, defaultdict[str, list[CustomerLink]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for link in CustomerLink.objects.filter(tenant_id=tenant_id):
        links[link.dimension][link.value].append(link)
    return links


def _cuts(tenant_id: int, starts_at: datetime, ends_at: datetime) -> Iterator[datetime]:
    """Return when links begin and end within a time."""
    timed = CustomerLink.objects.filter(
        ~Q(starts_at=None) | ~Q(ends_at=None), tenant_id=tenant_id
    ).values_list("starts_at", "ends_at")
    moments = {at for pair in timed for at in pair if at is not None}
    return iter(sorted(at for at in moments if starts_at < at < ends_at))


def _is_claimed(links: _Links, group: Mapping[str, str], at: datetime) -> bool:
    """Whether a link has this usage. A piece lies inside or outside of each link."""
    return any(
        (link.starts_at is None or link.starts_at <= at)
        and (link.ends_at is None or at < link.ends_at)
        for name, value in group.items()
        if name in links
        for link in links[name].get(value, ())
    )
