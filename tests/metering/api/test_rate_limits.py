"""Rate limits over HTTP, and what they make of a minute."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import connection

from common.json_bodies import JsonObject
from metering.core.amounts import Amounts
from metering.core.dimensions import MATCHABLE
from metering.limits.rate_counters import MEASURES, RateCounterState, SlidingMinute
from metering.limits.rate_limits import RateRule, read_rate_rules
from metering.models import Decision, RateCounter, RateLimit, Reservation
from tenants.models import AuditEntry
from tests.cases import each_case
from tests.factories import NANOS, Account
from tests.metering.api.caller import Caller, caller

NOW = datetime.now(UTC).replace(microsecond=0)
AGENTS: JsonObject = {
    "name": "Agents of growth",
    "match": {"team": "growth"},
    "per": ["agent", "key"],
    "limit": {"requests_per_minute": 60, "cost_usd_per_minute": "2.5"},
    "mode": "warn",
}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def change(**members: object) -> JsonObject:
    return {name: value for name, value in {**AGENTS, **members}.items() if value is not ...}


def values(**dimensions: str) -> tuple[str, ...]:
    return tuple(dimensions.get(name, "") for name in MATCHABLE)


def test_a_rate_limit_is_answered_as_it_was_made(api: Caller) -> None:
    made = api.post("/v1/rate-limits", AGENTS)
    assert made.status == 201
    limit = made.body
    assert {name: limit[name] for name in AGENTS} == {
        **AGENTS,
        "limit": {
            "requests_per_minute": 60,
            "tokens_per_minute": None,
            "cost_usd_per_minute": "2.5",
        },
    }
    assert api.get(f"/v1/rate-limits/{limit['id']}").body == limit
    assert api.get("/v1/rate-limits").body == {"data": [limit], "next_cursor": None}


def test_a_rate_limit_needs_a_name_and_a_rate_only(api: Caller) -> None:
    made = api.post("/v1/rate-limits", {"name": "All", "limit": {"tokens_per_minute": 5}}).body
    assert (made["match"], made["per"], made["mode"]) == ({}, [], "enforce")


@each_case(
    ("members", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"match": {"colour": "red"}}, "/match/colour"),
        ({"match": {"status": "error"}}, "/match/status"),
        ({"per": ["status"]}, "/per/0"),
        ({"per": ["request"]}, "/per/0"),
        ({"per": ["agent", "agent"]}, "/per"),
        ({"per": ["agent", "user", "team", "key"]}, "/per"),
        ({"limit": ...}, "/limit"),
        ({"limit": {}}, "/limit"),
        ({"limit": {"tokens_per_minute": None}}, "/limit"),
        ({"limit": {"tokens_per_minute": 0}}, "/limit/tokens_per_minute"),
        ({"limit": {"cost_usd_per_minute": "0"}}, "/limit/cost_usd_per_minute"),
        ({"limit": {"cost_usd_per_minute": "-1"}}, "/limit/cost_usd_per_minute"),
        ({"limit": {"cost_usd": "1"}}, "/limit/cost_usd"),
        ({"mode": "panic"}, "/mode"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_a_wrong_rate_limit_is_refused_at_the_member_that_is_wrong(
    account: Account, api: Caller, members: JsonObject, pointer: str
) -> None:
    refused = api.post("/v1/rate-limits", change(**members))
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert any(result.startswith(pointer) for result in refused.pointers), refused.body
    with account.scope():
        assert not RateLimit.objects.exists()


def test_a_patch_changes_the_rates_it_names_and_leaves_one_at_least(
    account: Account, api: Caller
) -> None:
    limit = api.post("/v1/rate-limits", AGENTS).body
    path = f"/v1/rate-limits/{limit['id']}"
    changed = {"limit": {"requests_per_minute": None, "tokens_per_minute": 9}, "mode": "enforce"}
    patched = api.patch(path, changed)
    assert patched.body == {
        **limit,
        "mode": "enforce",
        "limit": {
            "requests_per_minute": None,
            "tokens_per_minute": 9,
            "cost_usd_per_minute": "2.5",
        },
    }
    nothing = {"limit": {"tokens_per_minute": None, "cost_usd_per_minute": None}}
    assert api.patch(path, nothing).pointers == {"/limit"}
    assert api.get(path).body == patched.body
    with account.scope():
        entry = AuditEntry.objects.get(object_type="ratelimit", action="update")
        assert entry.changes == {
            "mode": ["warn", "enforce"],
            "requests_per_minute": [60, None],
            "tokens_per_minute": [None, 9],
        }


def test_a_removed_rate_limit_is_gone_and_written_down(account: Account, api: Caller) -> None:
    path = f"/v1/rate-limits/{api.post('/v1/rate-limits', AGENTS).body['id']}"
    assert api.delete(path).status == 204
    assert api.get(path).status == 404
    assert api.get("/v1/rate-limits").body["data"] == []
    with account.scope():
        assert read_rate_rules(account.tenant.id) == ()
        assert AuditEntry.objects.filter(object_type="ratelimit", action="delete").count() == 1


def test_every_change_is_a_new_version_of_the_configuration(account: Account, api: Caller) -> None:
    def version() -> int:
        account.tenant.refresh_from_db(fields=["configuration_version"])
        return account.tenant.configuration_version

    versions = []
    with account.scope():
        versions.append(version())
    path = f"/v1/rate-limits/{api.post('/v1/rate-limits', AGENTS).body['id']}"
    for act in (lambda: None, lambda: api.patch(path, {"name": "x"}), lambda: api.delete(path)):
        act()
        with account.scope():
            versions.append(version())
    assert versions == sorted(set(versions))


def test_another_tenants_rate_limit_is_not_there_and_scopes_count(
    account: Account, stranger: Account, api: Caller
) -> None:
    limit = api.post("/v1/rate-limits", AGENTS).body
    path = f"/v1/rate-limits/{limit['id']}"
    other = caller(stranger)
    assert other.get("/v1/rate-limits").body["data"] == []
    assert [other.get(path).status, other.patch(path, {}).status, other.delete(path).status] == [
        404
    ] * 3
    key = api.post("/v1/keys", {"name": "agent", "scopes": ["enforce", "ingest"]}).body["key"]
    for answer in (Caller(key).get(path), Caller(key).post("/v1/rate-limits", AGENTS)):
        assert (answer.status, answer.code) == (403, "forbidden")
    reader = Caller(api.post("/v1/keys", {"name": "r", "scopes": ["read"]}).body["key"])
    assert reader.get(path).body == limit
    assert (reader.delete(path).status, reader.patch(path, {"name": "x"}).status) == (403, 403)
    assert api.get(path).body == limit


def test_reservations_over_the_rate_are_told_when_to_come_again(
    account: Account, api: Caller
) -> None:
    api.post("/v1/rate-limits", change(match={}, per=["key"], mode="enforce"))
    other = Caller(api.post("/v1/keys", {"name": "b", "scopes": ["enforce"]}).body["key"])
    ask = {"amount_usd": "1"}
    with time_machine.travel(NOW, tick=False):
        assert [api.post("/v1/reservations", ask).status for _ in range(2)] == [201, 201]
    with time_machine.travel(NOW + timedelta(seconds=20), tick=False):
        refused = api.post("/v1/reservations", ask)
        assert (refused.status, refused.code) == (429, "throttled")
        assert refused.body["retry_after_seconds"] == 41
        assert api.post("/v1/reservations", {"amount_usd": "0.5"}).status == 201
        # Another key has a minute of its own.
        assert other.post("/v1/reservations", ask).status == 201
    with account.scope():
        rate_counters = RateCounter.objects.filter(tenant=account.tenant)
        assert sorted(sum(pace.nanos) for pace in rate_counters) == [NANOS, 2 * NANOS + NANOS // 2]
    with time_machine.travel(NOW + timedelta(seconds=61), tick=False):
        assert api.post("/v1/reservations", ask).status == 201


def test_many_that_ask_at_once_get_the_rate_and_not_one_more(account: Account, api: Caller) -> None:
    api.post("/v1/rate-limits", {"name": "All", "limit": {"requests_per_minute": 10}})

    def ask(number: int) -> list[int]:
        own = caller(account)
        try:
            return [own.post("/v1/reservations", {"amount_usd": "1"}).status for _ in range(5)]
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        statuses = [status for result in pool.map(ask, range(6)) for status in result]
    assert (statuses.count(201), statuses.count(429)) == (10, 20)
    with account.scope():
        assert Reservation.objects.filter(tenant=account.tenant).count() == 10
        assert Decision.objects.filter(tenant=account.tenant, code="throttled").count() == 20
        assert sum(RateCounter.objects.get(tenant=account.tenant).requests) == 10


def make_rule(**fields: object) -> RateRule:
    return RateRule.of(RateLimit(id=7, name="Rates", **fields))


def test_a_rule_groups_by_dimensions_and_by_the_key_that_asks() -> None:
    rule = make_rule(match={"team": ["growth", None]}, per=["user", "key"])
    assert rule.subject == "limit:7"
    assert rule.group(values(team="growth", user="u"), key_prefix="k1") == '["u","k1"]'
    assert rule.group(values(user="u"), key_prefix="k2") == '["u","k2"]'
    assert rule.group(values(team="growth"), key_prefix="k1") == '["","k1"]'
    assert rule.group(values(team="sales", user="u"), key_prefix="k1") is None
    assert make_rule().group(values(team="sales"), key_prefix="k1") == "[]"


def test_a_rule_waits_for_the_slowest_of_its_rates() -> None:
    rule = make_rule(cost_nanos_per_minute=NANOS, tokens_per_minute=1000, requests_per_minute=2)
    pace = RateCounterState(1, SlidingMinute.empty(MEASURES))
    call = Amounts(NANOS // 2, 400, 1, 0)
    assert rule.wait_seconds(pace, call, now=NOW) == 0
    pace.add(nanos=NANOS // 2, tokens=400, requests=1)
    later = NOW + timedelta(seconds=10)
    assert rule.wait_seconds(pace, call, now=later) == 0
    assert rule.wait_seconds(pace, call._replace(cost_nanos=NANOS // 2 + 1), now=later) == 51
    pace.add(nanos=0, tokens=400, requests=1)
    assert rule.wait_seconds(pace, call._replace(tokens=700), now=later) == 61
    # A call of a tool is a request like any other.
    tool = Amounts(0, 0, 0, 1)
    assert rule.wait_seconds(pace, tool, now=later) == 51
    assert rule.wait_seconds(pace, tool, now=later + timedelta(seconds=51)) == 0
