"""The routing table over HTTP."""

import pytest

from common.json_bodies import JsonObject
from metering.limits.routes import Tier, read_routes
from metering.models import ModelRoute
from tests.factories import Account
from tests.metering.api.caller import Caller, caller

SMALL = {"provider": "openai", "model": "gpt-5-nano", "max_complexity": 4}
BEST = {"provider": "anthropic", "model": "claude-sonnet-4-5", "max_complexity": None}
SUMMARIES: JsonObject = {"name": "Summaries", "task_type": "summary", "tiers": [SMALL, BEST]}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def change(**members: object) -> JsonObject:
    return {name: value for name, value in {**SUMMARIES, **members}.items() if value is not ...}


def test_a_route_is_answered_as_it_was_made_changed_and_removed(
    account: Account, api: Caller
) -> None:
    best = {name: BEST[name] for name in ("provider", "model")}
    made = api.post("/v1/routes", change(tiers=[SMALL, best]))
    assert made.status == 201, made.body
    route = made.body
    assert {name: route[name] for name in SUMMARIES} == SUMMARIES
    path = f"/v1/routes/{route['id']}"
    assert api.get(path).body == route
    others = api.post("/v1/routes", {"name": "Others", "tiers": [BEST]}).body
    assert others["task_type"] is None
    assert api.get("/v1/routes").body == {"data": [route, others], "next_cursor": None}
    page = api.get("/v1/routes", limit=1).body
    assert api.get("/v1/routes", cursor=page["next_cursor"]).body["data"] == [others]
    renamed = api.patch(path, {"name": "Short texts"}).body
    assert renamed == {**route, "name": "Short texts"}
    assert api.patch(path, {"tiers": [BEST], "task_type": "digest"}).body["tiers"] == [BEST]
    with account.scope():
        digest = read_routes(account.tenant.id).choose("digest")
        assert digest is not None
        assert digest.tiers == (Tier("anthropic", "claude-sonnet-4-5", None),)
    assert api.delete(path).status == 204
    assert api.get(path).status == 404
    assert api.get("/v1/routes").body["data"] == [others]


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"name": ...}, "/name"),
        ({"name": ""}, "/name"),
        ({"task_type": ""}, "/task_type"),
        ({"task_type": 5}, "/task_type"),
        ({"tiers": ...}, "/tiers"),
        ({"tiers": []}, "/tiers"),
        ({"tiers": [SMALL]}, "/tiers"),
        ({"tiers": [BEST, SMALL]}, "/tiers"),
        ({"tiers": [{**SMALL, "max_complexity": 11}, BEST]}, "/tiers/0/max_complexity"),
        ({"tiers": [{**SMALL, "max_complexity": "4"}, BEST]}, "/tiers/0/max_complexity"),
        ({"tiers": [{"provider": "openai"}]}, "/tiers/0/model"),
        ({"tiers": [{"model": "m"}]}, "/tiers/0/provider"),
        ({"tiers": [{**BEST, "price": 1}]}, "/tiers/0/price"),
        ({"tiers": "best"}, "/tiers"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_what_is_no_route_is_refused_and_changes_nothing(
    account: Account, api: Caller, members: JsonObject, pointer: str
) -> None:
    refused = api.post("/v1/routes", change(**members))
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert all(result.startswith(pointer) for result in refused.pointers), refused.body
    with account.scope():
        assert not ModelRoute.objects.exists()
    made = api.post("/v1/routes", SUMMARIES).body
    named = {name: value for name, value in members.items() if value is not ...}
    if named:
        assert api.patch(f"/v1/routes/{made['id']}", named).status == 400
    assert api.get("/v1/routes").body["data"] == [made]


def test_a_task_type_has_one_route(api: Caller) -> None:
    first = api.post("/v1/routes", SUMMARIES, Idempotency_Key="one").body
    assert api.post("/v1/routes", SUMMARIES, Idempotency_Key="one").body == first
    second = api.post("/v1/routes", SUMMARIES)
    assert (second.status, second.code) == (409, "route_exists")
    other = api.post("/v1/routes", change(task_type=None)).body
    taken = api.patch(f"/v1/routes/{other['id']}", {"task_type": "summary"})
    assert (taken.status, taken.code) == (409, "route_exists")
    assert api.get("/v1/routes").body["data"] == [first, other]


def test_routes_are_managed_with_the_scope_for_it_and_by_their_tenant(
    stranger: Account, api: Caller
) -> None:
    made = api.post("/v1/routes", SUMMARIES).body
    path = f"/v1/routes/{made['id']}"
    text = api.post("/v1/keys", {"name": "k", "scopes": ["read", "enforce"]}).body["key"]
    reader, theirs = Caller(text), caller(stranger)
    assert (reader.get(path).status, reader.get("/v1/routes").status) == (200, 200)
    for key, status in ((reader, 403), (theirs, 404)):
        assert key.patch(path, {"name": "x"}).status == status
        assert key.delete(path).status == status
    assert reader.post("/v1/routes", SUMMARIES).status == 403
    assert theirs.get(path).status == 404
    assert theirs.get("/v1/routes").body["data"] == []
    assert api.get("/v1/routes").body["data"] == [made]
