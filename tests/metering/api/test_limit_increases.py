"""Temporary raises over HTTP: an agent asks, and somebody else decides."""

from datetime import UTC, datetime, timedelta

import pytest

from common.json_bodies import JsonObject
from metering.budgets.reading import read_budget_index
from metering.configuration.budgets import archive_budget
from metering.models import Budget, LimitIncrease
from tests.cases import each_case
from tests.factories import Account, make_budget, make_event, send
from tests.metering.api.caller import Caller, caller

ASK: JsonObject = {
    "by": {"cost_usd": "5.25"},
    "duration_seconds": 3600,
    "reason": "A large import",
}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


@pytest.fixture
def agent(api: Caller) -> Caller:
    """A key as agents have it: it asks and reads, and manages nothing."""
    made = api.post("/v1/keys", {"name": "agents", "scopes": ["enforce", "read"]})
    return Caller(made.body["key"])


@pytest.fixture
def budget(account: Account) -> Budget:
    return make_budget(account, per=["team", "agent"], limit_tool_calls=10)


def change(**members: object) -> JsonObject:
    return {name: value for name, value in {**ASK, **members}.items() if value is not ...}


def raised_nanos(account: Account, budget: Budget) -> list[tuple[str, int]]:
    with account.scope():
        rules = read_budget_index(account.tenant.id).rules[budget.id].raises
    return [(rule.group_key, rule.cost_nanos) for rule in rules]


def test_an_agent_asks_and_a_manager_approves(
    account: Account, api: Caller, agent: Caller, budget: Budget
) -> None:
    path = f"/v1/budgets/{budget.id}/raises"
    body = change(
        by={"cost_usd": "5.25", "tool_calls": 3, "tokens": None},
        group={"agent": "reader", "team": None},
    )
    before = datetime.now(UTC)
    asked = agent.post(path, body)
    assert asked.status == 201, asked.body
    result = asked.body
    assert result["by"] == {
        "cost_usd": "5.25",
        "tokens": None,
        "requests": None,
        "tool_calls": 3,
        "seconds": None,
    }
    assert (result["budget"], result["group"]) == (budget.id, {"team": "", "agent": "reader"})
    assert (result["status"], result["reason"]) == ("asked", "A large import")
    assert (result["starts_at"], result["decided_at"], result["decided_by"]) == (None, None, None)
    assert result["asked_by"].startswith("API key sg_")
    ends_at = datetime.fromisoformat(result["ends_at"])
    assert timedelta(0) <= ends_at - before - timedelta(hours=1) < timedelta(minutes=1)
    assert raised_nanos(account, budget) == []

    for decision in ("approve", "refuse"):
        assert agent.post(f"{path}/{result['id']}/{decision}").status == 403
    assert agent.delete(f"{path}/{result['id']}").status == 403
    assert agent.get(f"{path}/{result['id']}").body == result

    approved = api.post(f"{path}/{result['id']}/approve", {"note": "Until noon"}).body
    assert (approved["status"], approved["note"]) == ("approved", "Until noon")
    assert approved["starts_at"] == approved["decided_at"]
    assert raised_nanos(account, budget) == [('["","reader"]', 5_250_000_000)]
    assert api.post(f"{path}/{result['id']}/approve").body == approved
    assert approved.pop("still_stopped_by") == []
    refused = api.post(f"{path}/{result['id']}/refuse")
    assert (refused.status, refused.code) == (409, "already_decided")
    assert api.get(f"{path}/{result['id']}").body == approved


def test_a_level_that_holds_asks_for_what_a_person_then_approves(
    account: Account, api: Caller, agent: Caller
) -> None:
    budget = make_budget(account, cost_usd=1, per=["agent"], levels=[(100, "hold")])
    call = {"agent": "reader", "amount_usd": "2"}
    for _ in range(2):
        refused = agent.post("/v1/reservations", call)
        assert (refused.status, refused.code) == (402, "approval_needed")
    (asked,) = api.get("/v1/raises", status="asked").body["data"]
    assert (asked["budget"], asked["level"]) == (budget.id, 100)
    assert (asked["group"], asked["by"]["cost_usd"]) == ({"agent": "reader"}, "2")
    api.post(f"/v1/budgets/{budget.id}/raises/{asked['id']}/approve")
    assert agent.post("/v1/reservations", {**call, "agent": "writer"}).status == 402
    assert agent.post("/v1/reservations", call).status == 201
    api.delete(f"/v1/budgets/{budget.id}/raises/{asked['id']}")
    assert agent.post("/v1/reservations", {**call, "amount_usd": "0.01"}).status == 402


def test_a_raise_for_every_group_can_be_refused_and_moves_nothing(
    account: Account, api: Caller, agent: Caller, budget: Budget
) -> None:
    path = f"/v1/budgets/{budget.id}/raises"
    asked = agent.post(path, change(group=None)).body
    assert asked["group"] is None
    refused = api.post(f"{path}/{asked['id']}/refuse", {})
    assert (refused.status, refused.body["status"]) == (200, "refused")
    assert refused.body["starts_at"] is None
    again = api.post(f"{path}/{asked['id']}/approve")
    assert (again.status, again.code) == (409, "already_decided")
    assert raised_nanos(account, budget) == []


