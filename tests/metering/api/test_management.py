"""Configuration over HTTP: what is made, changed, ended, and refused with a sentence."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import LevelRule
from metering.core.periods import EPOCH
from metering.models import Budget, TenantPrice
from tenants.models import ApiKey, AuditEntry, Tenant
from tests.cases import each_case
from tests.factories import Account, make_event, send
from tests.metering.api.caller import Caller, caller

RESEARCH: JsonObject = {
    "name": "Research agents, daily",
    "match": {"team": "growth"},
    "per": ["agent"],
    "period": "day",
    "timezone": "UTC",
    "limit": {"cost_usd": "50", "tokens": 2_000_000, "requests": 10_000, "tool_calls": 500},
    "mode": "enforce",
    "levels": [
        {"percent": 120, "notify": ["engineering"], "action": "lockout"},
        {"percent": 70, "notify": ["team_lead"], "action": "none"},
    ],
}
# What a budget has that names no levels.
BLOCK = {"percent": 100, "notify": [], "action": "block", "throttle": None}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def change(**members: object) -> JsonObject:
    return {name: value for name, value in {**RESEARCH, **members}.items() if value is not ...}


def test_a_budget_is_answered_as_it_was_made(api: Caller) -> None:
    made = api.post("/v1/budgets", RESEARCH)
    assert made.status == 201
    budget = made.body
    assert budget["match"] == {"team": "growth"}
    assert budget["limit"] == {
        "cost_usd": "50",
        "tokens": 2_000_000,
        "requests": 10_000,
        "tool_calls": 500,
        "seconds": None,
    }
    assert [level["percent"] for level in budget["levels"]] == [70, 120]
    assert budget["levels"][1] == {
        "percent": 120,
        "notify": ["engineering"],
        "action": "lockout",
        "throttle": None,
    }
    assert (budget["anchor"], budget["rolling"], budget["rollover"]) == (None, False, False)
    assert api.get(f"/v1/budgets/{budget['id']}").body == budget
    assert api.get("/v1/budgets").body == {"data": [budget], "next_cursor": None}


def test_a_budget_needs_a_name_a_period_and_a_limit_only(api: Caller) -> None:
    made = api.post("/v1/budgets", {"name": "All", "period": "month", "limit": {"requests": 5}})
    assert made.status == 201
    assert made.body["match"] == {}
    assert made.body["per"] == []
    assert made.body["levels"] == [BLOCK]
    assert made.body["mode"] == "enforce"


def test_a_budget_made_with_an_empty_list_of_levels_blocks_when_it_is_used_up(api: Caller) -> None:
    assert api.post("/v1/budgets", change(levels=[])).body["levels"] == [BLOCK]


def test_a_level_that_throttles_keeps_its_rates(account: Account, api: Caller) -> None:
    rates = {"cost_usd_per_minute": "0.25", "tokens_per_minute": 30_000}
    levels = [
        {"percent": 80, "notify": [], "action": "throttle", "throttle": rates},
        {"percent": 90, "notify": [], "action": "throttle", "throttle": None},
        {"percent": 100, "notify": ["finance"], "action": "hold", "throttle": None},
    ]
    budget = api.post("/v1/budgets", change(levels=levels)).body
    assert budget["levels"] == levels
    assert api.get(f"/v1/budgets/{budget['id']}").body["levels"] == levels
    with account.scope():
        first, second, third = read_budget_index(account.tenant.id).rules[budget["id"]].levels
    assert first == LevelRule(80, "throttle", (), 250_000_000, 30_000)
    assert (second.cost_nanos_per_minute, second.tokens_per_minute) == (None, None)
    assert third == LevelRule(100, "hold", ("finance",))


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize(
    ("level", "pointer"),
    [
        ({"action": "throttle"}, "/levels/0/percent"),
        ({"percent": 80, "action": "block", "throttle": {"tokens_per_minute": 5}}, "/levels/0/"),
        ({"percent": 80, "action": "throttle", "throttle": {}}, "/levels/0/throttle"),
        (
            {"percent": 80, "action": "throttle", "throttle": {"tokens_per_minute": None}},
            "/levels/0/throttle",
        ),
        (
            {"percent": 80, "action": "throttle", "throttle": {"cost_usd_per_minute": "0"}},
            "/levels/0/throttle/cost_usd_per_minute",
        ),
        (
            {"percent": 80, "action": "throttle", "throttle": {"tokens_per_minute": 0}},
            "/levels/0/throttle/tokens_per_minute",
        ),
        ({"percent": 80, "action": "throttle", "throttle": {"rate": 1}}, "/levels/0/throttle/rate"),
    ],
)
def test_a_wrong_level_is_refused_and_changes_nothing(
    api: Caller, method: str, level: JsonObject, pointer: str
) -> None:
    budget = api.post("/v1/budgets", RESEARCH).body
    path = "/v1/budgets" if method == "POST" else f"/v1/budgets/{budget['id']}"
    body = change(levels=[level]) if method == "POST" else {"levels": [level]}
    refused = api.send(method, path, body)
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert any(result.startswith(pointer) for result in refused.pointers), refused.body
    assert api.get("/v1/budgets").body["data"] == [budget]


@each_case(
    ("members", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "n" * 201}, "/name"),
        ({"name": 5}, "/name"),
        ({"name": ...}, "/name"),
        ({"match": {"colour": "red"}}, "/match/colour"),
        ({"match": {"team": 5}}, "/match/team"),
        ({"match": {"team": []}}, "/match/team"),
        ({"match": {"team": ["a", 1]}}, "/match/team"),
        ({"match": {"team": [{"a": "b"}]}}, "/match/team"),
        ({"match": {"team": ["a", ["a"]]}}, "/match/team"),
        ({"match": {"status": "lost"}}, "/match/status"),
        ({"match": ["team"]}, "/match"),
        ({"per": ["colour"]}, "/per/0"),
        ({"per": ["agent", "agent"]}, "/per"),
        ({"period": "fortnight"}, "/period"),
        ({"timezone": "Mars/Olympus"}, "/timezone"),
        ({"timezone": None}, "/timezone"),
        ({"anchor": "2026-11-01T00:00:30Z"}, "/anchor"),
        ({"anchor": "2026-11-01T00:00:00"}, "/anchor"),
        ({"anchor": "9999-12-31T23:59:00-12:00"}, "/anchor"),
        ({"rolling": "yes"}, "/rolling"),
        ({"rolling": True, "rollover": True}, "/rollover"),
        ({"rolling": True, "period": "lifetime"}, "/rolling"),
        ({"rollover": True, "per": ["request"]}, "/rollover"),
        ({"rollover": True, "limit": {"tokens": 5}}, "/rollover"),
        ({"rollover_max_percent": 501}, "/rollover_max_percent"),
        ({"limit": {}}, "/limit"),
        ({"limit": {"cost_usd": None}}, "/limit"),
        ({"limit": {"cost_usd": "-1"}}, "/limit/cost_usd"),
        ({"limit": {"cost_usd": "NaN"}}, "/limit/cost_usd"),
        ({"limit": {"cost_usd": "1e400"}}, "/limit/cost_usd"),
        ({"limit": {"tokens": 0}}, "/limit/tokens"),
        ({"limit": {"tokens": 1.5}}, "/limit/tokens"),
        ({"limit": {"tokens": True}}, "/limit/tokens"),
        ({"limit": {"tokens": 10**30}}, "/limit/tokens"),
        ({"limit": {"euros": 5}}, "/limit/euros"),
        ({"mode": "panic"}, "/mode"),
        ({"levels": [{"percent": 0}]}, "/levels/0/percent"),
        ({"levels": [{"percent": 1001}]}, "/levels/0/percent"),
        ({"levels": [{"percent": 5}, {"percent": 5}]}, "/levels"),
        ({"levels": [{"percent": 5, "action": "shout"}]}, "/levels/0/action"),
        ({"levels": [{"percent": 5, "notify": "me"}]}, "/levels/0/notify"),
        ({"colour": "red"}, "/colour"),
        ({"id": 7}, "/id"),
    ],
)
def test_a_wrong_budget_is_refused_at_the_member_that_is_wrong(
    account: Account, api: Caller, members: JsonObject, pointer: str
) -> None:
    refused = api.post("/v1/budgets", change(**members))
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert any(result.startswith(pointer) for result in refused.pointers), refused.body
    with account.scope():
        assert not Budget.objects.exists()


def test_a_budget_made_in_mid_period_counts_what_was_spent_and_shows_its_windows(
    account: Account, api: Caller
) -> None:
    events = [
        make_event(team="growth", agent="reader", cost_usd="1.5"),
        make_event(team="growth", agent="writer", cost_usd="2.25"),
        make_event(team="growth", cost_usd="60"),
        make_event(team="other", agent="reader", cost_usd="9"),
    ]
    send(account, events)
    budget = api.post("/v1/budgets", change(period="lifetime")).body
    windows = api.get(f"/v1/budgets/{budget['id']}/windows").body["data"]
    by_agent = {window["group"]["agent"]: window for window in windows}
    assert by_agent.keys() == {"reader", "writer", ""}
    reader = by_agent["reader"]
    assert (reader["spent_usd"], reader["remaining_usd"], reader["limit_usd"]) == (
        "1.5",
        "48.5",
        "50",
    )
    assert (reader["spent_tokens"], reader["remaining_tokens"]) == (1100, 1_998_900)
    assert (reader["spent_requests"], reader["spent_tool_calls"]) == (1, 0)
    assert (reader["used_percent"], reader["level"], reader["window_end"]) == (3.0, None, None)
    assert (by_agent[""]["remaining_usd"], by_agent[""]["level"]) == ("-10", 120)


def test_windows_come_newest_first_in_pages(account: Account, api: Caller) -> None:
    budget = api.post("/v1/budgets", change(per=["session"], match={}, period="hour")).body
    send(account, [make_event(session=f"s{number}") for number in range(5)])
    path = f"/v1/budgets/{budget['id']}/windows"
    everything = api.get(path).body["data"]
    assert len(everything) == 5
    pages, cursor = [], None
    while True:
        page = api.get(path, limit=2, **({"cursor": cursor} if cursor else {})).body
        pages.append(page["data"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [row for page in pages for row in page] == everything


def test_a_budget_on_single_calls_names_the_call_in_its_windows(
    account: Account, api: Caller
) -> None:
    limit = {"cost_usd": "0.5"}
    budget = api.post("/v1/budgets", change(per=["agent", "request"], match={}, limit=limit)).body
    send(account, [make_event(agent="reader", cost_usd="1"), make_event(cost_usd="0.01")])
    windows = api.get(f"/v1/budgets/{budget['id']}/windows").body["data"]
    assert len(windows) == 1
    assert windows[0]["group"].keys() == {"agent", "request"}
    assert windows[0]["spent_usd"] == "1"


def test_a_patch_changes_what_it_names_and_of_the_limit_the_parts(api: Caller) -> None:
    budget = api.post("/v1/budgets", RESEARCH).body
    path = f"/v1/budgets/{budget['id']}"
    patched = api.patch(path, {"limit": {"cost_usd": "60", "tokens": None}, "mode": "shadow"})
    assert patched.status == 200
    assert patched.body == {
        **budget,
        "limit": {**budget["limit"], "cost_usd": "60", "tokens": None},
        "mode": "shadow",
    }
    assert api.patch(path, {"levels": []}).body["levels"] == [BLOCK]
    assert api.patch(path, {"per": ["team"]}).body["revision"] == 2
    assert api.get(path).body["limit"]["cost_usd"] == "60"


def test_a_patch_is_judged_with_what_it_leaves(api: Caller) -> None:
    budget = api.post("/v1/budgets", change(rollover=True)).body
    path = f"/v1/budgets/{budget['id']}"
    assert api.patch(path, {"limit": {"cost_usd": None}}).pointers == {"/rollover"}
    assert api.patch(path, {"rolling": True}).pointers == {"/rollover"}
    assert api.get(path).body == budget


def test_an_archived_budget_is_shown_apart_and_not_changed(api: Caller) -> None:
    path = f"/v1/budgets/{api.post('/v1/budgets', RESEARCH).body['id']}"
    assert api.delete(path).status == 204
    assert api.delete(path).status == 204
    assert api.get("/v1/budgets").body["data"] == []
    assert [row["name"] for row in api.get("/v1/budgets", archived="true").body["data"]] == [
        RESEARCH["name"]
    ]
    assert api.get(path).body["archived_at"] is not None
    assert (api.patch(path, {"mode": "warn"}).status, api.patch(path, {}).code) == (409, "conflict")


def test_a_price_prices_what_had_none(account: Account, api: Caller) -> None:
    send(account, [make_event(model="our-own-model", provider="in-house")])
    price = {
        "model": "our-own-model",
        "rates": {"input_per_mtok_usd": "2", "output_per_mtok_usd": 10},
    }
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    made = api.post("/v1/prices", {**price, "effective_from": past, "note": "measured"})
    assert made.status == 201, made.body
    assert made.body["rates"] == {"input_per_mtok_usd": "2", "output_per_mtok_usd": "10"}
    assert (made.body["provider"], made.body["source"]) == (None, "override")
    event = api.get("/v1/events").body["data"][0]
    assert (event["cost_usd"], event["cost_source"]) == ("0.003", "override")
    assert event["price_id"] == made.body["id"]
    assert api.get(f"/v1/prices/{made.body['id']}").body == made.body


def test_prices_are_listed_in_pages_and_ended(account: Account, api: Caller) -> None:
    bodies = [
        {"model": "m1", "rates": {"input_per_mtok_usd": "1"}},
        {"tool": "web_search", "call_usd": "0.01"},
        {
            "model": "m2",
            "provider": "in-house",
            "rates": {"cache_read_per_mtok_usd": "0.1", "input_per_mtok_usd": "1"},
        },
        {"tool": "browser", "call_usd": "0.2", "effective_from": "2100-01-01T00:00:00Z"},
    ]
    made = [api.post("/v1/prices", body).body for body in bodies]
    listed, cursor = [], None
    while True:
        page = api.get("/v1/prices", limit=1, **({"cursor": cursor} if cursor else {})).body
        listed += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(row["id"] for row in listed) == sorted(row["id"] for row in made)
    assert {row["tool"]: row["call_usd"] for row in listed if row["tool"]} == {
        "web_search": "0.01",
        "browser": "0.2",
    }
    for row in made:
        assert api.delete(f"/v1/prices/{row['id']}").status == 204
        ended = api.get(f"/v1/prices/{row['id']}").body
        assert ended["effective_to"] is not None
    first = api.get(f"/v1/prices/{made[0]['id']}").body
    assert api.delete(f"/v1/prices/{made[0]['id']}").status == 204
    assert api.get(f"/v1/prices/{made[0]['id']}").body == first


@each_case(
    ("body", "pointer"),
    [
        ({}, "/model"),
        ({"model": "m"}, "/rates"),
        ({"model": "m", "rates": {}}, "/rates"),
        ({"model": "m", "rates": {"input": "1"}}, "/rates/input"),
        ({"model": "m", "rates": {"input_per_mtok_usd": "-1"}}, "/rates/input_per_mtok_usd"),
        ({"model": "m", "rates": {"input_per_mtok_usd": "1000001"}}, "/rates/input_per_mtok_usd"),
        ({"model": "m", "rates": {"input_per_mtok_usd": "1"}, "call_usd": "1"}, "/call_usd"),
        ({"model": "m", "tool": "t", "call_usd": "1"}, "/model"),
        ({"tool": "t"}, "/call_usd"),
        ({"tool": "t", "call_usd": "1", "rates": {"input_per_mtok_usd": "1"}}, "/rates"),
        ({"tool": "t", "call_usd": "1", "effective_from": "yesterday"}, "/effective_from"),
        (
            {
                "tool": "t",
                "call_usd": "1",
                "effective_from": "2026-01-02T00:00:00Z",
                "effective_to": "2026-01-01T00:00:00Z",
            },
            "/effective_to",
        ),
    ],
)
def test_a_wrong_price_is_refused(
    account: Account, api: Caller, body: JsonObject, pointer: str
) -> None:
    refused = api.post("/v1/prices", body)
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert pointer in refused.pointers, refused.body
    with account.scope():
        assert not TenantPrice.objects.exists()


def test_tiers_raise_the_rate_of_large_calls(account: Account, api: Caller) -> None:
    body = {
        "model": "tiered",
        "rates": {"input_per_mtok_usd": "1"},
        "tiers": [{"above_input_tokens": 500, "rates": {"input_per_mtok_usd": "2"}}],
    }
    made = api.post("/v1/prices", body)
    assert made.body["tiers"] == body["tiers"]
    future = (datetime.now(UTC) + timedelta(seconds=60)).isoformat()
    send(account, [make_event(model="tiered", time=future)])
    assert api.get("/v1/events").body["data"][0]["cost_usd"] == "0.002"
    body["tiers"] = [{"above_input_tokens": 5, "rates": {"output_per_mtok_usd": "2"}}]
    assert api.post("/v1/prices", body).pointers == {"/tiers"}


def test_the_catalogue_answers_what_applies(api: Caller) -> None:
    asked = {"catalogue": "true", "model": "claude-sonnet-4-5", "provider": "anthropic"}
    (row,) = api.get("/v1/prices", **asked).body["data"]
    assert row["source"] == "catalogue"
    assert row["rates"]["input_per_mtok_usd"] == "3"
    assert row["rates"]["output_per_mtok_usd"] == "15"
    assert api.get(f"/v1/prices/{row['id']}").body["id"] == row["id"]
    assert (api.delete(f"/v1/prices/{row['id']}").status) == 409
    own = {"model": "claude-sonnet-4-5", "rates": {"input_per_mtok_usd": "1"}}
    mine = api.post("/v1/prices", own).body
    assert api.get("/v1/prices", **asked).body["data"][0]["id"] == mine["id"]
    assert api.get("/v1/prices", catalogue="true", model="no-such-model").body["data"] == []
    assert api.get("/v1/prices", catalogue="true").status == 400


def test_rating_again_can_be_tried_and_then_done(account: Account, api: Caller) -> None:
    send(account, [make_event(id="one"), make_event(id="two", cost_usd="7")])
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    own = {
        "model": "claude-sonnet-4-5",
        "rates": {"input_per_mtok_usd": "1", "output_per_mtok_usd": "1"},
    }
    api.post("/v1/prices", {**own, "effective_from": yesterday})
    period = {"from": yesterday, "to": tomorrow}
    tried = api.post("/v1/prices/rerate", {**period, "dry_run": True})
    assert tried.body == {
        "dry_run": True,
        "examined": 1,
        "changed": 1,
        "newly_priced": 0,
        "still_unpriced": 0,
        "difference_usd": "-0.0034",
    }
    done = api.post("/v1/prices/rerate", period)
    assert done.body == {**tried.body, "dry_run": False}
    assert api.post("/v1/prices/rerate", period).body["changed"] == 0
    costs = {event["id"]: event["cost_usd"] for event in api.get("/v1/events").body["data"]}
    assert costs == {"one": "0.0011", "two": "7"}
    assert api.post("/v1/prices/rerate", {"from": tomorrow, "to": yesterday}).pointers == {"/to"}
    assert api.post("/v1/prices/rerate", {}).pointers == {"/from", "/to"}


def test_teams_are_added_once(api: Caller) -> None:
    made = api.post("/v1/teams", {"name": "growth"})
    assert made.status == 201
    assert (api.post("/v1/teams", {"name": "growth"}).status) == 409
    assert api.get("/v1/teams").body["data"] == [made.body]
    assert api.post("/v1/teams", {"name": " "}).status == 400


def test_a_team_is_renamed_and_its_former_names_stay_its_own(
    stranger: Account, api: Caller
) -> None:
    team = api.post("/v1/teams", {"name": "growth"}).body
    other = api.post("/v1/teams", {"name": "other"}).body
    path = f"/v1/teams/{team['id']}"
    renamed = api.patch(path, {"name": "growth-eu"})
    assert (renamed.status, renamed.body) == (
        200,
        {**team, "name": "growth-eu", "former_names": ["growth"]},
    )
    assert api.patch(path, {}).body == api.get(path).body == renamed.body
    for taken in ("growth", "growth-eu"):
        refused = api.patch(f"/v1/teams/{other['id']}", {"name": taken})
        assert (refused.status, refused.pointers) == (409, {"/name"})
    assert api.patch(path, {"name": ""}).status == 400
    assert api.patch(path, {"former_names": []}).pointers == {"/former_names"}
    reader = Caller(api.post("/v1/keys", {"name": "k", "scopes": ["read"]}).body["key"])
    assert (reader.get(path).status, reader.patch(path, {"name": "x"}).status) == (200, 403)
    theirs = caller(stranger)
    assert (theirs.get(path).status, theirs.patch(path, {"name": "x"}).status) == (404, 404)
    assert api.get("/v1/teams").body["data"] == [renamed.body, other]
    assert [
        entry["changes"] for entry in api.get("/v1/audit-log", action="update").body["data"]
    ] == [{"name": ["growth", "growth-eu"], "former_names": [[], ["growth"]]}]


def test_settings_change_and_take_effect(account: Account, api: Caller) -> None:
    before = api.get("/v1/settings").body
    assert before["unpriced_policy"] == "refuse"
    with account.scope():
        version = Tenant.objects.get(id=account.tenant.id).configuration_version
    assert api.patch("/v1/settings", {"unpriced_policy": "assume"}).pointers == {"/assumed_rates"}
    changed = api.patch(
        "/v1/settings",
        {
            "unpriced_policy": "assume",
            "timezone": "Europe/Berlin",
            "trusts_given_costs": True,
            "assumed_rates": {"input_per_mtok_usd": "5", "output_per_mtok_usd": "25.5"},
        },
    )
    assert changed.status == 200, changed.body
    assert api.get("/v1/settings").body == changed.body
    assert changed.body["assumed_rates"]["output_per_mtok_usd"] == "25.5"
    with account.scope():
        tenant = Tenant.objects.get(id=account.tenant.id)
    assert tenant.configuration_version > version
    assert (tenant.trusts_given_costs, tenant.timezone) == (True, "Europe/Berlin")
    assert api.patch("/v1/settings", {"tenant": "other"}).pointers == {"/tenant"}
    assert api.patch("/v1/settings", {"timezone": "Nowhere"}).pointers == {"/timezone"}


def test_every_change_is_in_the_audit_log(account: Account, api: Caller) -> None:
    budget = api.post("/v1/budgets", RESEARCH).body
    api.patch(f"/v1/budgets/{budget['id']}", {"limit": {"cost_usd": "51"}})
    api.delete(f"/v1/budgets/{budget['id']}")
    api.post("/v1/teams", {"name": "growth"})
    api.patch("/v1/settings", {"timezone": "Asia/Tokyo"})
    log = api.get("/v1/audit-log", limit=5).body
    assert [(row["action"], row["object_type"]) for row in log["data"]] == [
        ("update", "tenant"),
        ("create", "team"),
        ("archive", "budget"),
        ("update", "budget"),
        ("create", "budget"),
    ]
    assert log["data"][0]["changes"] == {"timezone": ["UTC", "Asia/Tokyo"]}
    assert log["data"][3]["changes"] == {"limit_cost_nanos": [50_000_000_000, 51_000_000_000]}
    prefix = account.api_key.rpartition("_")[0].split("_")[1]
    assert {row["actor"] for row in log["data"]} == {f"API key sg_{prefix}"}
    older = api.get("/v1/audit-log", cursor=log["next_cursor"]).body["data"]
    assert max(row["id"] for row in older) < min(row["id"] for row in log["data"])
    only = api.get("/v1/audit-log", object_type="team", action="create").body["data"]
    assert [row["id"] for row in only] == [log["data"][1]["id"]]
    with account.scope():
        assert AuditEntry.objects.count() == len(log["data"]) + len(older)


WRONG_PAGES = (
    *("limit=0", "limit=501", "limit=x", "limit=", "limit=1&limit=2", "colour=red"),
    *("cursor=x", "cursor=WzFd!", "cursor=bnVsbA", "cursor=%00"),
)


def test_a_list_refuses_parameters_that_make_no_sense(api: Caller) -> None:
    for noun in ("budgets", "prices", "teams", "keys", "audit-log"):
        for query in WRONG_PAGES:
            answer = api.get(f"/v1/{noun}?{query}")
            assert answer.status == 400, (noun, query)
            assert answer.code in {
                "invalid_limit",
                "invalid_cursor",
                "invalid_value",
                "unknown_parameter",
            }


def test_what_does_not_exist_is_a_problem_and_never_a_page(api: Caller) -> None:
    for path in (
        "/v1/nothing",
        "/v1/budgets/",
        "/v1/budgets/7",
        "/v1/budgets/x",
        f"/v1/budgets/{10**30}",
    ):
        answer = api.get(path)
        assert (answer.status, answer.code) == (404, "not_found"), path
    assert (api.send("PUT", "/v1/budgets", {}).code) == "method_not_allowed"
    assert api.send("OPTIONS", "/v1/budgets", {}).status == 405
    assert api.delete("/v1/settings").status == 405
    assert api.get("/v1/traces").status == 405
    wrong = api.send(
        "POST", "/v1/budgets", b"name=x", content_type="application/x-www-form-urlencoded"
    )
    assert (wrong.status, wrong.code) == (415, "unsupported_media_type")


def test_a_key_that_a_process_still_believes_makes_no_key(account: Account) -> None:
    """What it made would outlive its revocation."""
    api = caller(account)
    wanted = {"name": "minted", "scopes": ["read"]}
    assert api.post("/v1/keys", wanted).status == 201
    for change in ({"revoked_at": timezone.now()}, {"revoked_at": None, "expires_at": EPOCH}):
        # Without word to this process.
        with account.scope():
            ApiKey.objects.exclude(name="minted").update(**change)
        assert api.post("/v1/keys", wanted).status == 401
    with account.scope():
        assert ApiKey.objects.filter(name="minted").count() == 1
