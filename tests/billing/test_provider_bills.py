"""Providers' bills are read to the last digit, and a day is never counted twice."""

import json
from datetime import date, timedelta

import pytest

from billing.models import ProviderBillLine
from billing.provider_bills.focus import read_focus
from billing.provider_bills.lines import BillKey, InvalidBill, LineFault, exact
from billing.provider_bills.reports import read_report
from common.errors import MalformedBody
from tenants.models import AuditEntry
from tests.billing.bills import (
    DAY,
    anthropic_bucket,
    anthropic_page,
    focus_bill,
    import_for,
    openai_bucket,
    openai_page,
)
from tests.factories import Account

HAIKU = "regional.anthropic.claude-3-haiku-20240307-v1:0"


def key(provider: str, model: str = "", item: str = "", day: date = DAY) -> BillKey:
    return BillKey(provider, day, model, item)


def test_openais_numbers_are_read_from_their_digits() -> None:
    """As floats, the first two would lose their last digits, and 0.1 ten times would not be 1."""
    items = [
        ("gpt-4o-2024-08-06, input", "123456.123456789"),
        ("gpt-4o-2024-08-06, output", "0.000000001"),
        *[("gpt-4o-mini-2024-07-18, cached input", "0.1")] * 10,
        ("web search tool calls", "0.0250000000000000001"),
        ("gpt-4.1-mini", "2E-9"),
        ("ft-free, input", "0E-6176"),
    ]
    assert read_report(openai_page(openai_bucket(DAY, items))).nanos() == {
        key("openai", "gpt-4o"): 123_456_123_456_790,
        key("openai", "gpt-4o-mini"): 1_000_000_000,
        key("openai", item="web search tool calls"): 25_000_000,
        key("openai", "gpt-4.1-mini"): 2,
        key("openai", "ft-free"): 0,
    }


def test_what_is_finer_than_a_nano_dollar_is_rounded_once() -> None:
    items = [("gpt-4o, input", "0.0000000004")] * 3
    assert read_report(openai_page(openai_bucket(DAY, items))).nanos() == {
        key("openai", "gpt-4o"): 1
    }


def test_anthropic_writes_cents_and_names_models_in_full() -> None:
    items = [
        ("claude-sonnet-4-5-20250929", "12.5"),
        ("claude-sonnet-4-5-20250929", "0.0000001"),
        (None, "1"),
    ]
    next_day = anthropic_bucket(DAY + timedelta(days=1), [("claude-haiku-4-5", "-3")])
    assert read_report(anthropic_page(anthropic_bucket(DAY, items), next_day)).nanos() == {
        key("anthropic", "claude-sonnet-4-5"): 125_000_001,
        key("anthropic", item="web_search"): 10_000_000,
        key("anthropic", "claude-haiku-4-5", day=DAY + timedelta(days=1)): -30_000_000,
    }


def test_pages_may_come_together() -> None:
    pages = [openai_page(openai_bucket(DAY, [(None, "1")])), openai_page()]
    assert read_report(b"[" + b",".join(pages) + b"]").nanos() == {key("openai"): 1_000_000_000}


def test_focus_adds_up_the_hours_of_a_day_in_utc() -> None:
    bill = focus_bill(
        {},
        {"BilledCost": "0.00000000049999999999"},
        {"BilledCost": "1e-10", "ChargePeriodStart": "2026-11-03T23:00:00+00:00"},
        {"ChargePeriodStart": "2026-11-04", "ChargePeriodEnd": "2026-11-04T01:00:00Z"},
        {"ResourceId": "NULL", "BilledCost": "7"},
        {"ServiceCategory": "Storage"},
        {"ChargeCategory": "Tax"},
    )
    lines = read_focus(bill)
    assert lines.nanos() == {
        key("aws", HAIKU): 100_000_001,
        key("aws", HAIKU, day=DAY + timedelta(days=1)): 100_000_000,
        key("aws", item="sku1"): 7_000_000_000,
    }
    assert lines.skipped == 2


