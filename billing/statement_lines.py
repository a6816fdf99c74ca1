"""The lines that statements would have today: subscriptions, versions and usage, rated.

Read within one snapshot, for many customers by few queries.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from billing.charge_models import UNUSED, Used
from billing.models import PlanVersion, Statement, Subscription
from billing.periods import Part
from billing.plans import terms_of
from billing.rating import RatedLine, rate
from billing.statement_periods import StatementPeriod, schedule_of, statement_period
from billing.terms import Metric, UsageCharge, Version
from billing.usage import CustomerUsage, Demand, Piece, read_usage
from common.money import NANOS_PER_USD
from metering.core.periods import EPOCH
from metering.reporting.usage import Measures

# Raise it when the same usage is to be rated otherwise: final statements are then adjusted.
RATING_REVISION: Final = 1
# What a metric counts of measures; a cost in nano-dollars.
_COUNTS: Final[Mapping[Metric, Callable[[Measures], int]]] = {
    **{metric: attrgetter(metric.value) for metric in Metric},
    Metric.TOKENS: lambda measures: measures.input_tokens + measures.output_tokens,
    Metric.COST: attrgetter("cost_nanos"),
}
# Of whom a period is.
CustomerPeriod = tuple[int, StatementPeriod]


class LineKey(NamedTuple):
    """What finds a line again when its statement is rated another time."""

    subscription_id: int
    kind: str
    charge: str
    starts_at: str

    @classmethod
    def of(cls, subscription_id: int, line: RatedLine) -> "LineKey":
        kind, charge, starts_at = line.key
        return cls(subscription_id, kind, charge, starts_at.isoformat())

    @classmethod
    def read(cls, subscription_id: int, text: str) -> "LineKey":
        """Return the key of a line that is stored with this text."""
        return cls(subscription_id, *msgspec.json.decode(text))

    @property
    def text(self) -> str:
        """The key beside the subscription, as it is stored."""
        return msgspec.json.encode(self[1:]).decode()


Lines = dict[LineKey, RatedLine]


class _Subscribed(NamedTuple):
    """A period of a subscription, in parts."""

    subscription: Subscription
    period: StatementPeriod
    parts: list[Part]


class _Input(NamedTuple):
    """What the lines of a subscription's period come from, and where its usage is."""

    subscription_id: int
    parts: Sequence[Part]
    first_piece: int


@dataclass
class Inputs:
    """What the lines of a customer's statement of a period come from."""

    usage: CustomerUsage
    subscribed: list[_Input] = field(default_factory=list)

    def lines(self) -> Lines:
        """Return the lines, rated."""
        lines: Lines = {}
        for subscription_id, parts, first_piece in self.subscribed:
            used_parts = [
                (part, _used_in(part, self.usage, first_piece + number))
                for number, part in enumerate(parts)
            ]
            lines |= {LineKey.of(subscription_id, line): line for line in rate(used_parts)}
        return lines

    @cached_property
    def digest(self) -> str:
        """Return what is equal for equal inputs, and takes a tenth of the time that rating does."""
        content = [
            (
                subscription_id,
                (part.version.number, part.starts_at, part.ends_at, part.is_trial),
                (str(part.day_share), str(part.second_share)),
                self.usage.facts(first_piece + number),
            )
            for subscription_id, parts, first_piece in self.subscribed
            for number, part in enumerate(parts)
        ]
        return sha256(msgspec.json.encode((RATING_REVISION, content))).hexdigest()


def lines_of(tenant_id: int, periods: Collection[CustomerPeriod]) -> dict[CustomerPeriod, Lines]:
    """Return the lines of each customer's statement of each period."""
    inputs = inputs_of(tenant_id, periods)
    return {period: each.lines() for period, each in inputs.items()}


def inputs_of(tenant_id: int, periods: Collection[CustomerPeriod]) -> dict[CustomerPeriod, Inputs]:
    """Return what the lines of each customer's statement of each period come from."""
    subscribed = _subscribed(tenant_id, periods)
    usage = read_usage(
        tenant_id, [_demand(customer_id, each) for customer_id, each in subscribed.items()]
    )
    nothing = CustomerUsage()
    inputs = {period: Inputs(usage.get(period[0], nothing)) for period in periods}
    for customer_id, each in subscribed.items():
        first_piece = 0
        for subscription, period, parts in each:
            own = _Input(subscription.id, parts, first_piece)
            inputs[customer_id, period].subscribed.append(own)
            first_piece += len(parts)
    return inputs


