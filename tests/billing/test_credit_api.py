"""Credit, wallets, coupons and credit notes over HTTP."""

from typing import Any

import pytest

from billing.models import Customer
from tenants.models import AuditEntry
from tests.billing.credit_scene import charge
from tests.billing.scene import make_customer
from tests.cases import each_case
from tests.factories import Account
from tests.metering.api.caller import Caller, caller

CREDIT = {"customer": "acme", "amount": "100.00", "kind": "paid"}


@pytest.fixture
def acme(account: Account) -> Customer:
    return make_customer(account)


@pytest.fixture
def api(account: Account, acme: Customer) -> Caller:
    return caller(account)


def test_credit_is_granted_shown_and_taken_back(api: Caller, account: Account) -> None:
    rollover = {"percent": 50, "max_amount": "20.00", "months": 1}
    granted = api.post(
        "/v1/credits",
        {
            **CREDIT,
            "priority": 3,
            "expires_at": "2100-01-01T00:00:00Z",
            "rollover": rollover,
            "reference": "INV-7",
        },
    )
    assert granted.status == 201
    shown = api.get(f"/v1/credits/{granted.body['id']}").body
    assert shown == granted.body
    expected = {
        "customer": "acme",
        "currency": "USD",
        "kind": "paid",
        "amount": "100.00",
        "balance": "100.00",
        "held_for_calls": "0.00",
        "priority": 3,
        "state": "active",
        "expires_at": "2100-01-01T00:00:00Z",
        "rollover": rollover,
        "rolled_from": None,
        "reference": "INV-7",
    }
    assert {name: shown[name] for name in expected} == expected
    assert [(entry["kind"], entry["amount"]) for entry in shown["entries"]] == [
        ("granted", "100.00")
    ]
    address = f"/v1/credits/{shown['id']}/void"
    voided = api.post(address, {"amount": "30.50", "reason": "refunded"})
    assert voided.body["balance"] == "69.50"
    assert voided.body["entries"][-1]["note"] == "refunded"
    assert api.post(address, {"amount": "69.51", "reason": "refunded"}).code == "conflict"
    assert api.post(address, {"reason": "refunded"}).body["balance"] == "0.00"
    with account.scope():
        entries = AuditEntry.objects.filter(object_type="creditgrant").order_by("id")
        assert [entry.action for entry in entries] == ["create", "void", "void"]


def test_the_list_has_the_credit_of_one_customer(api: Caller, account: Account) -> None:
    make_customer(account, key="other")
    first = api.post("/v1/credits", CREDIT).body["id"]
    second = api.post("/v1/credits", {**CREDIT, "kind": "promotional"}).body["id"]
    api.post("/v1/credits", {**CREDIT, "customer": "other"})
    rows = api.get("/v1/credits", customer="acme").body["data"]
    assert [row["id"] for row in rows] == [second, first]
    assert len(api.get("/v1/credits").body["data"]) == 3
    assert api.get("/v1/credits", customer="nobody").body["data"] == []


def test_a_grant_that_is_sent_twice_is_one(api: Caller) -> None:
    once = api.post("/v1/credits", CREDIT, Idempotency_Key="payment-7")
    assert api.post("/v1/credits", CREDIT, Idempotency_Key="payment-7").body == once.body
    assert len(api.get("/v1/credits").body["data"]) == 1