def test_every_fault_is_named_by_its_line() -> None:
    bill = (
        focus_bill(
            {"BilledCost": "1,5"},
            {"BillingCurrency": "EUR"},
            {},
            {"ChargePeriodStart": "yesterday"},
            {"ChargePeriodEnd": "2026-12-01 00:00:00"},
            {"BilledCost": "1e11"},
            {"BilledCost": "NaN"},
            {"BilledCost": "1_000"},
            {"ProviderName": ""},
        )
        + b'"too","few"\r\n'
    )
    with pytest.raises(InvalidBill) as refusal:
        read_focus(bill).nanos()
    assert [error["pointer"] for error in refusal.value.members["errors"]] == [
        "/lines/2/BilledCost",
        "/lines/3/BillingCurrency",
        "/lines/5/ChargePeriodStart",
        "/lines/6/ChargePeriodEnd",
        "/lines/7/BilledCost",
        "/lines/8/BilledCost",
        "/lines/9/BilledCost",
        "/lines/10/ProviderName",
        "/lines/11",
    ]
    items = [("gpt-4o, input", "1"), ("gpt-4o, input", "true"), ("gpt-4o, input", "1e-61")]
    with pytest.raises(InvalidBill) as refusal:
        read_report(openai_page(openai_bucket(DAY, items))).nanos()
    assert [error["pointer"] for error in refusal.value.members["errors"]] == [
        "/data/0/results/1/amount/value",
        "/data/0/results/2/amount/value",
    ]


def test_a_report_by_the_hour_or_the_week_is_refused() -> None:
    hourly, weekly = openai_bucket(DAY, [(None, "1")]), anthropic_bucket(DAY, [(None, "1")])
    hourly["start_time"] += 3600
    weekly["ending_at"] = f"{DAY + timedelta(days=7)}T00:00:00Z"
    for report in (openai_page(hourly), anthropic_page(weekly)):
        with pytest.raises(InvalidBill, match="by day"):
            read_report(report).nanos()


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b'{"data": {}}', b'{"data": [{"results": 1}]}', b"\xff", b"null"]
)
def test_what_is_no_report_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        read_report(body)


@pytest.mark.parametrize("body", [b"", b"a,b\n1,2\n", b'"BilledCost', b"\xff", b"\0"])
def test_what_is_no_focus_bill_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        read_focus(body)


def test_the_same_bill_again_changes_nothing_and_a_newer_one_replaces_its_days(
    account: Account,
) -> None:
    first = openai_page(
        openai_bucket(DAY, [("gpt-4o, input", "1"), ("images", "2")]),
        openai_bucket(DAY + timedelta(days=1), [("gpt-4o, input", "3")]),
    )
    assert import_for(account, first)[1:] == (3, 2, 2, 0)
    with account.scope():
        before = list(ProviderBillLine.objects.order_by("id").values())
    assert import_for(account, first).changed_days == 0
    with account.scope():
        assert list(ProviderBillLine.objects.order_by("id").values()) == before
    # The same day by projects, without the items, and not twice.
    newer = openai_page(openai_bucket(DAY, [(None, "1.5"), (None, "1.75")]))
    assert import_for(account, newer).changed_days == 1
    # Of another account of the tenant it is another bill.
    assert import_for(account, newer, of="research").changed_days == 1
    with account.scope():
        lines = ProviderBillLine.objects.order_by("account", "day", "model")
        rows = [(each.account, each.day, each.model, each.amount_nanos) for each in lines]
        audited = AuditEntry.objects.filter(action="import").count()
    assert rows == [
        ("", DAY, "", 3_250_000_000),
        ("", DAY + timedelta(days=1), "gpt-4o", 3_000_000_000),
        ("research", DAY, "", 3_250_000_000),
    ]
    assert audited == 3


def test_a_faulty_bill_stores_nothing(account: Account) -> None:
    bill = openai_page(openai_bucket(DAY, [("gpt-4o, input", "1"), ("gpt-4o, input", "true")]))
    with pytest.raises(InvalidBill):
        import_for(account, bill)
    with account.scope():
        assert not ProviderBillLine.objects.exists()


@pytest.mark.parametrize("number", ["1e999999999", "-1e999999999", "NaN", "sNaN", "-Infinity"])
def test_a_number_that_no_bill_has_is_named(number: str) -> None:
    with pytest.raises(LineFault, match="must be an amount up to 1,000,000,000"):
        exact(number, "amount")


@pytest.mark.parametrize(
    "number", ["1_0", "\N{FULLWIDTH DIGIT ONE}", "\N{ARABIC-INDIC DIGIT ONE}.5", "true", "1,5", ""]
)
def test_a_number_in_a_string_is_written_in_plain_digits(number: str) -> None:
    for report, index in (
        (openai_bucket(DAY, [(None, "1")]), "amount/value"),
        (anthropic_bucket(DAY, [(None, "1")]), "amount"),
    ):
        result = report["results"][0]
        if index == "amount":
            result["amount"] = number
        else:
            result["amount"]["value"] = number
        with pytest.raises(InvalidBill, match=f"{index}: must be a decimal number"):
            read_report(json.dumps({"data": [report]}).encode()).nanos()
