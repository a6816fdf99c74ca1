"""Customers, subscriptions and statements over HTTP, and the files of statements."""

from datetime import timedelta
from unittest.mock import patch

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from psycopg.errors import SerializationFailure

from billing.models import Customer, Statement
from billing.statement_periods import remove_drafts
from common.json_bodies import JsonObject
from tests.billing.scene import (
    PER_REQUEST,
    Billed,
    make_customer,
    make_plan,
    month_start,
    put_on,
)
from tests.factories import Account
from tests.metering.api.caller import caller

FIRST = month_start(1)
HOUR = timedelta(hours=1)


def test_a_customer_is_billed_for_what_it_used(account: Account) -> None:
    api = caller(account)
    plan = make_plan(account, PER_REQUEST, timezone="UTC")
    made = api.post(
        "/v1/customers",
        {
            "key": "acme",
            "name": "Acme",
            "currency": "USD",
            "timezone": "America/New_York",
            "billing": {"email": "ap@acme.example", "address": "1 Main St", "country": "US"},
            "tax_rates": [{"name": "Sales tax", "percent": "8.875"}],
            "links": [{"dimension": "team", "value": "blue", "from": FIRST.isoformat()}],
        },
    )
    assert made.status == 201, made.body
    assert made.body["links"][0]["value"] == "blue"
    subscribed = api.post(
        "/v1/subscriptions", {"customer": "acme", "plan": plan.id, "starts_at": FIRST.isoformat()}
    )
    assert subscribed.status == 201, subscribed.body
    Billed(account, _customer(account)).use(4, at=FIRST + HOUR)
    listed = api.get("/v1/statements", customer="acme", period=f"{FIRST:%Y-%m}").body["data"]
    assert [each["state"] for each in listed] == ["draft"]
    assert listed[0]["total"] == "4.36"
    assert listed[0]["taxes"] == [{"name": "Sales tax", "percent": "8.875", "amount": "0.36"}]
    line = listed[0]["lines"][0]
    assert (line["name"], line["quantity"], line["amount"]) == ("Requests", "4", "4.00")
    events = api.get(line["events_url"]).body["data"]
    assert len(events) == 4
    final = api.post(f"/v1/statements/{listed[0]['id']}/finalise")
    assert final.status == 200, final.body
    assert final.body["number"] == "000001"
    assert final.body["amount_due"] == "4.36"
    assert api.post(f"/v1/statements/{listed[0]['id']}/finalise").body == final.body


def test_a_customer_that_is_not_known_has_no_statements(account: Account) -> None:
    api = caller(account)
    assert api.get("/v1/statements", customer="nobody").body["data"] == []
    refused = api.get("/v1/statements", customer="a\x00")
    assert (refused.status, refused.code) == (400, "invalid_value")


def test_a_list_takes_as_many_queries_for_many_as_for_one(account: Account) -> None:
    plan = make_plan(account, PER_REQUEST)
    for number in range(4):
        put_on(account, make_customer(account, f"customer-{number}"), plan, FIRST)
    api = caller(account)

    def queries(address: str, **asked: object) -> tuple[int, int]:
        with CaptureQueriesContext(connection) as captured:
            rows = api.get(address, **asked).body["data"]
        return len(rows), len(captured)

    lists = {"/v1/statements": 8, "/v1/customers": 4, "/v1/subscriptions": 4}
    for address, most in lists.items():
        queries(address)
        one, many = queries(address, limit=1), queries(address)
        assert (one[0], many) == (1, (most, one[1]))


