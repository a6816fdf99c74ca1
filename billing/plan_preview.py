"""What a plan that is being written would charge: an example for each charge, and last period's
usage of customers, by the same `rate` as statements.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from django.db.models import F, Q, QuerySet

from billing.currencies import digits_of
from billing.earnings import revenue_of
from billing.models import Anchor, Customer
from billing.models.plans import Plan
from billing.periods import Part, Period, Schedule
from billing.plans import terms_of
from billing.preview import GivenUsage, rate_given
from billing.rating import rate
from billing.statement_lines import used_of
from billing.terms import ChargeModel, FlatCharge, Metric, Terms, UsageCharge, Version
from billing.totals import round_half_away
from billing.usage import CustomerUsage, Demand, Piece, read_usage

# So many customers are rated for one preview.
CUSTOMERS_MAX: Final = 100
# Since when a plan's calendar is asked for its periods.
_LONG_AGO: Final = timedelta(days=1500)
_TYPICAL: Final = {
    Metric.REQUESTS: Decimal(1_200),
    Metric.TOOL_CALLS: Decimal(1_200),
    Metric.COST: Decimal(1_000),
}
_TYPICAL_TOKENS: Final = Decimal(25_000_000)


class Example(NamedTuple):
    """What a quantity of a charge costs, exact."""

    charge: str
    quantity: Decimal
    metric: Metric | None
    amount: Fraction


def examples_of(terms: Terms, period: Period) -> list[Example]:
    """Return an example for each charge, of a quantity that its rates make interesting."""
    return [_example(charge, period) for charge in terms.charges]


def _example(charge: FlatCharge | UsageCharge, period: Period) -> Example:
    parts = [_part(Terms(charges=[charge]), period)]
    if isinstance(charge, FlatCharge):
        amount = sum((line.amount for line in rate_given(parts, [])), Fraction(0))
        return Example(charge.name, Decimal(1), None, amount)
    quantity = _telling_quantity(charge)
    values = {
        name: wanted if isinstance(wanted, str) else wanted[0]
        for name, wanted in charge.filter.items()
    }
    usage = [GivenUsage(charge.metric, quantity, values)]
    amount = sum((line.amount for line in rate_given(parts, usage)), Fraction(0))
    return Example(charge.name, quantity, charge.metric, amount)


def _telling_quantity(charge: UsageCharge) -> Decimal:
    """A quantity beyond what is included, in the last tier but one, or in the third package."""
    bounds = [tier.up_to for tier in charge.tiers if tier.up_to is not None]
    if charge.model in (ChargeModel.GRADUATED, ChargeModel.VOLUME) and bounds:
        quantity = bounds[-1] * 6 / 5
    elif charge.model == ChargeModel.PACKAGE and charge.package_size:
        quantity = Decimal(charge.package_size) * 5 / 2
    else:
        quantity = _TYPICAL.get(charge.metric, _TYPICAL_TOKENS)
    rounded = (charge.included_units + quantity).to_integral_value()
    return max(rounded, Decimal(1))


class WouldBill(NamedTuple):
    """What a customer's usage of the last period comes to, before tax, in minor units; `billed` is
    what its statements charge for that time (None: nothing is billed yet).
    """

    customer: Customer
    amount: int
    billed: int | None


@dataclass(frozen=True)
class Replay:
    """A period under a plan: the last one, or if nothing was used in that, the present one so far.
    `left_out` is how many customers were not rated.
    """

    starts_at: datetime
    ends_at: datetime
    is_over: bool
    rows: Sequence[WouldBill]
    left_out: int

    @property
    def amount(self) -> int:
        return sum(row.amount for row in self.rows)

    @property
    def billed(self) -> int:
        return sum(row.billed or 0 for row in self.rows)


def customers_on(plan: Plan, now: datetime) -> QuerySet[Customer]:
    """Return the customers who are on a plan now."""
    lasting = Q(subscriptions__ends_at=None) | Q(subscriptions__ends_at__gt=now)
    begun = lasting & ~Q(subscriptions__ends_at=F("subscriptions__starts_at"))
    return Customer.objects.filter(
        begun,
        tenant_id=plan.tenant_id,
        subscriptions__plan=plan,
        subscriptions__starts_at__lte=now,
    ).distinct()


def replay(plan: Plan, terms: Terms, customers: QuerySet[Customer], now: datetime) -> Replay:
    """Rate the last whole period of customers who pay in the plan's currency, as if they had been
    on these terms all of it; where nothing was used in it, the present one so far, as if it was
    over. Trials are left out. Within a snapshot.
    """
    paying = customers.filter(currency=plan.currency).order_by("name", "id")
    chosen = list(paying[:CUSTOMERS_MAX])
    ids = [each.id for each in chosen]
    dimensions = frozenset(charge.dimensions for charge in _usage_charges(terms))
    period, is_over = last_period(plan, now), True
    usage = _usage(plan.tenant_id, ids, period, dimensions)
    if dimensions and all(used.is_empty for used in usage.values()):
        period, is_over = present_period(plan, now), False
        usage = _usage(plan.tenant_id, ids, period, dimensions)
    billed = _billed(plan, ids, period)
    rows = [
        WouldBill(
            each, _amount(_part(terms, period), usage[each.id], plan.currency), billed.get(each.id)
        )
        for each in chosen
    ]
    return Replay(
        period.scheduled_start,
        period.scheduled_end,
        is_over,
        rows,
        paying.count() - len(chosen),
    )


def _billed(plan: Plan, customer_ids: Sequence[int], period: Period) -> dict[int, int]:
    """Return what statements charge each of these customers for the months of a period."""
    zone = ZoneInfo(plan.timezone)
    first, last = (
        at.astimezone(zone).date().replace(day=1)
        for at in (period.scheduled_start, period.scheduled_end - timedelta(microseconds=1))
    )
    billed: defaultdict[int, int] = defaultdict(int)
    for (customer_id, _), amount in revenue_of(plan.tenant_id, customer_ids, first, last).items():
        billed[customer_id] += amount
    return billed


def terms_in_force(plan: Plan, now: datetime) -> Terms:
    """Return the terms of the version that is in force; of the first if none has begun."""
    versions = list(plan.versions.order_by("number"))
    begun = [each for each in versions if each.starts_at is None or each.starts_at <= now]
    return terms_of((begun or versions[:1])[-1])


def last_period(plan: Plan, now: datetime) -> Period:
    """Return the last period that is over, by the calendar of the plan's zone."""
    begins = present_period(plan, now).scheduled_start
    return _period_at(plan, begins - timedelta(microseconds=1), now)