@each_case(
    ("body", "pointer"),
    [
        ({"customer": "nobody"}, "/customer"),
        ({"amount": "1.005"}, "/amount"),
        ({"amount": True}, "/amount"),
        ({"amount": "-5"}, "/amount"),
        ({"amount": "0"}, "/amount"),
        ({"amount": "1e3"}, "/amount"),
        ({"kind": "free"}, "/kind"),
        ({"priority": 101}, "/priority"),
        ({"expires_at": "2000-01-01T00:00:00Z"}, "/expires_at"),
        ({"rollover": {"percent": 50}}, "/rollover/percent"),
        (
            {
                "rollover": {"percent": 50, "max_amount": "0.001"},
                "expires_at": "2100-01-01T00:00:00Z",
            },
            "/rollover/max_amount",
        ),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_a_wrong_grant_is_refused_at_the_member(api: Caller, body: Any, pointer: str) -> None:
    answer = api.post("/v1/credits", {**CREDIT, **body})
    assert (answer.status, answer.pointers) == (400, {pointer})
    assert api.get("/v1/credits").body["data"] == []


def test_an_amount_that_is_too_large_is_refused_in_money(api: Caller, account: Account) -> None:
    make_customer(account, "yen", currency="JPY")
    for customer, amount, most in (
        ("acme", "1000000000.01", "$1,000,000,000.00"),
        ("yen", "100000000001", "¥100,000,000,000"),
    ):
        of = {"customer": customer, "amount": amount}
        for address, body in (
            ("/v1/credits", {"kind": "paid"}),
            ("/v1/coupons", {"name": "Large"}),
        ):
            refused = api.post(address, {**of, **body})
            assert (refused.status, refused.body["detail"]) == (
                400,
                f"/amount: Give at most {most}.",
            )


def test_amounts_have_the_digits_of_the_currency(api: Caller, account: Account) -> None:
    make_customer(account, key="tokyo", currency="JPY")
    yen = {**CREDIT, "customer": "tokyo"}
    assert api.post("/v1/credits", {**yen, "amount": "100.5"}).pointers == {"/amount"}
    assert api.post("/v1/credits", {**yen, "amount": "100"}).body["balance"] == "100"


def test_a_wallet_is_opened_shown_changed_and_ended(api: Caller, account: Account) -> None:
    api.post("/v1/credits", CREDIT)
    opened = api.post("/v1/wallets", {"customer": "acme"})
    assert opened.status == 201
    expected = {
        "customer": "acme",
        "percent": "0",
        "currency": "USD",
        "balance": "100.00",
        "unpaid": "0.00",
        "limit_usd": "100",
        "spent_usd": "0",
        "reserved_usd": "0",
        "levels": [{"percent": 80, "notify": []}, {"percent": 100, "notify": []}],
        "ended_at": None,
    }
    assert {name: opened.body[name] for name in expected} == expected
    assert api.post("/v1/wallets", {"customer": "acme"}).code == "conflict"
    address = f"/v1/wallets/{opened.body['id']}"
    levels = [{"percent": 50, "notify": ["finance"]}, {"percent": 100, "notify": ["finance"]}]
    assert api.patch(address, {"levels": levels}).body["levels"] == levels
    twice = [{"percent": 50}, {"percent": 50}]
    assert api.patch(address, {"levels": twice}).pointers == {"/levels"}
    assert api.delete(address).status == 204
    assert api.get(address).body["ended_at"] is not None
    assert api.patch(address, {"levels": levels}).code == "conflict"
    make_customer(account, key="euro", currency="EUR")
    refused = api.post("/v1/wallets", {"customer": "euro"})
    assert (refused.status, refused.code) == (409, "not_proportional")
    assert "pays in EUR" in refused.body["detail"]


def test_a_coupon_is_made_and_ended(api: Caller) -> None:
    made = api.post("/v1/coupons", {"customer": "acme", "name": "Launch", "percent": "12.5"})
    assert (made.status, made.body["percent"], made.body["amount"]) == (201, "12.5", None)
    assert made.body["ends_at"] is None
    address = f"/v1/coupons/{made.body['id']}"
    assert api.delete(address).status == 204
    ended = api.get(address).body
    assert ended["ends_at"] is not None
    assert api.delete(address).status == 204
    assert api.get(address).body == ended
    amount = {"customer": "acme", "name": "Sorry", "amount": "5.00", "statements_max": 1}
    assert api.post("/v1/coupons", amount).body["amount"] == "5.00"
    wrong = {**amount, "percent": "5"}
    assert api.post("/v1/coupons", wrong).pointers == {"/percent"}
    assert api.post("/v1/coupons", {**amount, "amount": "5.001"}).pointers == {"/amount"}


def test_a_credit_note_is_written_by_id_or_number(
    api: Caller, account: Account, acme: Customer
) -> None:
    statement = charge(account, acme, 11900, taxes=(("VAT", "19", 1900),))
    body = {"statement": statement.id, "amount": "10.00", "reason": "outage"}
    note = api.post("/v1/credit-notes", body)
    assert note.status == 201
    expected = {
        "number": "CN-000001",
        "statement_id": statement.id,
        "customer": "acme",
        "net": "10.00",
        "taxes": [{"name": "VAT", "percent": "19", "amount": "1.90"}],
        "total": "11.90",
        "unused": "11.90",
        "lines": [],
    }
    assert {name: note.body[name] for name in expected} == expected
    rest = api.post("/v1/credit-notes", {"statement": statement.number, "reason": "outage"})
    assert (rest.body["number"], rest.body["total"]) == ("CN-000002", "107.10")
    assert api.post("/v1/credit-notes", body).code == "conflict"
    unknown = {**body, "statement": 0}
    assert api.post("/v1/credit-notes", unknown).pointers == {"/statement"}
    both = {**body, "lines": [{"position": 1, "amount": "1"}]}
    assert api.post("/v1/credit-notes", both).pointers == {"/amount"}
    assert len(api.get("/v1/credit-notes", customer="acme").body["data"]) == 2