def periods_of(statements: Collection[Statement]) -> set[CustomerPeriod]:
    """Return whose periods these statements are for."""
    return {(each.customer_id, period_of(each)) for each in statements}


def period_of(statement: Statement) -> StatementPeriod:
    """Return what a statement is for."""
    return StatementPeriod(statement.period_start, statement.period_end)


def _subscribed(
    tenant_id: int, periods: Collection[CustomerPeriod]
) -> dict[int, list[_Subscribed]]:
    """Return what each customer subscribed to in these periods, oldest first."""
    first = min((period.starts_at for _, period in periods), default=EPOCH)
    last = max((period.ends_at for _, period in periods), default=EPOCH)
    subscriptions = (
        Subscription.objects.filter(
            tenant_id=tenant_id,
            customer_id__in={customer_id for customer_id, _ in periods},
            starts_at__lt=last,
        )
        .exclude(ends_at__lte=first)
        .select_related("plan")
        .order_by("starts_at", "id")
    )
    versions = _versions(tenant_id, {each.plan_id for each in subscriptions})
    subscribed: defaultdict[int, list[_Subscribed]] = defaultdict(list)
    for subscription in subscriptions:
        if subscription.ends_at == subscription.starts_at:
            continue
        schedule = schedule_of(subscription)
        trial_ends_at = schedule.trial_end(subscription.plan.trial_days)
        for period in schedule.periods_between(max(first, subscription.starts_at), last):
            wanted = statement_period(period)
            if (subscription.customer_id, wanted) in periods:
                parts = schedule.parts(period, versions[subscription.plan_id], trial_ends_at)
                subscribed[subscription.customer_id].append(
                    _Subscribed(subscription, wanted, parts)
                )
    return subscribed


def _versions(tenant_id: int, plan_ids: Collection[int]) -> dict[int, list[Version]]:
    versions: defaultdict[int, list[Version]] = defaultdict(list)
    rows = PlanVersion.objects.filter(tenant_id=tenant_id, plan_id__in=plan_ids)
    for row in rows.order_by("plan_id", "number"):
        versions[row.plan_id].append(Version(row.number, row.starts_at or EPOCH, terms_of(row)))
    return versions


def _demand(customer_id: int, subscribed: Sequence[_Subscribed]) -> Demand:
    parts = [part for each in subscribed for part in each.parts]
    return Demand(
        customer_id,
        tuple(Piece(part.starts_at, part.ends_at) for part in parts),
        frozenset(charge.dimensions for part in parts for charge in _usage_charges(part)),
    )


def _usage_charges(part: Part) -> Iterator[UsageCharge]:
    return (each for each in part.version.terms.charges if isinstance(each, UsageCharge))


def _used_in(part: Part, usage: CustomerUsage, piece: int) -> Mapping[str, Used]:
    return {charge.name: used_of(charge, usage, piece) for charge in _usage_charges(part)}


def used_of(charge: UsageCharge, usage: CustomerUsage, piece: int) -> Used:
    """Add up what a charge counts of the usage in a piece."""
    cells = usage.matching(charge.dimensions, piece, charge.wanted)
    if not cells:
        return UNUSED
    count = _COUNTS[charge.metric]
    counted, requests, unpriced = 0, 0, 0
    costs: defaultdict[tuple[str, str], int] = defaultdict(int)
    for group, measures in cells:
        counted += count(measures)
        requests += measures.requests
        if charge.metric == Metric.COST:
            unpriced += measures.unpriced
            costs[group.get("provider", ""), group.get("model", "")] += measures.cost_nanos
    if charge.metric != Metric.COST:
        return Used(Fraction(counted), requests)
    # In order, since a line's words name percentages in that of the costs.
    in_order = {whose: Fraction(costs[whose], NANOS_PER_USD) for whose in sorted(costs)}
    return Used(Fraction(counted, NANOS_PER_USD), requests, in_order, unpriced)