def present_period(plan: Plan, now: datetime) -> Period:
    """Return the period that holds now, by the calendar of the plan's zone."""
    return _period_at(plan, now, now)


def _period_at(plan: Plan, at: datetime, now: datetime) -> Period:
    schedule = Schedule(
        interval=plan.interval,
        anchor=Anchor.CALENDAR,
        timezone=plan.timezone,
        starts_at=now - _LONG_AGO,
    )
    period = schedule.period_at(at)
    assert period is not None, "the schedule began long ago and has no end"
    return period


def _usage(
    tenant_id: int,
    customer_ids: Sequence[int],
    period: Period,
    dimensions: frozenset[frozenset[str]],
) -> dict[int, CustomerUsage]:
    pieces = (Piece(period.starts_at, period.ends_at),)
    return read_usage(tenant_id, [Demand(each, pieces, dimensions) for each in customer_ids])


def _usage_charges(terms: Terms) -> list[UsageCharge]:
    return [each for each in terms.charges if isinstance(each, UsageCharge)]


def _amount(part: Part, usage: CustomerUsage, currency: str) -> int:
    used = {charge.name: used_of(charge, usage, 0) for charge in _usage_charges(part.version.terms)}
    lines = rate([(part, used)])
    exact = sum((line.amount for line in lines), Fraction(0))
    return round_half_away(exact * 10 ** digits_of(currency))


def _part(terms: Terms, period: Period) -> Part:
    """The whole period under one version."""
    whole = Fraction(1)
    return Part(
        version=Version(1, None, terms),
        starts_at=period.scheduled_start,
        ends_at=period.scheduled_end,
        is_trial=False,
        day_share=whole,
        second_share=whole,
    )
