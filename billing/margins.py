"""Margins: what customers are charged against what their usage cost, exactly.

Revenue is in the customer's currency. Costs are in US dollars, so a margin is told where the
revenue is, too; sums are by currency.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final, NamedTuple

from billing.margin_costs import Cost, costs_of_features, read_costs
from billing.margin_months import months_between, split
from billing.margin_revenue import Revenue, read_revenue
from billing.models import Customer, Plan, Subscription
from common.money import NANOS_PER_USD
from metering.reporting.metrics import share

GROUPS: Final = ("customer", "plan", "feature", "month")
USD: Final = "USD"
NANOS_PER_CENT: Final = NANOS_PER_USD // 100
MONTHS_MAX: Final = 24


@dataclass
class Margin:
    """What a group brought in and cost. Revenue is in minor units of the currency."""

    currency: str
    revenue: int = 0
    cost_nanos: int = 0
    # Whether some revenue was shared out by cost, because its charge names no feature.
    is_allocated: bool = False
    # Whether some revenue is of drafts, which move until they are final.
    has_drafts: bool = False

    @property
    def margin_nanos(self) -> int | None:
        """Revenue less cost; None where they are in different currencies."""
        if self.currency != USD:
            return None
        return self.revenue * NANOS_PER_CENT - self.cost_nanos

    @property
    def margin_share(self) -> Decimal | None:
        """The margin as a share of the revenue; None without revenue."""
        nanos = self.margin_nanos
        if nanos is None or self.revenue <= 0:
            return None
        return share(nanos, self.revenue * NANOS_PER_CENT)


class MarginRow(NamedTuple):
    """A group's margin. The key is None for usage without a customer, "" for no value."""

    key: str | None
    name: str
    margin: Margin


class Margins(NamedTuple):
    """Rows, those at a loss first, months in their order; and their sums by currency."""

    rows: Sequence[MarginRow]
    totals: Sequence[Margin]


class _Group(NamedTuple):
    """What a row is of: None for usage without a customer."""

    value: int | str | date | None
    has_no_customer: bool = False


WITHOUT_CUSTOMER: Final = _Group(None, has_no_customer=True)


def read_margins(
    tenant_id: int, first: date, last: date, *, group_by: str, with_drafts: bool = True
) -> Margins:
    """Return the margins of whole months, from the first to the last. Within a snapshot."""
    reading = _Reading(tenant_id, group_by)
    costs = read_costs(tenant_id, months_between(first, last), by_feature=group_by == "feature")
    for cost in costs:
        reading.add_cost(cost)
    features = costs_of_features(costs)
    for revenue in read_revenue(tenant_id, first, last, with_drafts=with_drafts):
        reading.add_revenue(revenue, features)
    return reading.margins()


class _Reading:
    """Margins that are being added up."""

    def __init__(self, tenant_id: int, group_by: str) -> None:
        self._group_by = group_by
        self._customers = Customer.objects.filter(tenant_id=tenant_id).in_bulk()
        subscriptions = Subscription.objects.filter(tenant_id=tenant_id)
        self._plans = dict(subscriptions.values_list("id", "plan_id"))
        self._plan_names = dict(Plan.objects.filter(tenant_id=tenant_id).values_list("id", "name"))
        self._margins: dict[tuple[_Group, str], Margin] = {}

    def add_cost(self, cost: Cost) -> None:
        """Count what usage cost."""
        if cost.customer_id is None:
            self._margin(WITHOUT_CUSTOMER, USD).cost_nanos += cost.nanos
            return
        group = self._group(cost.customer_id, cost.plan_id, cost.month, cost.feature)
        self._margin(group, self._currency(cost.customer_id)).cost_nanos += cost.nanos

    def add_revenue(
        self, revenue: Revenue, features: Mapping[tuple[int, date], Mapping[str, int]]
    ) -> None:
        """Count what was charged; where it is for several features, by what each of them cost."""
        parts: Iterable[tuple[str, int]] = [("", revenue.amount)]
        is_allocated = False
        if self._group_by == "feature":
            costs = features.get((revenue.customer_id, revenue.month), {})
            parts = _by_feature(revenue, costs)
            is_allocated = revenue.features is None or len(revenue.features) > 1
        for feature, amount in parts:
            group = self._group(
                revenue.customer_id, self._plans[revenue.subscription_id], revenue.month, feature
            )
            margin = self._margin(group, self._currency(revenue.customer_id))
            margin.revenue += amount
            margin.is_allocated |= is_allocated
            margin.has_drafts |= revenue.is_draft

    def margins(self) -> Margins:
        """Return the rows in order, and their sums."""
        totals: dict[str, Margin] = {}
        for (_, currency), margin in self._margins.items():
            total = totals.setdefault(currency, Margin(currency))
            total.revenue += margin.revenue
            total.cost_nanos += margin.cost_nanos
            total.is_allocated |= margin.is_allocated
            total.has_drafts |= margin.has_drafts
        rows = [self._row(group, margin) for (group, _), margin in self._margins.items()]
        rows.sort(key=self._place)
        return Margins(rows, [totals[currency] for currency in sorted(totals)])

    def _margin(self, group: _Group, currency: str) -> Margin:
        return self._margins.setdefault((group, currency), Margin(currency))

    def _currency(self, customer_id: int) -> str:
        return self._customers[customer_id].currency

    def _group(self, customer_id: int, plan_id: int | None, month: date, feature: str) -> _Group:
        values = {"customer": customer_id, "plan": plan_id, "month": month, "feature": feature}
        return _Group(values[self._group_by])

    def _row(self, group: _Group, margin: Margin) -> MarginRow:
        key: str | None
        match group.value:
            case None if group.has_no_customer:
                key, name = None, "Usage without a customer"
            case None | "":
                key, name = "", f"No {self._group_by}"
            case date() as month:
                key, name = f"{month:%Y-%m}", f"{month:%B %Y}"
            case int() as row_id if self._group_by == "plan":
                key, name = str(row_id), self._plan_names[row_id]
            case int() as row_id:
                key, name = self._customers[row_id].key, self._customers[row_id].name
            case value:
                key, name = value, value
        return MarginRow(key, name, margin)

    def _place(self, row: MarginRow) -> tuple[bool, int, str, str]:
        """Return where a row stands: months in their order, other groups by margin."""
        nanos = row.margin.margin_nanos
        by_margin = 0 if nanos is None or self._group_by == "month" else nanos
        is_last = nanos is None or (self._group_by == "month" and row.key is None)
        return is_last, by_margin, row.key or "", row.margin.currency


def _by_feature(revenue: Revenue, costs: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    """Return what of an amount each feature brought in: all of it the only one that the charge
    names, else by what the features cost; where none did, all is no feature's.
    """
    named = revenue.features
    if named is not None and len(named) == 1:
        return [(named[0], revenue.amount)]
    weights = {
        feature: nanos
        for feature, nanos in sorted(costs.items())
        if nanos > 0 and (named is None or feature in named)
    }
    if not weights:
        return [("", revenue.amount)]
    return zip(weights, split(revenue.amount, list(weights.values())), strict=True)
