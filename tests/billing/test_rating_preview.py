"""`POST /v1/rating-preview`: what a plan would charge, and nothing stored."""

import pytest

from billing.models import Plan, Statement
from common.json_bodies import JsonObject
from tests.billing.rating_scene import fee, usage_charge
from tests.cases import each_case
from tests.factories import Account
from tests.metering.api.caller import Answer, Caller, caller

PER_UNIT = usage_charge("per_unit", unit_amount="1")


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def use(metric: str, quantity: object, **members: object) -> JsonObject:
    return {"metric": metric, "quantity": quantity, **members}


def preview(
    api: Caller,
    *charges: JsonObject,
    usage: list[JsonObject],
    plan: JsonObject | None = None,
    **members: object,
) -> Answer:
    whole = {"name": "Plan", "timezone": "UTC", "charges": list(charges), **(plan or {})}
    return api.post(
        "/v1/rating-preview", {"plan": whole, "usage": usage, "period": "2026-11", **members}
    )


def amounts(answer: Answer) -> list[tuple[str, str]]:
    assert answer.status == 200, answer.body
    return [(line["name"], line["amount"]) for line in answer.body["lines"]]


def test_a_plan_charges_what_its_rules_say(api: Caller, account: Account) -> None:
    answer = preview(
        api,
        fee("1200", when="advance"),
        usage_charge("per_unit", name="In", unit_amount="1.60", per=1_000_000),
        usage=[use("input_tokens", "1500000"), use("input_tokens", 250_000)],
        tax_rates=[{"name": "VAT", "percent": "19"}],
        coupon={"percent": "10"},
        credit="1000",
    )
    assert amounts(answer) == [("Fee", "1200.00"), ("In", "2.80")]
    lines = answer.body.pop("lines")
    assert answer.body == {
        "period_start": "2026-11-01T00:00:00Z",
        "period_end": "2026-12-01T00:00:00Z",
        "timezone": "UTC",
        "currency": "USD",
        "subtotal": "1202.80",
        "coupon_amount": "120.28",
        "taxable": "1082.52",
        "taxes": [{"name": "VAT", "percent": "19", "amount": "205.68"}],
        "total": "1288.20",
        "credit_applied": "1000.00",
        "amount_due": "288.20",
        "usage_outside": 0,
    }
    assert lines[1] == {
        "name": "In",
        "kind": "usage",
        "quantity": "1750000",
        "amount": "2.80",
        "exact_amount": "2.8",
        "starts_at": "2026-11-01T00:00:00Z",
        "ends_at": "2026-12-01T00:00:00Z",
        "is_trial": False,
        "tiers": [
            {
                "unit": "unit",
                "quantity": "1750000",
                "rate": "1.6",
                "per": 1_000_000,
                "flat_amount": "0",
                "amount": "2.8",
            }
        ],
        "metric": "input_tokens",
    }
    with account.scope():
        assert not Plan.objects.exists()
        assert not Statement.objects.exists()


def test_numbers_are_taken_as_they_are_written(api: Caller) -> None:
    charge = usage_charge("per_unit", unit_amount=0.1)
    answer = preview(api, charge, usage=[use("input_tokens", 0.2), use("input_tokens", "0.1")])
    assert answer.body["lines"][0]["exact_amount"] == "0.03"


def test_usage_counts_for_each_charge_that_it_matches(api: Caller) -> None:
    charges = [
        {**PER_UNIT, "name": "All", "metric": "tokens"},
        {**PER_UNIT, "name": "Search", "filter": {"feature": "search"}},
        {**PER_UNIT, "name": "Others", "filter": {"feature": ["chat", "code"], "team": "a"}},
    ]
    usage = [
        use("input_tokens", 1, dimensions={"feature": "search"}),
        use("input_tokens", 10, dimensions={"feature": "chat", "team": "a"}),
        use("input_tokens", 100, dimensions={"feature": "chat"}),
        use("output_tokens", 1000),
        use("tokens", 10_000),
        use("cache_read_tokens", 100_000),
    ]
    answer = preview(api, *charges, usage=usage)
    assert amounts(answer) == [("All", "11111.00"), ("Search", "1.00"), ("Others", "10.00")]