def test_an_approved_raise_is_ended_and_stays_to_be_read(api: Caller, budget: Budget) -> None:
    path = f"/v1/budgets/{budget.id}/raises"
    made = api.post(path, ASK).body
    assert (api.delete(f"{path}/{made['id']}").status) == 409
    assert api.get(f"{path}/{made['id']}").body == made
    api.post(f"{path}/{made['id']}/approve")
    assert api.delete(f"{path}/{made['id']}").status == 204
    ended = api.get(f"{path}/{made['id']}").body
    assert datetime.fromisoformat(ended["ends_at"]) <= datetime.now(UTC)
    assert ended["status"] == "approved"


def test_a_request_sent_again_is_one_request(agent: Caller, budget: Budget) -> None:
    path = f"/v1/budgets/{budget.id}/raises"
    first = agent.post(path, ASK, Idempotency_Key="one")
    assert agent.post(path, ASK, Idempotency_Key="one").body == first.body
    other = agent.post(path, change(reason="Another"), Idempotency_Key="one")
    assert (other.status, other.code) == (409, "idempotency_conflict")
    assert len(agent.get(path).body["data"]) == 1


def test_raises_are_listed_newest_first_by_status_and_budget(
    account: Account, api: Caller, budget: Budget
) -> None:
    other = make_budget(account)
    path = f"/v1/budgets/{budget.id}/raises"
    first, second = (api.post(path, change(reason=reason)).body for reason in ("one", "two"))
    third = api.post(f"/v1/budgets/{other.id}/raises", ASK).body
    assert api.post(f"{path}/{first['id']}/approve").status == 200
    approved = api.get(f"{path}/{first['id']}").body
    assert api.get(path).body == {"data": [second, approved], "next_cursor": None}
    assert api.get(path, status="asked").body["data"] == [second]
    assert api.get("/v1/raises").body["data"] == [third, second, approved]
    assert api.get("/v1/raises", status="approved").body["data"] == [approved]
    assert api.get("/v1/raises", status="refused").body["data"] == []
    page = api.get("/v1/raises", limit=2).body
    assert page["data"] == [third, second]
    rest = api.get("/v1/raises", limit=2, cursor=page["next_cursor"]).body
    assert rest == {"data": [approved], "next_cursor": None}
    assert api.get("/v1/raises", status="open").code == "invalid_request"


@each_case(
    ("members", "pointer"),
    [
        ({"by": ...}, "/by"),
        ({"by": {}}, "/by"),
        ({"by": {"cost_usd": "0"}}, "/by"),
        ({"by": {"cost_usd": "-1"}}, "/by/cost_usd"),
        ({"by": {"tokens": 5}}, "/by/tokens"),
        ({"by": {"tool_calls": 0}}, "/by/tool_calls"),
        ({"by": {"euros": 5}}, "/by/euros"),
        ({"group": {"agent": "a"}}, "/group"),
        ({"group": {"agent": "a", "team": "t", "user": "u"}}, "/group"),
        ({"group": {"agent": "a", "team": 5}}, "/group/team"),
        ({"group": {"agent": "a", "team": "t" * 201}}, "/group/team"),
        ({"group": "a"}, "/group"),
        ({"reason": ...}, "/reason"),
        ({"reason": " "}, "/reason"),
        ({"reason": "r" * 1001}, "/reason"),
        ({"duration_seconds": ...}, "/ends_at"),
        ({"ends_at": "2100-01-01T00:00:00Z"}, "/ends_at"),
        ({"duration_seconds": ..., "ends_at": "2100-01-01T00:00:00Z"}, "/ends_at"),
        ({"duration_seconds": ..., "ends_at": "2020-01-01T00:00:00Z"}, "/ends_at"),
        ({"duration_seconds": ..., "ends_at": "soon"}, "/ends_at"),
        ({"duration_seconds": 0}, "/duration_seconds"),
        ({"duration_seconds": 31 * 86_400 + 1}, "/duration_seconds"),
        ({"status": "approved"}, "/status"),
    ],
)
def test_what_is_no_raise_is_refused_and_not_kept(
    account: Account, api: Caller, budget: Budget, members: JsonObject, pointer: str
) -> None:
    refused = api.post(f"/v1/budgets/{budget.id}/raises", change(**members))
    assert (refused.status, refused.code, refused.pointers) == (400, "invalid_request", {pointer})
    with account.scope():
        assert not LimitIncrease.objects.exists()


def test_everything_that_is_wrong_with_a_request_is_named_at_once(
    api: Caller, budget: Budget
) -> None:
    path = f"/v1/budgets/{budget.id}/raises"
    wrong = api.post(
        path,
        {
            "by": {"cost_usd": "much", "tokens": 5},
            "group": {"user": "u"},
            "ends_at": "2100-01-01T00:00:00Z",
            "reason": " ",
            "colour": "red",
        },
    )
    assert (wrong.status, wrong.code) == (400, "invalid_request")
    assert wrong.pointers == {
        "/by/cost_usd",
        "/by/tokens",
        "/group",
        "/ends_at",
        "/reason",
        "/colour",
    }


