"""Usage as rows of FOCUS 1.0, the billing format of the FinOps Foundation.

One row per UTC day and combination of provider, model, tool, team, customer, agent and feature:
what finance tools group by themselves. The rows sum to exactly what `usage` answers for the range.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from operator import add
from typing import Final, NamedTuple

from dateutil.relativedelta import relativedelta

from common.formats import moment
from common.money import usd_from_nanos
from metering.core.event_stretches import Position, read_stretches
from metering.reporting.conditions import on_events
from metering.reporting.question import EVERYTHING, Filters

GROUP: Final = ("provider", "model", "tool", "team", "customer", "agent", "feature")
TAGS: Final = ("team", "customer", "agent", "feature")
# Those of the standard, in its order. What the service knows nothing of stays empty.
COLUMNS: Final = (
    *("AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName"),
    *("BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory"),
    *("ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd"),
    *("ChargePeriodStart", "CommitmentDiscountCategory", "CommitmentDiscountId"),
    *("CommitmentDiscountName", "CommitmentDiscountStatus", "CommitmentDiscountType"),
    *("ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice"),
    *("EffectiveCost", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory"),
    *("PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "RegionId"),
    *("RegionName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory"),
    *("ServiceName", "SkuId", "SkuPriceId", "SubAccountId", "SubAccountName", "Tags"),
)
# What one transaction reads.
STEP_EVENTS: Final = 100_000
_NAMES: Final = ", ".join(f"e.{name}" for name in GROUP)
_READ: Final = f"""
    SELECT date_trunc('day', e.time, 'UTC'), {_NAMES}, sum(coalesce(e.cost_nanos, 0)),
        sum(e.input_tokens + e.output_tokens), count(*)
    FROM usage_event e WHERE e.tenant_id = %s AND NOT e.is_void AND {{within}} AND {{matching}}
    GROUP BY 1, {_NAMES}
"""


class _Group(NamedTuple):
    """What a row adds up: a day's events with these values, in the order of GROUP."""

    day: datetime
    values: tuple[str, ...]


class _Sums(NamedTuple):
    cost_nanos: int = 0
    tokens: int = 0
    events: int = 0


def focus_rows(
    *,
    tenant_id: int,
    tenant_name: str,
    starts_at: datetime,
    ends_at: datetime,
    filters: Filters = EVERYTHING,
) -> Iterator[list[str]]:
    """Yield the heading, then the rows of the usage from `starts_at` up to `ends_at` that matches.

    Reads in transactions of its own, a stretch of events each, so that a month of millions keeps no
    old rows alive: usage that arrives meanwhile may be in it or not. Holds a day in memory at most.
    """
    yield list(COLUMNS)
    account = {
        "BillingAccountId": str(tenant_id),
        "BillingAccountName": tenant_name,
        "BillingCurrency": "USD",
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": "Standard",
        "ServiceCategory": "AI and Machine Learning",
    }
    for group, sums in _read_days(tenant_id, Position(starts_at), ends_at, filters):
        month = group.day.replace(day=1)
        period = {
            "BillingPeriodStart": moment(month),
            "BillingPeriodEnd": moment(month + relativedelta(months=1)),
            "ChargePeriodStart": moment(max(group.day, starts_at)),
            "ChargePeriodEnd": moment(min(group.day + timedelta(days=1), ends_at)),
        }
        cells = {**account, **period, **_charge(dict(zip(GROUP, group.values, strict=True)), sums)}
        yield [cells.get(column, "") for column in COLUMNS]


def _read_days(
    tenant_id: int, after: Position, until: datetime, filters: Filters
) -> Iterator[tuple[_Group, _Sums]]:
    """Yield what each day's groups add up to, once the day is over."""
    sums: dict[_Group, _Sums] = {}
    matching = on_events(filters)

    def finished(at: datetime) -> Iterator[tuple[_Group, _Sums]]:
        for group in sorted(group for group in sums if group.day + timedelta(days=1) <= at):
            yield group, sums.pop(group)

    pieces = read_stretches(
        _READ.replace("{matching}", matching.sql),
        [tenant_id, *matching.parameters],
        tenant_id=tenant_id,
        after=after,
        to=until,
        limit=STEP_EVENTS,
    )
    for end, rows in pieces:
        for day, *values, cost_nanos, tokens, events in rows:
            group = _Group(day, tuple(values))
            before = sums.get(group, _Sums())
            sums[group] = _Sums(*map(add, before, (cost_nanos, tokens, events)))
        yield from finished(end.time)
    yield from finished(until + timedelta(days=1))


def _charge(values: Mapping[str, str], sums: _Sums) -> dict[str, str]:
    """Return the cells of one group of a day. There are no discounts, so all costs are the same."""
    is_tool = bool(values["tool"]) and not values["model"]
    quantity, unit = (sums.events, "Calls") if is_tool else (sums.tokens, "Tokens")
    name = values["tool"] if is_tool else values["model"]
    cost = usd_from_nanos(sums.cost_nanos)
    provider = values["provider"] or "unknown"
    return {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), cost),
        "ChargeDescription": f"{name or 'other usage'}, {sums.events} calls",
        "ConsumedQuantity": str(quantity),
        "ConsumedUnit": unit,
        "PricingQuantity": str(quantity),
        "PricingUnit": unit,
        "InvoiceIssuerName": provider,
        "ProviderName": provider,
        "PublisherName": provider,
        "ResourceId": name,
        "ResourceName": name,
        "ResourceType": "Tool" if is_tool else "Model",
        "ServiceName": f"{provider} {'tools' if is_tool else 'models'}",
        "SkuId": f"{provider}/{name}",
        "SubAccountId": values["team"],
        "SubAccountName": values["team"],
        "Tags": json.dumps({tag: values[tag] for tag in TAGS if values[tag]}, ensure_ascii=False),
    }
