"""Breakers over HTTP: they open for what is reported, stop what is asked for, and close."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from common.json_bodies import JsonObject
from metering.models import Breaker, Decision
from tests.cases import each_case
from tests.factories import Account, make_budget, make_event
from tests.metering.api.caller import Caller, caller

NOW = datetime.now(UTC).replace(microsecond=0)
RESEARCH: JsonObject = {
    "name": "Research",
    "match": {"team": "growth"},
    "per": ["agent"],
    "cost_usd_per_minute": "10",
    "error_percent": 50,
    "error_min_calls": 5,
    "tokens_times": 10,
    "usual_min_calls": 30,
    "mode": "enforce",
    "limit_percent": None,
    "close": "trial",
    "cool_down_seconds": 60,
}
ASK: JsonObject = {"team": "growth", "agent": "researcher", "amount_usd": "0.1"}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def change(**members: object) -> JsonObject:
    return {name: value for name, value in {**RESEARCH, **members}.items() if value is not ...}


def spend(api: Caller, usd: str, **fields: object) -> None:
    event = make_event(
        **{"cost_usd": usd, "team": "growth", "agent": "researcher", "time": ..., **fields}
    )
    assert api.post("/v1/events", event).body["accepted"] == 1


def ask(api: Caller, **members: object) -> tuple[int, str]:
    answer = api.post("/v1/reservations", {**ASK, **members})
    return answer.status, answer.body["decision"] if answer.status == 201 else answer.code


def test_a_breaker_is_answered_as_it_was_made(api: Caller) -> None:
    made = api.post("/v1/breakers", RESEARCH)
    assert made.status == 201
    breaker = made.body
    assert {name: breaker[name] for name in RESEARCH} == RESEARCH
    assert breaker["open"] == []
    assert api.get(f"/v1/breakers/{breaker['id']}").body == breaker
    assert api.get("/v1/breakers").body == {"data": [breaker], "next_cursor": None}


def test_a_breaker_needs_a_name_and_a_rule_only(api: Caller) -> None:
    breaker = api.post("/v1/breakers", {"name": "All", "error_percent": 20}).body
    assert (breaker["match"], breaker["per"], breaker["mode"]) == (
        {},
        ["agent", "feature"],
        "enforce",
    )
    assert (breaker["close"], breaker["cool_down_seconds"]) == ("hand", 300)
    assert (breaker["error_min_calls"], breaker["usual_min_calls"]) == (10, 20)
    whole = api.post("/v1/breakers", {"name": "All", "per": [], "tokens_times": 5}).body
    assert whole["per"] == []


@each_case(
    ("members", "pointer"),
    [
        ({"name": ...}, "/name"),
        ({"match": {"status": "error"}}, "/match/status"),
        ({"match": {"team": 5}}, "/match/team"),
        ({"per": ["key"]}, "/per/0"),
        ({"per": ["status"]}, "/per/0"),
        ({"per": ["agent", "agent"]}, "/per"),
        ({"per": ["agent", "user", "team", "feature"]}, "/per"),
        ({"cost_usd_per_minute": "0"}, "/cost_usd_per_minute"),
        ({"cost_usd_per_minute": "much"}, "/cost_usd_per_minute"),
        ({"error_percent": 0}, "/error_percent"),
        ({"error_percent": 101}, "/error_percent"),
        ({"error_min_calls": 0}, "/error_min_calls"),
        ({"tokens_times": 1}, "/tokens_times"),
        ({"usual_min_calls": None}, "/usual_min_calls"),
        ({"limit_percent": 100}, "/limit_percent"),
        ({"limit_percent": 0}, "/limit_percent"),
        ({"close": "door"}, "/close"),
        ({"cool_down_seconds": 0}, "/cool_down_seconds"),
        ({"cool_down_seconds": 604_801}, "/cool_down_seconds"),
        ({"mode": "panic"}, "/mode"),
        ({"open": []}, "/open"),
        (
            {"cost_usd_per_minute": None, "error_percent": None, "tokens_times": ...},
            "/cost_usd_per_minute",
        ),
    ],
)
def test_a_wrong_breaker_is_refused_at_the_member_that_is_wrong(
    account: Account, api: Caller, members: JsonObject, pointer: str
) -> None:
    refused = api.post("/v1/breakers", change(**members))
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert any(result.startswith(pointer) for result in refused.pointers), refused.body
    with account.scope():
        assert not Breaker.objects.exists()


def test_a_patch_changes_what_it_names_and_leaves_one_rule_at_least(api: Caller) -> None:
    breaker = api.post("/v1/breakers", RESEARCH).body
    path = f"/v1/breakers/{breaker['id']}"
    patched = api.patch(path, {"cost_usd_per_minute": None, "tokens_times": None})
    assert patched.body == {**breaker, "cost_usd_per_minute": None, "tokens_times": None}
    assert api.patch(path, {"error_percent": None}).pointers == {"/cost_usd_per_minute"}
    assert api.get(path).body == patched.body


def test_what_spends_too_fast_is_stopped_until_somebody_closes_the_breaker(
    account: Account, api: Caller
) -> None:
    make_budget(account)
    breaker = api.post("/v1/breakers", change(close="hand")).body
    path = f"/v1/breakers/{breaker['id']}"
    spend(api, "8")
    assert ask(api) == (201, "allow")
    spend(api, "4.4")
    refused = api.post("/v1/reservations", ASK)
    assert (refused.status, refused.code) == (423, "breaker_open")
    assert "spent $12.40 in 60 s, limit $10.00 a minute" in refused.body["detail"]
    assert ask(api, agent="writer") == (201, "allow")
    (group,) = api.get(path).body["open"]
    (halt,) = api.get("/v1/halts").body["halts"]
    assert (halt["kind"], halt["match"]) == ("breaker", {"team": "growth", "agent": "researcher"})
    assert group["group"] == {"agent": "researcher"}
    assert group["why"] == "spent $12.40 in 60 s, limit $10.00 a minute"
    assert (group["halt"], group["trial_from"], group["trial_at"]) == (halt["id"], None, None)
    # What was spent meanwhile is always taken, and changes nothing.
    spend(api, "1")
    closed = api.post(f"{path}/close", {"group": {"agent": "researcher"}})
    assert (closed.status, closed.body["open"]) == (200, [])
    assert ask(api) == (201, "allow")
    assert api.get("/v1/halts").body["halts"] == []


def test_closing_takes_a_group_or_all_and_is_safe_to_repeat(api: Caller) -> None:
    breaker = api.post("/v1/breakers", change(per=["agent", "user"])).body
    path = f"/v1/breakers/{breaker['id']}"
    for agent in ("a", "b", "c"):
        spend(api, "11", agent=agent)
    assert len(api.get(path).body["open"]) == 3
    each = {"group": {"agent": "b", "user": None}}
    for _ in range(2):
        left = api.post(f"{path}/close", each).body["open"]
        assert sorted(group["group"]["agent"] for group in left) == ["a", "c"]
    for wrong in ({"agent": "a"}, {"agent": "a", "team": "x"}, "a", {"agent": "a", "user": 5}):
        refused = api.post(f"{path}/close", {"group": wrong})
        assert refused.status == 400, wrong
        assert all(pointer.startswith("/group") for pointer in refused.pointers)
    assert len(api.get(path).body["open"]) == 2
    assert api.post(f"{path}/close", None).body["open"] == []
    assert api.post(f"{path}/close", {}).status == 200


def test_one_call_is_tried_after_the_cool_down_and_closes_the_breaker(
    account: Account, api: Caller
) -> None:
    path = f"/v1/breakers/{api.post('/v1/breakers', RESEARCH).body['id']}"
    with time_machine.travel(NOW, tick=False):
        spend(api, "11")
        (group,) = api.get(path).body["open"]
        assert datetime.fromisoformat(group["trial_from"]) == NOW + timedelta(seconds=60)
    with time_machine.travel(NOW + timedelta(seconds=59), tick=False):
        assert ask(api) == (423, "breaker_open")
    with time_machine.travel(NOW + timedelta(seconds=61), tick=False):
        probe = api.post("/v1/reservations", ASK)
        assert probe.status == 201
        assert ask(api) == (423, "breaker_open")
    with time_machine.travel(NOW + timedelta(seconds=62), tick=False):
        settled = api.post(
            f"/v1/reservations/{probe.body['id']}/settle",
            make_event(cost_usd="0.1", team="growth", agent="researcher", time=...),
        )
        assert settled.status == 200
        assert api.get(path).body["open"] == []
        assert ask(api) == (201, "allow")
    with account.scope():
        rows = Decision.objects.filter(tenant=account.tenant, code__startswith="breaker_")
        result = [(row.decision, row.code) for row in rows.order_by("decided_at", "id")]
    assert result == [
        ("open", "breaker_open"),
        ("refuse", "breaker_open"),
        ("refuse", "breaker_open"),
        ("close", "breaker_closed"),
    ]


def test_a_probe_that_fails_stops_the_group_for_another_cool_down(api: Caller) -> None:
    api.post("/v1/breakers", RESEARCH)
    with time_machine.travel(NOW, tick=False):
        spend(api, "11")
    with time_machine.travel(NOW + timedelta(seconds=61), tick=False):
        probe = api.post("/v1/reservations", ASK).body
        spend(api, "0.1", reservation=probe["id"], status="error")
    with time_machine.travel(NOW + timedelta(seconds=120), tick=False):
        assert ask(api) == (423, "breaker_open")
    with time_machine.travel(NOW + timedelta(seconds=122), tick=False):
        assert ask(api) == (201, "allow")


def test_one_with_a_percent_leaves_less_of_a_budget(account: Account, api: Caller) -> None:
    make_budget(account, cost_usd=100)
    path = f"/v1/breakers/{api.post('/v1/breakers', change(limit_percent=50)).body['id']}"
    spend(api, "11")
    assert ask(api, amount_usd="39") == (201, "allow")
    assert ask(api, amount_usd="0.01") == (402, "budget_exceeded")
    assert ask(api, amount_usd="0.01", agent="writer") == (201, "allow")
    api.post(f"{path}/close", {})
    assert ask(api, amount_usd="49") == (201, "allow")


def test_a_removed_breaker_stops_nobody(api: Caller) -> None:
    path = f"/v1/breakers/{api.post('/v1/breakers', RESEARCH).body['id']}"
    spend(api, "11")
    assert ask(api) == (423, "breaker_open")
    assert api.delete(path).status == 204
    assert ask(api) == (201, "allow")
    assert api.get(path).status == 404


def test_another_tenants_breaker_is_not_there_and_scopes_count(
    stranger: Account, api: Caller
) -> None:
    breaker = api.post("/v1/breakers", RESEARCH).body
    path = f"/v1/breakers/{breaker['id']}"
    spend(api, "11")
    other = caller(stranger)
    assert other.get("/v1/breakers").body["data"] == []
    for method, where in (
        ("GET", path),
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}/close"),
    ):
        assert other.send(method, where, {}).status == 404, method
    agent = Caller(
        api.post("/v1/keys", {"name": "a", "scopes": ["enforce", "ingest", "read"]}).body["key"]
    )
    assert agent.get(path).status == 200
    # An agent never closes its own.
    for method, where in (("PATCH", path), ("DELETE", path), ("POST", f"{path}/close")):
        refused = agent.send(method, where, {})
        assert (refused.status, refused.code) == (403, "forbidden"), method
    assert len(api.get(path).body["open"]) == 1