def test_costs_choose_markups_and_calls_are_counted(api: Caller) -> None:
    markups = [{"provider": "custom", "percent": "30"}, {"model": "m", "percent": "5"}]
    charges = [
        usage_charge("cost_plus", name="Plus", metric="cost", percent="10", markups=markups),
        usage_charge("percentage", name="Part", metric="cost", percent="1.3", unit_amount="2"),
    ]
    usage = [
        use("cost", "0.2", dimensions={"provider": "custom", "model": "m"}),
        use("cost", "0.3", dimensions={"provider": "custom"}),
        use("cost", "799.5"),
        use("requests", 4),
    ]
    answer = preview(api, *charges, usage=usage)
    assert [line["exact_amount"] for line in answer.body["lines"]] == ["880.05", "18.4"]


def test_the_period_is_the_one_that_begins_in_the_month(api: Caller) -> None:
    def bounds(plan: JsonObject, **members: object) -> tuple[str, str, str]:
        body = preview(api, fee("90"), usage=[], plan=plan, **members).body
        return body["period_start"], body["period_end"], body["subtotal"]

    berlin = {"timezone": "Europe/Berlin"}
    assert bounds(berlin) == ("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z", "90.00")
    quarter = {"interval": "quarter"}
    assert bounds(quarter) == ("2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z", "90.00")
    assert bounds({"interval": "year"})[0] == "2026-01-01T00:00:00Z"
    own = {"anchor": "subscription"}
    since = "2026-05-31T15:00:00Z"
    assert bounds(own, starts_at=since) == ("2026-11-30T00:00:00Z", "2026-12-31T00:00:00Z", "90.00")
    assert bounds({}, starts_at="2026-11-11T15:00:00Z")[2] == "60.00"
    assert bounds({}, ends_at="2026-11-11T15:00:00Z")[2] == "30.00"
    dates = {"start": "2026-11-10", "end": "2026-11-20"}
    assert bounds(berlin, period=dates) == ("2026-11-09T23:00:00Z", "2026-11-19T23:00:00Z", "90.00")
    times = {"start": "2026-11-10T12:00:00Z", "end": "2026-11-20T00:00:00+01:00"}
    assert bounds(berlin, period=times)[:2] == ("2026-11-10T12:00:00Z", "2026-11-19T23:00:00Z")


def test_usage_of_the_trial_is_free_and_usage_outside_is_said(api: Caller) -> None:
    usage = [
        use("input_tokens", 1, time="2026-10-31T23:59:59.999999Z"),
        use("input_tokens", 10, time="2026-11-01T00:00:00Z"),
        use("input_tokens", 100, time="2026-11-10T23:59:59Z"),
        use("input_tokens", 1000, time="2026-11-11T00:00:00Z"),
        use("input_tokens", 10_000),
        use("input_tokens", 100_000, time="2026-12-01T00:00:00Z"),
    ]
    plan = {"trial_days": 10}
    answer = preview(api, PER_UNIT, usage=usage, plan=plan, starts_at="2026-11-01T00:00:00Z")
    assert amounts(answer) == [("Usage", "0.00"), ("Usage", "11000.00")]
    assert [line["is_trial"] for line in answer.body["lines"]] == [True, False]
    assert answer.body["usage_outside"] == 2
    # A subscription that began long ago is not in its trial.
    assert amounts(preview(api, PER_UNIT, usage=usage, plan=plan)) == [("Usage", "11110.00")]


