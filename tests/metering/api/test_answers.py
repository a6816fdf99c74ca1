"""Answers that agree: JSON on every address, near names, bounded errors, and when to ask again."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import Client

from metering.models import Breaker, BreakerState, Halt
from tests.factories import Account, make_budget, make_event, send
from tests.metering.api.caller import PROBLEM, caller

pytestmark = pytest.mark.django_db(transaction=True)
ZOE = "Zo\u00eb"
# The same to see.
ZOES = ("Zoe\u0308", f"{ZOE} ", f"\u200b{ZOE}", f"\u00a0{ZOE}\ufe0f", "Z\u00ado\u00eb")


def test_every_address_of_the_api_answers_in_json(account: Account) -> None:
    client = Client(raise_request_exception=False, headers=account.headers)
    many = "&".join(f"x{number}=1" for number in range(1_100))
    requests = [
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("GET", "/v1/event", 404),
        ("POST", "/v1/nothing", 404),
        ("GET", "/v1/usage/", 404),
        ("DELETE", "/v1/usage", 405),
        ("PUT", "/v1/events", 405),
        ("OPTIONS", "/v1/budgets", 405),
        ("POST", "/v1/docs", 405),
        ("POST", "/v1/schema", 405),
        ("GET", "/v1/schema?format=xml", 404),
        ("GET", "/api/v1/events", 405),
        ("GET", "/api/v1/nothing", 404),
        ("GET", f"/v1/usage?{many}", 400),
        ("GET", f"/v1/budgets?{many}", 400),
        ("GET", f"/v1/balances?{many}", 400),
        ("GET", "/v1/budgets/%00", 404),
        ("GET", "/v1/%ff%fe", 404),
        ("GET", "/v1/usage?timezone=%00", 400),
        ("GET", "/v1/decisions?code=a%00b", 400),
        ("GET", "/v1/usage?%ff=%ff", 400),
        ("GET", "/v1/usage?from=%zz", 400),
    ]
    for method, address, status in requests:
        answer = client.generic(method, address)
        shown = (method, address[:60], answer.status_code, answer["Content-Type"])
        assert shown[2:] == (status, PROBLEM), shown
        assert json.loads(answer.content)["status"] == status
        if status == 405:
            assert method not in answer["Allow"], shown
    assert client.head("/v1/budgets?limit=1").status_code == 200


def test_near_names_are_told(account: Account) -> None:
    api = caller(account)
    wrong: list[tuple[str, str, Any, str]] = [
        ("GET", "/v1/event", None, "/v1/events"),
        ("GET", "/v1/budgets/7/window", None, "/v1/budgets/{id}/windows"),
        ("GET", "/v1/usage?groupby=team", None, "group_by"),
        ("GET", "/v1/usage?filter[agnet]=x", None, "agent"),
        ("GET", "/v1/usage?group_by=custommer", None, "customer"),
        ("GET", "/v1/balances?agnt=x", None, "agent"),
        ("POST", "/v1/events", make_event(custommer="x"), "customer"),
        ("POST", "/v1/reservations", {"amount_usd": "1", "agnet": "x"}, "agent"),
        ("POST", "/v1/budgets", {"nmae": "x"}, "name"),
        ("POST", "/v1/budgets", {"name": "x", "period": "day", "limit": {"cost": "1"}}, "cost_usd"),
        (
            "POST",
            "/v1/budgets",
            {
                "name": "x",
                "period": "day",
                "limit": {"cost_usd": "1"},
                "levels": [{"percnt": 70}],
            },
            "percent",
        ),
        ("POST", "/v1/halts", {"match": {"agnet": "x"}, "reason": "x"}, "agent"),
        ("POST", "/v1/outcomes", {"sesion": "x", "success": True}, "session"),
    ]
    for method, address, body, near in wrong:
        answer = api.send(method, address, body)
        assert answer.status >= 400, address
        assert f"Did you mean {near!r}?" in json.dumps(answer.body), (address, answer.body)
    assert "Use 'filter[agent]='." in api.get("/v1/usage", agent="x").body["detail"]
    own = api.post("/v1/halts", {"agent": "x", "reason": "x"}).body["errors"]
    assert "Did you mean 'match.agent'?" in json.dumps(own)
    array = api.post("/v1/events", {"events": [make_event()]}).body["errors"]
    assert "Send the array itself." in json.dumps(array)


def test_an_address_with_an_id_that_is_none_says_whose_id_it_is(account: Account) -> None:
    api = caller(account)
    for address, detail in (
        ("/v1/reservations/abc", "No reservation has the id 'abc'."),
        ("/v1/reservations/abc/settle", "No reservation has the id 'abc'."),
        (f"/v1/reservations/{UUID(int=7)}", f"No reservation has the id '{UUID(int=7)}'."),
        ("/v1/rate-limits/abc", "No rate limit has the id 'abc'."),
        ("/v1/deliveries/abc", "No delivery has the id 'abc'."),
        ("/v1/deliveries/7", "No delivery has the id '7'."),
        ("/v1/budgets/7", "No budget has the id '7'."),
        ("/v1/abc", "There is nothing at this address."),
    ):
        answer = api.get(address)
        assert (answer.status, answer.code, answer.body["detail"]) == (404, "not_found", detail)


def test_every_validator_says_what_a_value_must_be_in_the_same_words(account: Account) -> None:
    api = caller(account)
    channel = {"name": "Chat", "kind": "slack", "config": {"url": "https://hooks.example.com/x"}}
    budget = {"name": "x", "period": "day", "limit": {"cost_usd": "5"}}
    text = 'must be a string, such as "call-123"'
    number = "must be a whole number from 0 to 9,007,199,254,740,992"
    wrong: list[tuple[str, Any, str, str]] = [
        ("/v1/events", make_event(id=5), "/id", f"'id' {text}, of at most 200 characters."),
        ("/v1/events", make_event(input_tokens="5"), "/input_tokens", f"'input_tokens' {number}."),
        ("/v1/events", make_event(input_tokens=-5), "/input_tokens", f"'input_tokens' {number}."),
        (
            "/v1/events",
            make_event(operation="guess"),
            "/operation",
            "'operation' must be one of embedding, llm, other, tool.",
        ),
        (
            "/v1/events",
            make_event(time=5),
            "/time",
            "'time' must be RFC 3339 with a zone, as in 2026-11-21T12:00:00Z.",
        ),
        (
            "/v1/events",
            make_event(tags={"a": {}}),
            "/tags",
            f"'tags' {text} or a whole number, such as 5 or a number, such as 0.5 or true or",
        ),
        (
            "/v1/reservations",
            {"amount_usd": True},
            "/amount_usd",
            "'amount_usd' must be a decimal number of USD, as in \"0.0123\".",
        ),
        ("/v1/budgets", {**budget, "name": 5}, "/name", text),
        (
            "/v1/budgets",
            {**budget, "limit": 5},
            "/limit",
            'must be an object, such as {"cost_usd": "5"}',
        ),
        ("/v1/budgets", {**budget, "per": "agent"}, "/per", 'must be a list, such as ["'),
        ("/v1/budgets", {**budget, "period": "daily"}, "/period", "must be one of hour, day, "),
        ("/v1/budgets", {"period": "day", "limit": {"cost_usd": "5"}}, "/name", "is required"),
        ("/v1/budgets", {**budget, "levels": [{"percent": None}]}, "/levels/0/percent", "must not"),
        ("/v1/channels", {**channel, "kind": "mail"}, "/kind", "must be one of email, slack, "),
        ("/v1/channels", {**channel, "is_paused": 1}, "/is_paused", "must be true or false"),
        ("/v1/channels", [], "", 'must be an object, such as {"name": "research"}'),
        ("/v1/keys", {"name": "x", "scopes": None}, "/scopes", "must not be null"),
        ("/v1/keys", {"name": "x", "scopes": [None]}, "/scopes/0", "must not be null"),
        ("/v1/keys", {"name": "x", "scopes": ["own"]}, "/scopes/0", "must be one of ingest, "),
    ]
    for path, body, pointer, detail in wrong:
        (error,) = api.post(path, body).body["errors"]
        assert (error["pointer"], error["detail"][: len(detail)]) == (pointer, detail), body


def test_a_problem_names_the_first_hundred_errors_and_how_many_there_are(account: Account) -> None:
    api = caller(account)
    unknown = {f"colour{number}/~": number for number in range(5_000)}
    answer = api.post("/v1/budgets", {"name": "x", **unknown})
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert (len(answer.body["errors"]), answer.body["error_count"]) == (100, 5_002)
    assert answer.body["errors"][0]["pointer"] == "/colour0~1~0"
    assert len(json.dumps(answer.body)) < 20_000
    match = api.post("/v1/halts", {"match": unknown, "reason": "x"})
    assert (len(match.body["errors"]), match.body["error_count"]) == (100, 5_000)
    # As many members as a body can have, each of which is wrong.
    items = api.post("/v1/budgets", {"name": "x", "per": ["colour"] * 19_000, "period": "day"})
    assert {error["pointer"] for error in items.body["errors"]} == {"/per", "/limit"}
    parameters = api.get("/v1/budgets", **{f"x{number}": "1" for number in range(200)})
    assert (len(parameters.body["errors"]), parameters.body["error_count"]) == (100, 200)


def test_a_refusal_quotes_little_of_what_it_refuses(account: Account) -> None:
    api, long = caller(account), "x" * 200_000
    for path, body in (
        ("/v1/budgets", {"name": "x", "period": long, "limit": {"cost_usd": long}}),
        ("/v1/budgets", {long: 1}),
        ("/v1/halts", {"match": {long: "x", "status": long}, "reason": "x"}),
        ("/v1/reservations", {"amount_usd": "1", "estimate": long}),
        ("/v1/reservations", {"amount_usd": "1", long: 1}),
        ("/v1/events", [make_event(operation=long), make_event(**{long: 1}), make_event(id=long)]),
    ):
        answer = api.post(path, body)
        assert answer.status in (400, 422)
        assert len(json.dumps(answer.body)) < 5_000, path
    events = [make_event(id=f"e{number}", tool=5) for number in range(150)]
    # Of events every error is told: their sender needs each.
    assert len(api.post("/v1/events", events).body["errors"]) == 150


def test_a_value_that_looks_alike_is_the_same_everywhere(account: Account) -> None:
    api = caller(account)
    made = api.post(
        "/v1/budgets",
        {
            "name": "x",
            "match": {"customer": ZOES[0]},
            "per": ["agent"],
            "period": "month",
            "limit": {"cost_usd": "3"},
        },
    )
    assert made.body["match"] == {"customer": ZOE}
    events = [make_event(customer=each, agent="a", session=each, cost_usd="0.5") for each in ZOES]
    assert api.post("/v1/events", events).body["accepted"] == len(ZOES)
    for each in (ZOE, *ZOES):
        row = api.get("/v1/usage", **{"filter[customer]": each}).body["total"]
        assert row["cost_usd"] == "2.5"
        assert len(api.get("/v1/events", **{"filter[customer]": each}).body["data"]) == 5
        (window,) = api.get("/v1/balances", customer=each, agent="\u200ba").body["budgets"]
        assert (window["spent_usd"], window["group"]) == ("2.5", {"agent": "a"})
        assert len(api.get(f"/v1/sessions/{each}").body["events"]) == 5
        ask = {"amount_usd": "0.6", "customer": each, "agent": "a "}
        assert api.post("/v1/reservations", ask).code == "budget_exceeded"
    groups = api.get("/v1/usage", group_by="customer", interval="none").body["data"]
    assert [row["group"] for row in groups] == [{"customer": ZOE}]
    api.post("/v1/halts", {"match": {"customer": ZOES[1]}, "reason": "x"})
    ask = {"amount_usd": "0.1", "customer": ZOES[2], "agent": "a"}
    assert api.post("/v1/reservations", ask).code == "halted"


def test_the_length_of_a_value_is_that_of_what_can_be_seen(account: Account) -> None:
    api = caller(account)
    longest = "e\u0308" * 200
    events = [
        make_event(agent=f" {longest} "),
        make_event(agent=f"{longest}x"),
        make_event(agent="\u200b"),
    ]
    answer = api.post("/v1/events", events).body
    assert answer["accepted"] == 1
    assert [(each["index"], each["pointer"]) for each in answer["errors"]] == [
        (1, "/agent"),
        (2, "/agent"),
    ]
    for path in ("/v1/usage?filter[agent]=\u200b", "/v1/balances?agent=\u200b"):
        assert api.get(path).status == 400
    for agent in ("\u200b", f"{longest}x"):
        refused = api.post("/v1/reservations", {"amount_usd": "1", "agent": agent})
        assert (refused.status, refused.pointers) == (400, {"/agent"})


def test_an_event_is_compared_as_it_was_sent(account: Account) -> None:
    event = make_event(customer="acme ")
    assert send(account, [event, event])["duplicates"] == 1
    (error,) = send(account, [{**event, "customer": "acme"}])["errors"]
    assert error["code"] == "id_conflict"


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (5, ["5", "5.0"]),
        (5.0, ["5", "5.0"]),
        (0.25, ["0.25"]),
        (True, ["true"]),
        (False, ["false"]),
        ("5", ["5"]),
        ("true", ["true"]),
        (None, [""]),
    ],
)
def test_a_tag_is_filtered_by_one_rule(account: Account, value: object, texts: list[str]) -> None:
    send(account, [make_event(tags={"tier": value}), make_event(tags={"tier": "other"})])
    api = caller(account)
    for text in texts:
        wanted = {"filter[tags.tier]": text}
        listed = api.get("/v1/events", **wanted).body["data"]
        assert [event["tags"] for event in listed] == [{"tier": value}], text
        assert api.get("/v1/usage", **wanted).body["total"]["requests"] == 1


def test_a_misspelt_model_is_named_with_its_nearest(account: Account) -> None:
    api = caller(account)
    event = make_event(model="claude-sonet-4-5")
    answer = api.post("/v1/events", [event, make_event(), make_event(model="my-own")]).body
    (warning,) = answer["warnings"]
    assert (warning["code"], warning["model"]) == ("unpriced", "claude-sonet-4-5")
    assert "Did you mean 'claude-sonnet-4-5'?" in warning["detail"]
    assert "warnings" not in api.post("/v1/events", make_event()).body
    make_budget(account)
    ask = {"model": "claude-sonet-4-5", "input_tokens": 1, "max_output_tokens": 1}
    refused = api.post("/v1/reservations", ask)
    assert refused.code == "unpriced"
    assert "Did you mean 'claude-sonnet-4-5'?" in refused.body["detail"]


def wait_of(account: Account, **ask: object) -> int | None:
    """When a refused ask may be repeated; the header and the body say the same."""
    client = Client(headers=account.headers)
    answer = client.post("/v1/reservations", {"amount_usd": "1", **ask}, "application/json")
    assert answer.status_code in (402, 423)
    seconds: int | None = answer.json().get("retry_after_seconds")
    assert answer.headers.get("Retry-After") == (None if seconds is None else str(seconds))
    assert seconds is None or seconds >= 1
    return seconds


def test_a_refusal_says_when_to_ask_again_where_that_is_known(account: Account) -> None:
    make_budget(account, cost_usd=2, period="hour", match={"agent": ["hour", "both", "life"]})
    make_budget(account, cost_usd=2, period="day", match={"agent": "both"})
    make_budget(account, cost_usd=2, period="lifetime", match={"agent": "life"})
    make_budget(account, cost_usd=2, period="hour", is_rolling=True, match={"agent": "rolling"})
    make_budget(account, cost_usd=2, levels=[(100, "lockout")], match={"agent": "locked"})
    agents = ("hour", "both", "life", "rolling", "locked")
    send(account, [make_event(agent=agent, cost_usd="1.5", time=...) for agent in agents])
    now = datetime.now(UTC)
    hour = 3600 - now.minute * 60 - now.second
    day = 86_400 - now.hour * 3600 - now.minute * 60 - now.second
    assert abs((wait_of(account, agent="hour") or 0) - hour) <= 30
    assert abs((wait_of(account, agent="both") or 0) - day) <= 30
    assert wait_of(account, agent="life") is None
    assert wait_of(account, agent="rolling") is None
    # No window has room for it, however long one waits.
    assert wait_of(account, agent="hour", amount_usd="3") is None
    # What locks out ends with its window, here with the month.
    assert (wait_of(account, agent="locked") or 0) > 0


def test_a_breaker_says_when_it_lets_a_probe_through(account: Account) -> None:
    with account.scope():
        tenant = account.tenant
        breaker = Breaker.objects.create(
            tenant=tenant, name="x", close="trial", per=["agent"], error_percent=50
        )
        opened = {"breaker_id": breaker.id, "group_key": '["a"]'}
        halted = {"match": {"agent": "a"}, "kind": "breaker", "actor": "x", "version": 1}
        halt = Halt.objects.create(tenant=tenant, reason="x", **halted, **opened)
        BreakerState.objects.create(
            tenant=tenant,
            id=1,
            nanos=[],
            calls=[],
            errors=[],
            opened_at=datetime.now(UTC),
            halt_id=halt.id,
            **opened,
        )
        cool_down = timedelta(seconds=breaker.cool_down_seconds)
    assert abs((wait_of(account, agent="a") or 0) - cool_down.total_seconds()) <= 30
    caller(account).post("/v1/halts", {"match": {"agent": "b"}, "reason": "x"})
    assert wait_of(account, agent="b") is None