def test_a_budget_on_single_calls_is_raised_for_all_of_them(account: Account, api: Caller) -> None:
    budget = make_budget(account, per=["agent", "request"])
    path = f"/v1/budgets/{budget.id}/raises"
    group = {"agent": "a", "request": "r"}
    assert api.post(path, change(group=group)).pointers == {"/group"}
    assert api.post(path, ASK).body["group"] is None


def test_an_archived_budget_is_not_raised(account: Account, api: Caller, budget: Budget) -> None:
    path = f"/v1/budgets/{budget.id}/raises"
    waiting = api.post(path, ASK).body
    with account.scope():
        archive_budget(budget=budget, actor="tests")
    for answer in (api.post(path, ASK), api.post(f"{path}/{waiting['id']}/approve")):
        assert (answer.status, answer.code) == (409, "conflict")
    assert api.get(path).body["data"] == [waiting]


def test_scopes_reach_as_far_as_they_say(api: Caller, budget: Budget) -> None:
    path = f"/v1/budgets/{budget.id}/raises"
    made = api.post(path, ASK).body
    keys = {
        scope: Caller(api.post("/v1/keys", {"name": scope, "scopes": [scope]}).body["key"])
        for scope in ("read", "enforce", "manage", "ingest")
    }
    statuses = {
        scope: (
            key.get(path).status,
            key.get("/v1/raises").status,
            key.post(path, ASK).status,
            key.post(f"{path}/{made['id']}/approve").status,
        )
        for scope, key in keys.items()
    }
    assert statuses == {
        "read": (200, 200, 403, 403),
        "enforce": (403, 403, 201, 403),
        "manage": (403, 403, 403, 200),
        "ingest": (403, 403, 403, 403),
    }
    assert Caller(None).get(path).status == 401


def test_another_tenants_raises_are_not_there(
    account: Account, stranger: Account, api: Caller, budget: Budget
) -> None:
    path = f"/v1/budgets/{budget.id}/raises"
    made = api.post(path, ASK).body
    other = make_budget(account)
    theirs = caller(stranger)
    own = make_budget(stranger)
    for answer in (
        theirs.get(path),
        theirs.post(path, ASK),
        theirs.get(f"{path}/{made['id']}"),
        theirs.delete(f"{path}/{made['id']}"),
        theirs.post(f"{path}/{made['id']}/approve"),
        theirs.post(f"{path}/{made['id']}/refuse"),
        theirs.post(f"/v1/budgets/{own.id}/raises/{made['id']}/approve"),
        api.post(f"/v1/budgets/{other.id}/raises/{made['id']}/approve"),
    ):
        assert (answer.status, answer.code) == (404, "not_found")
    assert theirs.get("/v1/raises").body["data"] == []
    assert api.get(f"{path}/{made['id']}").body == made


def test_an_approval_says_what_else_stops_such_calls(account: Account, api: Caller) -> None:
    budget = make_budget(account, cost_usd=1, per=["agent"], levels=[(100, "lockout")])
    other = make_budget(account, name="All of growth", cost_usd=2, match={"team": "growth"})
    legal = make_budget(account, cost_usd=1, match={"team": "legal"})
    event = make_event(team="growth", agent="reader", cost_usd="3")
    send(account, [event, make_event(team="legal", cost_usd="2")])
    by_hand = {"match": {"agent": ["reader", "writer"]}, "reason": "It loops."}
    halted = api.post("/v1/halts", by_hand).body["id"]
    api.post("/v1/halts", {"match": {"agent": "painter"}, "reason": "It paints."})
    path = f"/v1/budgets/{budget.id}/raises"
    by = {"by": {"cost_usd": "1"}, "group": {"agent": "reader"}}
    asked = api.post(path, change(**by)).body["id"]
    approved = api.post(f"{path}/{asked}/approve").body
    stopping = {row["code"]: row for row in approved["still_stopped_by"]}
    assert [(row["code"], row["affects"]) for row in approved["still_stopped_by"]] == [
        ("locked_out", "all"),
        ("halted", "all"),
        ("budget_exceeded", "all"),
        ("budget_exceeded", "some"),
        ("budget_exceeded", "some"),
    ]
    assert stopping["halted"]["lift"] == f"DELETE /v1/halts/{halted}"
    assert (stopping["halted"]["detail"], stopping["halted"]["halt"]) == ("It loops.", halted)
    named = [row["budget"] for row in approved["still_stopped_by"]]
    assert named == [None, None, budget.id, legal.id, other.id]
    # Enough of an increase lifts what the level locked out.
    more = change(**{**by, "by": {"cost_usd": "10"}})
    asked = api.post(path, more).body["id"]
    approved = api.post(f"{path}/{asked}/approve").body
    assert [row["budget"] for row in approved["still_stopped_by"]] == [None, legal.id, other.id]
    assert approved["still_stopped_by"][2]["detail"] == (
        "The budget 'All of growth' has used 150% of its limit on cost."
    )
