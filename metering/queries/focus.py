"""A month of usage as rows of FOCUS 1.0, the billing format of the FinOps Foundation.

One row per UTC day and combination of provider, model, tool, team, customer, agent and feature:
what finance tools group by themselves. The rows sum to exactly what `usage` answers for the month
in UTC.
"""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from django.db import connection

from metering.money import usd_from_nanos

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
ROWS_AT_ONCE: Final = 2_000
READ_DAY: Final = f"""
    SELECT {", ".join(GROUP)}, sum(coalesce(cost_nanos, 0)),
        sum(input_tokens + output_tokens), count(*)
    FROM usage_event
    WHERE tenant_id = %s AND time >= %s AND time < %s AND NOT is_void
    GROUP BY {", ".join(GROUP)}
    ORDER BY {", ".join(f'{name} COLLATE "C"' for name in GROUP)}
"""  # noqa: S608 - built from constants


def focus_rows(*, tenant_id: int, tenant_name: str, month: date) -> Iterator[list[str]]:
    """The heading, then the rows of the month of `month`. Read it within one snapshot."""
    yield list(COLUMNS)
    first = datetime(month.year, month.month, 1, tzinfo=UTC)
    until = _next_month(first)
    account = {
        "BillingAccountId": str(tenant_id),
        "BillingAccountName": tenant_name,
        "BillingCurrency": "USD",
        "BillingPeriodStart": _moment(first),
        "BillingPeriodEnd": _moment(until),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": "Standard",
        "ServiceCategory": "AI and Machine Learning",
    }
    day = first
    while day < until:
        period = {
            "ChargePeriodStart": _moment(day),
            "ChargePeriodEnd": _moment(day + timedelta(days=1)),
        }
        for row in _read_day(tenant_id, day):
            cells = {**account, **period, **_charge(row)}
            yield [cells.get(column, "") for column in COLUMNS]
        day += timedelta(days=1)


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _next_month(first: datetime) -> datetime:
    return (first + timedelta(days=32)).replace(day=1)


def _read_day(tenant_id: int, day: datetime) -> Iterator[tuple[Any, ...]]:
    with connection.chunked_cursor() as database:
        database.execute(READ_DAY, [tenant_id, day, day + timedelta(days=1)])
        while rows := database.fetchmany(ROWS_AT_ONCE):
            yield from rows


def _charge(row: tuple[Any, ...]) -> dict[str, str]:
    """The cells of one group of a day. There are no discounts, so all costs are the same."""
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
