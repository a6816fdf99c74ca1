"""Bills, reconciliations and margins over HTTP."""

import gzip
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing.tasks_reconciliation import reconcile
from common.api.parsing import BODY_BYTES_MAX
from tests.billing.bills import (
    BEDROCK_HAIKU,
    anthropic_bucket,
    anthropic_page,
    focus_bill,
    openai_bucket,
    openai_page,
)
from tests.billing.scene import PER_REQUEST, Billed, month_start
from tests.cases import each_case
from tests.factories import Account, make_event, send
from tests.metering.api.caller import Caller, caller

DAY = datetime.now(UTC).date() - timedelta(days=1)
BILLS = "/v1/provider-bills"


def post_bill(
    api: Caller, body: bytes, content_type: str = "application/json", query: str = ""
) -> object:
    answer = api.send("POST", BILLS + query, body, content_type)
    assert answer.status == 200, answer.body
    return answer.body


def test_bills_are_imported_in_each_format_and_listed(account: Account) -> None:
    api = caller(account)
    report = openai_page(openai_bucket(DAY, [("gpt-4o, input", "0.10"), ("images", "2")]))
    imported = {"source": "openai", "lines": 2, "days": 1, "changed_days": 1, "skipped": 0}
    assert post_bill(api, report) == imported
    assert post_bill(api, report) == {**imported, "changed_days": 0}
    post_bill(api, anthropic_page(anthropic_bucket(DAY, [("claude-haiku-4-5", "1")])))
    bill = focus_bill({"ServiceCategory": "Storage"}, {})
    assert post_bill(api, bill, "text/csv; charset=utf-8", "?account=eu") == {
        "source": "focus",
        "lines": 1,
        "days": 1,
        "changed_days": 1,
        "skipped": 1,
    }
    listed = api.get(BILLS).body["data"]
    assert [
        (row["provider"], row["model"] or row["line_item"], row["amount_usd"]) for row in listed
    ] == [
        ("openai", "gpt-4o", "0.1"),
        ("openai", "images", "2"),
        ("anthropic", "claude-haiku-4-5", "0.01"),
        ("aws", f"regional.{BEDROCK_HAIKU}", "0.1"),
    ]
    assert [row["provider"] for row in api.get(BILLS, account="eu").body["data"]] == ["aws"]
    of_day = {"from": DAY.isoformat(), "to": DAY.isoformat(), "provider": "anthropic"}
    assert len(api.get(BILLS, **of_day).body["data"]) == 1


def test_a_bill_may_be_compressed_and_is_bounded(account: Account) -> None:
    api = caller(account)
    report = openai_page(openai_bucket(DAY, [(None, "1")]))
    packed = api.send("POST", BILLS, gzip.compress(report), Content_Encoding="gzip")
    assert (packed.status, packed.body["lines"]) == (200, 1)
    large = api.send(
        "POST", BILLS, gzip.compress(b" " * (BODY_BYTES_MAX + 1)), Content_Encoding="gzip"
    )
    assert (large.status, large.code) == (413, "too_large")
    other = api.send("POST", BILLS, b"<xml/>", "application/xml")
    assert (other.status, other.code) == (415, "unsupported_media_type")
    empty = api.send("POST", BILLS, b"", "text/csv")
    assert (empty.status, empty.code) == (400, "malformed_bill")


def test_each_faulty_line_is_named_and_nothing_stored(account: Account) -> None:
    api = caller(account)
    refused = api.send(
        "POST", BILLS, focus_bill({}, {"BilledCost": "x"}, {"BillingCurrency": "EUR"}), "text/csv"
    )
    assert (refused.status, refused.code) == (400, "invalid_bill")
    assert refused.pointers == {"/lines/3/BilledCost", "/lines/4/BillingCurrency"}
    assert refused.body["detail"] == "/lines/3/BilledCost: must be a decimal number."
    assert api.get(BILLS).body["data"] == []


