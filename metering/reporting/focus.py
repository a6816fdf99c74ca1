"""A month of usage as rows of FOCUS 1.0, the billing format of the FinOps Foundation.

One row per UTC day and combination of provider, model, tool, team, customer, agent and feature:
what finance tools group by themselves. The rows sum to exactly what `usage` answers for the month
in UTC.
"""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from operator import add, itemgetter
from typing import Any, Final

from django.db import connection
from psycopg import sql

from common.money import usd_from_nanos
from metering.core.event_stretches import Position, next_stretch, within_stretch
from tenants.scope import tenant_scope

GROUP: Final = ("provider", "model", "tool", "team", "customer", "agent", "feature")
TAGS: Final = ("team", "customer", "agent", "feature")
COLUMNS: Final = (
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
)
# What one transaction reads.
STEP_EVENTS: Final = 100_000
_NAMES: Final = ", ".join(f"e.{name}" for name in GROUP)
_READ: Final = f"""
    SELECT date_trunc('day', e.time, 'UTC'), {_NAMES}, sum(coalesce(e.cost_nanos, 0)),
        sum(e.input_tokens + e.output_tokens), count(*)
    FROM usage_event e WHERE e.tenant_id = {{tenant}} AND NOT e.is_void AND {{within}}
    GROUP BY 1, {_NAMES}
"""
# A day and its group's values; and cost, tokens, events.
_Key = tuple[Any, ...]
_Sums = dict[_Key, tuple[int, int, int]]


def focus_rows(*, tenant_id: int, tenant_name: str, month: date) -> Iterator[list[str]]:
    """Yield the heading, then the rows of the month of `month`.

    Reads in transactions of its own, a stretch of events each, so that a month of millions keeps no
    old rows alive: usage that arrives meanwhile may be in it or not. Holds a day in memory at most.
    """
    yield list(COLUMNS)
    first = datetime(month.year, month.month, 1, tzinfo=UTC)
    until = _next_month(first)
    account = {
        "BillingAccountId": str(tenant_id),
        "BillingAccountName": tenant_name,
        "BillingCurrency": "USD",
        "BillingPeriodStart": _timestamp(first),
        "BillingPeriodEnd": _timestamp(until),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": "Standard",
        "ServiceCategory": "AI and Machine Learning",
    }
    for day, values in _read_days(tenant_id, Position(first), until):
        period = {
            "ChargePeriodStart": _timestamp(day),
            "ChargePeriodEnd": _timestamp(day + timedelta(days=1)),
        }
        for row in values:
            cells = {**account, **period, **_charge(row)}
            yield [cells.get(column, "") for column in COLUMNS]


def _timestamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _next_month(first: datetime) -> datetime:
    return (first + timedelta(days=32)).replace(day=1)


def _read_days(
    tenant_id: int, after: Position, until: datetime
) -> Iterator[tuple[datetime, list[_Key]]]:
    """Yield each day that has events, and its rows: group, cost, tokens, events."""
    sums: _Sums = {}
    while after.time < until:
        with tenant_scope(tenant_id):
            stretch = next_stretch(tenant_id=tenant_id, after=after, to=until, limit=STEP_EVENTS)
            if stretch is not None:
                _add_stretch(sums, tenant_id, within_stretch(after, stretch.end))
        after = Position(until) if stretch is None else stretch.end
        finished = sorted(key for key in sums if key[0] + timedelta(days=1) <= after.time)
        for day, keys in groupby(finished, key=itemgetter(0)):
            yield day, [(*key[1:], *sums.pop(key)) for key in keys]


def _add_stretch(sums: _Sums, tenant_id: int, within: sql.Composable) -> None:
    query = sql.SQL(_READ).format(tenant=sql.Literal(tenant_id), within=within)
    with connection.cursor() as cursor:
        cursor.execute(query.as_string(cursor.cursor))
        for row in cursor.fetchall():
            key, amounts = row[:-3], row[-3:]
            before = sums.get(key, (0, 0, 0))
            sums[key] = tuple(map(add, before, amounts))


def _charge(row: tuple[Any, ...]) -> dict[str, str]:
    """Return the cells of one group of a day. There are no discounts, so all costs are the same."""
    values = dict(zip(GROUP, row, strict=False))
    cost_nanos, tokens, event_count = row[len(GROUP) :]
    is_tool = bool(values["tool"]) and not values["model"]
    quantity, unit = (event_count, "Calls") if is_tool else (tokens, "Tokens")
    name = values["tool"] if is_tool else values["model"]
    cost = usd_from_nanos(cost_nanos)
    provider = values["provider"] or "unknown"
    return {
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), cost),
        "ChargeDescription": f"{name or 'other usage'}, {event_count} calls",
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
