"""Requests that mean harm, or are wrong as no one expects: a clear refusal, and nothing changes."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from django.test import Client

from billing.models import Statement, StatementState
from common.json_bodies import JsonObject
from tests.billing.scene import (
    PER_REQUEST,
    Billed,
    amounts,
    make_customer,
    make_plan,
    month_start,
    put_on,
)
from tests.factories import Account
from tests.metering.api.caller import caller

FIRST: Final = month_start(1)
HOUR: Final = timedelta(hours=1)
FEE: Final[JsonObject] = {"name": "Fee", "kind": "flat", "amount": "30", "when": "advance"}
PREVIEW: Final[JsonObject] = {"plan": {"name": "Try", "charges": [FEE]}, "usage": []}


@pytest.mark.parametrize("body", [[], 0, False, ""], ids=repr)
def test_what_is_no_object_finalizes_nothing(account: Account, body: object) -> None:
    Billed.on(account, PER_REQUEST, since=FIRST)
    with account.scope():
        statement = Statement.objects.get(tenant=account.tenant, period_start=FIRST)
    assert caller(account).post(f"/v1/statements/{statement.id}/finalise", body).status == 400
    with account.scope():
        statement.refresh_from_db()
    assert statement.state == StatementState.DRAFT


@pytest.mark.parametrize("links", [{"a": 1}, "team"], ids=repr)
def test_a_list_that_is_none_is_named_with_an_example(account: Account, links: object) -> None:
    answer = caller(account).post("/v1/customers", {"key": "a", "name": "A", "links": links})
    assert answer.status == 400
    assert answer.pointers == {"/links"}
    assert 'must be a list, such as [{"dimension": "customer"}]' in answer.body["detail"]


def test_a_link_that_ends_before_it_begins_is_named(account: Account) -> None:
    make_customer(account)
    link = {
        "dimension": "team",
        "value": "blue",
        "from": FIRST.isoformat(),
        "to": FIRST.isoformat(),
    }
    answer = caller(account).patch("/v1/customers/acme", {"links": [link]})
    assert answer.status == 400
    assert answer.pointers == {"/links/0/to"}


@pytest.mark.parametrize("noun", ["customers", "plans"])
def test_nul_in_an_address_names_nothing(account: Account, noun: str) -> None:
    assert caller(account).get(f"/v1/{noun}/a%00").status == 404


def test_a_key_like_another_customers_id_names_its_own_customer_alone(account: Account) -> None:
    other = make_customer(account, "other")
    named = make_customer(account, str(other.id))
    plan = make_plan(account, PER_REQUEST)
    for customer in (other, named):
        put_on(account, customer, plan, FIRST)
    listed = caller(account).get("/v1/subscriptions", customer=named.key).body["data"]
    assert [each["customer"] for each in listed] == [named.key]


def test_digits_beyond_the_currencys_are_refused_with_its_code(account: Account) -> None:
    make_customer(account)
    answer = caller(account).post(
        "/v1/coupons", {"customer": "acme", "name": "x", "amount": "0.001"}
    )
    assert answer.pointers == {"/amount"}
    assert "Must have at most 2 decimals in USD." in answer.body["detail"]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Australia/Lord_Howe"])
def test_a_preview_of_less_than_a_day_is_refused(account: Account, zone: str) -> None:
    at = datetime(2026, 11, 1, 4, 30, tzinfo=UTC)
    body = {
        **PREVIEW,
        "plan": {**PREVIEW["plan"], "timezone": zone},
        "period": {"start": at.isoformat(), "end": (at + timedelta(seconds=1)).isoformat()},
    }
    answer = caller(account).post("/v1/rating-preview", body)
    assert answer.status == 400
    assert answer.pointers == {"/period"}


@pytest.mark.parametrize("prefix", ["a\r\nSet-Cookie: a=b", 'a";b="', "=1+", "\t"], ids=repr)
def test_a_prefix_cannot_leave_the_name_of_a_file(account: Account, prefix: str) -> None:
    answer = caller(account).patch("/v1/billing-settings", {"statement_prefix": prefix})
    assert answer.status == 400
    assert answer.pointers == {"/statement_prefix"}


def test_the_name_of_a_file_is_one_name(account: Account, client: Client) -> None:
    prefix = {"statement_prefix": "Ré/2026-"}
    assert caller(account).patch("/v1/billing-settings", prefix).status == 200
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    final = billed.finalize(FIRST).statement
    answer = client.get(f"/v1/statements/{final.id}.csv", headers=account.headers)
    assert answer["Content-Disposition"] == (
        "attachment; filename*=utf-8''statement-R%C3%A9-2026-000001.csv"
    )


def test_a_minimum_of_hundreds_of_digits_is_kept(account: Account) -> None:
    # Of odd numbers without a common divisor, so that the sum has them all below the line.
    charges = [
        {**PER_REQUEST, "name": f"R{per}", "per": per, "unit_amount": "0.01"}
        for per in range(999_999_001, 999_999_801, 2)
    ][:60]
    billed = Billed.on(
        account, *charges, since=FIRST, bounds={"minimum_amount": "5"}, timezone="UTC"
    )
    billed.use(1, at=FIRST + HOUR)
    final = billed.finalize(FIRST)
    assert final.totals.total == 500
    assert amounts(billed.view(month_start())) == [
        *(("usage", charge["name"], 0) for charge in charges),
        ("minimum", "Minimum", 500),
    ]


def test_amounts_that_no_column_holds_stay_a_draft(account: Account) -> None:
    billed = Billed.on(
        account,
        {**PER_REQUEST, "metric": "input_tokens", "unit_amount": "1" + 9 * "0"},
        since=FIRST,
    )
    billed.use(1, at=FIRST + HOUR, input_tokens=10**9)
    statement = billed.view(FIRST).statement
    answer = caller(account).post(f"/v1/statements/{statement.id}/finalise", {})
    assert answer.code == "conflict"
    assert answer.body["detail"].startswith("The amounts are too large")
    assert billed.view(FIRST).statement.state == StatementState.DRAFT


def test_archiving_gives_back_a_plan_that_was_billed_and_never_begins(account: Account) -> None:
    now = datetime.now(UTC)
    billed = Billed.on(account, FEE, since=month_start(), timezone="UTC", interval="year")
    later = make_plan(
        account, {**FEE, "name": "Later", "proration": "none"}, timezone="UTC", interval="year"
    )
    put_on(account, billed.customer, later, now + HOUR)
    year = now.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    charged = billed.finalize(year)
    assert ("flat", "Later", 3000) in amounts(charged)
    assert caller(account).delete("/v1/customers/acme").status == 204
    assert caller(account).delete("/v1/customers/acme").status == 204
    adjustments = [
        line
        for line in amounts(billed.view(year.replace(year=year.year + 1)))
        if line[1] == "Later"
    ]
    assert adjustments == [("adjustment", "Later", -3000)]


def test_faults_of_a_subscription_are_at_its_members(account: Account) -> None:
    customer = make_customer(account)
    plan, in_yen = make_plan(account, FEE), make_plan(account, FEE, currency="JPY")
    api, start = caller(account), FIRST.isoformat()
    body = {"customer": customer.key, "plan": plan.id, "starts_at": start}
    assert api.post("/v1/subscriptions", {**body, "ends_at": start}).pointers == {"/ends_at"}
    assert api.post("/v1/subscriptions", {**body, "plan": in_yen.id}).pointers == {"/plan"}
    made = api.post("/v1/subscriptions", body)
    assert made.status == 201
    changed = api.patch(f"/v1/subscriptions/{made.body['id']}", {"ends_at": start})
    assert changed.pointers == {"/ends_at"}