def test_a_reconciliation_tells_what_differs(account: Account) -> None:
    api = caller(account)
    time = f"{DAY}T12:00:00+00:00"
    send(account, [make_event(time=time, input_tokens=1000, output_tokens=100)])
    post_bill(api, anthropic_page(anthropic_bucket(DAY, [("claude-sonnet-4-5", "100.45")])))
    days = {"from": DAY.isoformat(), "to": DAY.isoformat()}
    begun = api.post("/v1/reconciliations", days)
    assert (begun.status, begun.body["state"], begun.body["results"]) == (202, "waiting", {})
    reconcile()
    address = f"/v1/reconciliations/{begun.body['id']}"
    shown = api.get(address).body
    assert (shown["state"], shown["from"], shown["to"]) == (
        "done",
        DAY.isoformat(),
        DAY.isoformat(),
    )
    assert (shown["threshold_percent"], shown["threshold_usd"]) == ("1", "1")
    sums = {"expected": "0.0045", "found": "1.0045", "difference": "1", "absolute": "1"}
    assert shown["results"]["providers"] == {
        "state": "done",
        "compared": 1,
        "drifts": 1,
        "skipped": 0,
        # A dollar is let pass.
        "exceeds_threshold": False,
        "sums": {"USD": sums},
        "providers": {"anthropic": sums},
    }
    assert shown["results"]["statements"]["compared"] == 0
    assert shown["results"]["stripe"]["state"] == "not_connected"
    (drift,) = api.get(f"{address}/drifts").body["data"]
    assert drift == {
        "kind": "providers",
        "day": DAY.isoformat(),
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "line_item": "",
        "statement": None,
        "line": "",
        "unit": "USD",
        "expected": "0.0045",
        "found": "1.0045",
        "difference": "1",
        "note": "",
    }
    assert api.get(f"{address}/drifts", kind="stripe").body["data"] == []
    lines = api.get(f"{address}.csv").body.splitlines()
    assert lines[0].startswith('"kind","day","provider","model"')
    assert len(lines) == 2
    assert f'"{DAY}","anthropic","claude-sonnet-4-5"' in lines[1]
    assert [row["id"] for row in api.get("/v1/reconciliations").body["data"]] == [begun.body["id"]]


@each_case(
    ("body", "pointer"),
    [
        ({"period": "2026-13"}, "/period"),
        ({"period": "2026-11", "to": "2026-11-02"}, "/period"),
        ({"from": "2026-11-03", "to": "2026-11-02"}, "/to"),
        ({"from": "2024-11-03", "to": "2026-11-02"}, "/from"),
        ({"kinds": []}, "/kinds"),
        ({"kinds": ["moon"]}, "/kinds/0"),
    ],
)
def test_a_wrong_request_is_refused(account: Account, body: object, pointer: str) -> None:
    refused = caller(account).post("/v1/reconciliations", body)
    assert (refused.status, refused.pointers) == (400, {pointer})


def test_thresholds_are_the_tenants_own(account: Account) -> None:
    api = caller(account)
    address = "/v1/reconciliation-settings"
    assert api.get(address).body == {"threshold_percent": "1", "threshold_usd": "1", "daily": True}
    changed = {"threshold_percent": "0.25", "threshold_usd": "12.5", "daily": False}
    assert api.patch(address, changed).body == changed
    assert api.get(address).body == changed
    refused = api.patch(address, {"threshold_percent": "1e3"})
    assert (refused.status, refused.pointers) == (400, {"/threshold_percent"})


def test_margins_over_http(account: Account) -> None:
    begin = month_start(1)
    scene = Billed.on(account, PER_REQUEST, since=begin)
    scene.use(3, at=begin + timedelta(days=5), cost_usd="0.25", feature="chat")
    scene.use(1, at=begin + timedelta(days=5), cost_usd="0.05", customer=...)
    api = caller(account)
    result = api.get("/v1/margins", period=f"{begin:%Y-%m}").body
    nobodys, acme = result["data"]
    assert acme == {
        "key": "acme",
        "name": "Acme",
        "currency": "USD",
        "revenue": "3.00",
        "cost_usd": "0.75",
        "margin_usd": "2.25",
        "margin_share": "0.750000",
        "allocated": False,
        "has_drafts": True,
    }
    assert (nobodys["key"], nobodys["cost_usd"], nobodys["margin_usd"]) == (None, "0.05", "-0.05")
    (total,) = result["totals"]
    assert (total["revenue"], total["cost_usd"], total["margin_usd"]) == ("3.00", "0.8", "2.2")
    assert Decimal(total["margin_usd"]) == sum(Decimal(row["margin_usd"]) for row in result["data"])
    for group_by in ("plan", "feature", "month"):
        asked = {"from": f"{begin:%Y-%m}", "to": f"{begin:%Y-%m}", "group_by": group_by}
        assert api.get("/v1/margins", **asked).body["totals"][0]["margin_usd"] == "2.2"
    final = api.get("/v1/margins", period=f"{begin:%Y-%m}", drafts="false").body
    assert final["totals"][0]["revenue"] == "0.00"


@each_case(
    "query",
    [
        {"period": "2026-11", "from": "2026-10"},
        {"from": "2026-11", "to": "2026-10"},
        {"from": "2020-01", "to": "2026-10"},
        {"period": "2026-1"},
        {"group_by": "moon"},
    ],
)
def test_a_wrong_question_about_margins_is_refused(account: Account, query: dict[str, str]) -> None:
    assert caller(account).get("/v1/margins", **query).status == 400