def test_amounts_have_the_digits_of_the_currency(api: Caller) -> None:
    yen = preview(api, fee("10.5"), usage=[], plan={"currency": "JPY"}, credit="3")
    assert (yen.body["subtotal"], yen.body["amount_due"]) == ("11", "8")
    dinar = preview(api, fee("10.5005"), usage=[], plan={"currency": "KWD"})
    assert dinar.body["subtotal"] == "10.501"
    refused = preview(api, fee("1"), usage=[], plan={"currency": "JPY"}, credit="0.5")
    assert (refused.status, refused.pointers) == (400, {"/credit"})


def test_the_bounds_of_charges_and_plans_are_lines(api: Caller) -> None:
    charge = {**PER_UNIT, "cap_amount": "50"}
    plan = {"minimum_amount": "80"}
    lines = preview(api, charge, usage=[use("input_tokens", 60)], plan=plan).body["lines"]
    assert [(line["kind"], line["amount"], line.get("charge")) for line in lines] == [
        ("usage", "60.00", None),
        ("cap", "-10.00", "Usage"),
        ("minimum", "30.00", None),
    ]


@each_case(
    ("members", "pointer"),
    [
        ({"period": "2026-13"}, "/period"),
        ({"period": "2026-1"}, "/period"),
        ({"period": 2026}, "/period"),
        ({"period": {"start": "2026-11-01"}}, "/period"),
        ({"period": {"start": "2026-11-02", "end": "2026-11-02"}}, "/period"),
        ({"period": {"start": "2026-02-30", "end": "2026-11-02"}}, "/period"),
        ({"period": "1960-01"}, "/period"),
        ({"starts_at": "2027-01-01T00:00:00Z"}, "/period"),
        ({"ends_at": "2026-10-01T00:00:00Z"}, "/period"),
        ({"starts_at": "2026-11-02T00:00:00Z", "ends_at": "2026-11-02T00:00:00Z"}, "/ends_at"),
        ({"usage": [use("input_tokens", "-1")]}, "/usage/0/quantity"),
        ({"usage": [use("input_tokens", "10000000000000000")]}, "/usage/0/quantity"),
        ({"usage": [use("minutes", 1)]}, "/usage/0/metric"),
        ({"usage": [use("cost", 1, dimensions={"colour": "red"})]}, "/usage/0/dimensions/colour"),
        ({"usage": [use("cost", 1, dimensions={"model": ["a"]})]}, "/usage/0/dimensions/model"),
        ({"tax_rates": [{"name": "VAT", "percent": "100.5"}]}, "/tax_rates/0/percent"),
        ({"coupon": {"percent": "101"}}, "/coupon/percent"),
        ({"coupon": {"amount": "0.001"}}, "/coupon/amount"),
        ({"coupon": {}}, "/coupon"),
        ({"coupon": {"amount": "1", "percent": "1"}}, "/coupon"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_what_cannot_be_rated_is_refused_at_its_member(
    api: Caller, members: JsonObject, pointer: str
) -> None:
    answer = preview(api, PER_UNIT, **{"usage": [], **members})
    assert answer.status == 400
    assert answer.pointers == {pointer}


def test_every_fault_of_the_plan_is_named(api: Caller) -> None:
    tiers = [{"up_to": "10"}, {"up_to": "5"}, {"up_to": None}]
    answer = preview(
        api, {**PER_UNIT, "percent": "5"}, usage_charge("volume", tiers=tiers), usage=[]
    )
    assert answer.status == 400
    assert answer.pointers == {
        "/plan/charges/0/percent",
        "/plan/charges/0/name",
        "/plan/charges/1/name",
        "/plan/charges/1/tiers/1/up_to",
    }


def test_it_takes_the_scope_billing(api: Caller) -> None:
    keys = {
        scope: api.post("/v1/keys", {"name": scope, "scopes": [scope]}).body["key"]
        for scope in ("billing", "read", "manage")
    }
    assert preview(Caller(keys["billing"]), PER_UNIT, usage=[]).status == 200
    assert preview(Caller(keys["read"]), PER_UNIT, usage=[]).status == 403
    assert preview(Caller(keys["manage"]), PER_UNIT, usage=[]).status == 403
