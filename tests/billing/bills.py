"""Bills as providers write them."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from billing.provider_bills.importing import Imported, import_bill
from billing.provider_bills.lines import BillLines
from billing.provider_bills.reports import read_report
from common.json_bodies import JsonObject
from tests.factories import Account

DAY = date(2026, 11, 3)
Item = tuple[str | None, str]


def openai_bucket(day: date, items: Sequence[Item]) -> JsonObject:
    """A day of OpenAI's costs: items with amounts in dollars, written as JSON numbers."""
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return {
        "object": "bucket",
        "start_time": int(begin.timestamp()),
        "end_time": int((begin + timedelta(days=1)).timestamp()),
        "results": [
            {
                "object": "organization.costs.result",
                "amount": {"value": f"@{usd}@", "currency": "usd"},
                "line_item": item,
                "project_id": None,
                "organization_id": "org-1",
            }
            for item, usd in items
        ],
    }


def openai_page(*buckets: JsonObject) -> bytes:
    """OpenAI's answer with these days. Amounts are numbers there, with all their digits."""
    page = {"object": "page", "data": list(buckets), "has_more": False, "next_page": None}
    return json.dumps(page).replace('"@', "").replace('@"', "").encode()


def anthropic_bucket(day: date, items: Sequence[Item]) -> JsonObject:
    """A day of Anthropic's cost report: models with amounts in cents, or other costs without."""
    return {
        "starting_at": f"{day}T00:00:00Z",
        "ending_at": f"{day + timedelta(days=1)}T00:00:00Z",
        "results": [
            {
                "amount": cents,
                "currency": "USD",
                "model": model,
                "cost_type": "tokens" if model else "web_search",
                "description": f"{model} Usage - Input Tokens" if model else "Web Search Usage",
                "context_window": "0-200k" if model else None,
                "service_tier": "standard",
                "token_type": "uncached_input_tokens",
                "workspace_id": None,
            }
            for model, cents in items
        ],
    }


def anthropic_page(*buckets: JsonObject) -> bytes:
    """Anthropic's answer with these days."""
    return json.dumps({"data": list(buckets), "has_more": False, "next_page": None}).encode()


BEDROCK_HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
FOCUS_COLUMNS = (
    *("BilledCost", "BillingCurrency", "ChargeCategory", "ChargePeriodEnd", "ChargePeriodStart"),
    *("ProviderName", "ResourceId", "ServiceCategory", "ServiceName", "SkuId"),
)


def focus_bill(*rows: JsonObject) -> bytes:
    """A bill in FOCUS: hours of a Claude model on Bedrock, unless told otherwise."""
    usual = {
        "BilledCost": "0.10",
        "BillingCurrency": "USD",
        "ChargeCategory": "Usage",
        "ChargePeriodStart": "2026-11-03 22:00:00",
        "ChargePeriodEnd": "2026-11-03 23:00:00",
        "ProviderName": "AWS",
        "ResourceId": f"arn:aws:bedrock:us-east-1::foundation-model/{BEDROCK_HAIKU}",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Amazon Bedrock",
        "SkuId": "SKU1",
    }
    lines = [FOCUS_COLUMNS, *([{**usual, **row}[name] for name in FOCUS_COLUMNS] for row in rows)]
    return "".join(",".join(f'"{cell}"' for cell in line) + "\r\n" for line in lines).encode()


def import_for(account: Account, bill: BillLines | bytes, *, of: str = "") -> Imported:
    """Import a bill, or a report of OpenAI or Anthropic."""
    lines = bill if isinstance(bill, BillLines) else read_report(bill)
    with account.scope():
        return import_bill(tenant=account.tenant, actor="tests", account=of, bill=lines)
