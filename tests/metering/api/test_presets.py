"""Budgets that are ready to use: listed, made, and overridden member by member."""

import pytest

from common.json_bodies import JsonObject
from metering.models import Budget
from tests.cases import each_case
from tests.factories import Account, make_event, send, windows_of
from tests.metering.api.caller import Caller, caller

LIMIT = {
    "cost_usd": "0.5",
    "tokens": 20_000,
    "requests": None,
    "tool_calls": 15,
    "seconds": 120,
}
LEVELS = [
    {"percent": 80, "notify": ["engineering"], "action": "none", "throttle": None},
    {"percent": 100, "notify": ["engineering"], "action": "block", "throttle": None},
]


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def test_the_preset_of_sessions_makes_the_budget_that_is_listed(
    account: Account, api: Caller
) -> None:
    (listed,) = api.get("/v1/budgets/presets").body["data"]
    made = api.post("/v1/budgets", {"preset": "session"})
    assert made.status == 201
    for fields in (listed, made.body):
        assert (fields["name"], fields["per"]) == ("Session limits", ["session"])
        assert (fields["period"], fields["mode"]) == ("lifetime", "enforce")
        assert (fields["limit"], fields["levels"]) == (LIMIT, LEVELS)
    assert "session" in listed["description"]
    send(account, [make_event(session="s-1"), make_event(session="s-2")])
    with account.scope():
        budget = Budget.objects.get(id=made.body["id"])
    windows = windows_of(account, budget)
    assert sorted(window.group_key for window in windows) == ['["s-1"]', '["s-2"]']
    assert {window.ends_at for window in windows} == {None}


def test_what_the_body_names_beats_the_preset_and_of_the_limit_the_parts(api: Caller) -> None:
    body = {
        "preset": "session",
        "name": "Long sessions",
        "match": {"feature": "research"},
        "limit": {"tokens": 50_000, "seconds": None},
        "levels": [{"percent": 100, "action": "hold"}],
        "mode": "shadow",
    }
    made = api.post("/v1/budgets", body).body
    assert made["limit"] == {**LIMIT, "tokens": 50_000, "seconds": None}
    assert made["levels"] == [{"percent": 100, "notify": [], "action": "hold", "throttle": None}]
    assert (made["name"], made["mode"], made["per"]) == ("Long sessions", "shadow", ["session"])
    assert made["match"] == {"feature": "research"}


def test_null_takes_a_part_out_of_a_presets_limit(api: Caller) -> None:
    limit = dict.fromkeys(("cost_usd", "tokens", "tool_calls"))
    made = api.post("/v1/budgets", {"preset": "session", "limit": limit})
    assert (made.status, made.body["limit"]) == (201, {**dict.fromkeys(LIMIT), "seconds": 120})


@each_case(
    ("body", "pointer"),
    [
        ({"preset": "weekend"}, "/preset"),
        ({"preset": None}, "/preset"),
        ({"preset": "session", "colour": "red"}, "/colour"),
        ({"preset": "session", "name": ""}, "/name"),
        ({"preset": "session", "rolling": True}, "/rolling"),
        ({"preset": "session", "limit": dict.fromkeys(LIMIT)}, "/limit"),
        ({"preset": "session", "levels": [{"action": "block"}]}, "/levels/0/percent"),
        ({"name": "n", "period": "day"}, "/limit"),
        ({"limit": {"tokens": 5}, "period": "day"}, "/name"),
    ],
)
def test_what_a_preset_does_not_make_right_is_refused(
    account: Account, api: Caller, body: JsonObject, pointer: str
) -> None:
    answer = api.post("/v1/budgets", body)
    assert (answer.status, answer.code, answer.pointers) == (400, "invalid_request", {pointer})
    with account.scope():
        assert not Budget.objects.exists()


def test_presets_are_read_with_the_scope_to_read(account: Account, api: Caller) -> None:
    text = api.post("/v1/keys", {"name": "agents", "scopes": ["enforce"]}).body["key"]
    assert Caller(text).get("/v1/budgets/presets").status == 403
    assert Caller(None).get("/v1/budgets/presets").status == 401
    page = api.get("/v1/budgets/presets", limit=1).body
    assert ([row["preset"] for row in page["data"]], page["next_cursor"]) == (["session"], None)