def test_a_page_ends_before_one_draft_too_many_and_the_next_goes_on(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.api.statements.DRAFTS_A_PAGE", 2)
    billed = Billed.on(account, PER_REQUEST, since=month_start(4))
    billed.finalize(month_start(3))
    api = caller(account)
    pages: list[list[tuple[object, object]]] = []
    cursor: object = None
    while cursor is not None or not pages:
        further = {} if cursor is None else {"cursor": cursor}
        body = api.get("/v1/statements", limit=500, **further).body
        pages.append([(each["id"], each["state"]) for each in body["data"]])
        cursor = body["next_cursor"]
    assert [[state for _, state in page] for page in pages] == [
        ["draft", "draft"],
        ["draft", "final", "draft"],
    ]
    assert len({row for page in pages for row, _ in page}) == 5


def test_who_asks_for_a_customer_sees_the_period_that_has_just_begun(account: Account) -> None:
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    with account.scope():
        remove_drafts(list(Statement.objects.values_list("id", flat=True)))
    api = caller(account)
    assert api.get("/v1/statements", customer="acme").body["data"] == []
    with account.scope():
        Customer.objects.filter(id=billed.customer.id).update(next_draft_at=FIRST)
    listed = api.get("/v1/statements", customer="acme").body["data"]
    assert [each["period_start"][:10] for each in listed] == [
        f"{month_start():%Y-%m-%d}",
        f"{FIRST:%Y-%m-%d}",
    ]


def test_nothing_has_a_name_that_cannot_be_stored(account: Account) -> None:
    api = caller(account)
    for address in ("customers/a%00b", "plans/a%00b"):
        assert api.get(f"/v1/{address}").code == "not_found"
        assert api.delete(f"/v1/{address}").code == "not_found"
    assert api.post("/v1/plans/a%00b/versions", {}).code == "not_found"


@pytest.mark.parametrize("email", ["no address", 5, "a@b", f"{'a' * 250}@example.com"])
def test_an_address_that_no_mail_can_go_to_is_refused(account: Account, email: object) -> None:
    api = caller(account)
    customer = {"key": "acme", "name": "Acme", "billing": {"email": email}}
    assert api.post("/v1/customers", customer).pointers == {"/billing/email"}
    assert api.patch("/v1/billing-settings", {"email": email}).pointers == {"/email"}
    assert api.patch("/v1/billing-settings", {"email": ""}).status == 200


def _customer(account: Account) -> Customer:
    with account.scope():
        return Customer.objects.get(tenant=account.tenant)


def test_files_of_a_final_statement_stay_the_same(account: Account, client: Client) -> None:
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    billed.use(1, at=FIRST + HOUR)
    statement = billed.finalize(FIRST).statement
    files = _files(client, account, statement.id)
    with account.scope():
        billed.customer.name = "Renamed"
        billed.customer.save()
    billed.use(1, at=FIRST + HOUR)
    assert _files(client, account, statement.id) == files
    assert b"Renamed" not in files[1]
    assert b"Acme" in files[1]


def _files(client: Client, account: Account, statement_id: int) -> list[bytes]:
    answers = [
        client.get(f"/v1/statements/{statement_id}.{kind}", headers=account.headers)
        for kind in ("csv", "html")
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    return [answer.content for answer in answers]


def test_who_asks_while_a_period_is_being_opened_gets_an_answer(account: Account) -> None:
    billed = Billed.on(account, PER_REQUEST, since=FIRST)
    with account.scope():
        Customer.objects.filter(id=billed.customer.id).update(next_draft_at=FIRST)
    opened: list[Customer] = []

    def opened_by_someone_else(customer: Customer) -> None:
        opened.append(customer)
        raise OperationalError from SerializationFailure()

    with patch("billing.api.statements.open_drafts", opened_by_someone_else):
        assert caller(account).get("/v1/statements", customer="acme").status == 200
    assert opened == [billed.customer]


def test_a_zone_that_is_no_place_is_refused_everywhere(account: Account) -> None:
    api = caller(account)
    for zone in ("localtime", "Factory"):
        fee = {"name": "Fee", "kind": "flat", "amount": "1"}
        bodies: dict[str, JsonObject] = {
            "/v1/plans": {"name": "P", "charges": [fee]},
            "/v1/customers": {"key": "zoned", "name": "Zoned"},
            "/v1/budgets": {"name": "B", "period": "day", "limit": {"cost_usd": "1"}},
        }
        for address, body in bodies.items():
            refused = api.post(address, {**body, "timezone": zone})
            assert (refused.status, "zone" in str(refused.body)) == (400, True)
        assert api.get("/v1/usage", timezone=zone).status == 400
