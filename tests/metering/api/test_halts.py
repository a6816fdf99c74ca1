"""The kill switch over HTTP: who may halt what, who may lift it, and what clients poll."""

import json
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.api import fast_halts
from metering.api.fast_halts import handle_halts
from metering.api.fast_path import HotResponse, run
from metering.api.fast_reservations import handle_reserve
from metering.limits import halt_watch
from metering.limits.halt_watch import stop_watching
from metering.limits.halts import read_halts
from metering.models import Halt
from tenants import keys, remembered
from tenants.models import ApiKey, AuditEntry
from tests.cases import each_case
from tests.factories import Account
from tests.metering.api.caller import Caller, caller
from tests.metering.requests import request_of

RESEARCHER: JsonObject = {"match": {"agent": "researcher"}, "reason": "it loops"}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def with_scopes(account: Account, *scopes: str) -> str:
    body = {"name": " ".join(scopes), "scopes": list(scopes)}
    return str(caller(account).post("/v1/keys", body).body["key"])


def ask(api_key: str, **headers: str) -> HotResponse:
    """As a client that polls, past Django."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return run(handle_halts(request_of({"Authorization": f"Bearer {api_key}", **named}, b"")))


def halts_in_force(account: Account) -> int:
    with account.scope():
        return Halt.objects.filter(tenant=account.tenant, lifted_at=None).count()


def test_a_halt_is_answered_as_it_was_made_and_listed_until_it_is_lifted(
    account: Account, api: Caller
) -> None:
    before = api.get("/v1/halts")
    assert (before.status, before.body) == (200, {"version": 0, "halts": []})
    made = api.post("/v1/halts", RESEARCHER)
    assert made.status == 201
    assert made.body == {**RESEARCHER, "id": made.body["id"], "kind": "manual"} | {
        "since": made.body["since"],
        "ends_at": None,
    }
    listed = api.get("/v1/halts").body
    assert listed["halts"] == [made.body]
    assert listed["version"] > 0
    assert api.delete(f"/v1/halts/{made.body['id']}").status == 204
    after = api.get("/v1/halts").body
    assert after["halts"] == []
    assert after["version"] > listed["version"]
    assert api.delete(f"/v1/halts/{made.body['id']}").status == 204
    assert api.get("/v1/halts").body == after
    with account.scope():
        actions = AuditEntry.objects.filter(object_type="halt").order_by("id")
        assert [entry.action for entry in actions] == ["create", "update"]
        assert {entry.actor.startswith("API key sg_") for entry in actions} == {True}


def test_clients_that_poll_are_told_when_nothing_has_changed(account: Account, api: Caller) -> None:
    empty = ask(account.api_key)
    assert (empty.status, empty.headers["ETag"]) == (200, '"0-0-0"')
    api.post("/v1/halts", RESEARCHER)
    changed = ask(account.api_key, If_None_Match=empty.headers["ETag"])
    assert changed.status == 200
    assert len(json.loads(changed.body)["halts"]) == 1
    tag = changed.headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        same = ask(account.api_key, If_None_Match=known)
        assert (same.status, same.body, same.headers["ETag"]) == (304, b"", tag)


def test_django_answers_as_the_plain_handler_does(account: Account, api: Caller) -> None:
    api.post("/v1/halts", RESEARCHER)
    plain = ask(account.api_key)
    assert api.get("/v1/halts").body == json.loads(plain.body)
    refused = api.get("/v1/halts", agent="researcher")
    assert (refused.status, refused.code) == (400, "unknown_parameter")


@each_case(
    ("body", "pointer"),
    [
        ({"match": {"agent": "a"}}, "/reason"),
        ({"match": {"agent": "a"}, "reason": " "}, "/reason"),
        ({"match": {"agent": "a"}, "reason": "r" * 1001}, "/reason"),
        ({"match": {"colour": "red"}, "reason": "why"}, "/match/colour"),
        ({"match": {"agent": []}, "reason": "why"}, "/match/agent"),
        ({"match": {"status": "success"}, "reason": "why"}, "/match/status"),
        ({"match": "agent", "reason": "why"}, "/match"),
        ({**RESEARCHER, "kind": "lockout"}, "/kind"),
        ({**RESEARCHER, "colour": "red"}, "/colour"),
    ],
)
def test_a_wrong_halt_is_refused_and_halts_nothing(
    account: Account, api: Caller, body: JsonObject, pointer: str
) -> None:
    refused = api.post("/v1/halts", body)
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert pointer in refused.pointers
    assert halts_in_force(account) == 0


def test_an_agent_may_halt_others_but_not_everything_and_lifts_nothing(account: Account) -> None:
    agent = Caller(with_scopes(account, "enforce"))
    made = agent.post("/v1/halts", RESEARCHER)
    assert made.status == 201
    for match in ({}, {"team": None}, {"operation": ["llm", "tool"]}):
        refused = agent.post("/v1/halts", {"match": match, "reason": "all"})
        assert (refused.status, refused.code) == (403, "forbidden")
    assert agent.post("/v1/halts", {"reason": "all"}).status == 403
    assert agent.delete(f"/v1/halts/{made.body['id']}").status == 403
    assert halts_in_force(account) == 1
    assert agent.get("/v1/halts").status == 200


def test_who_manages_may_halt_the_tenant(account: Account) -> None:
    made = Caller(with_scopes(account, "enforce", "manage")).post("/v1/halts", {"reason": "all"})
    assert (made.status, made.body["match"]) == (201, {})
    assert halts_in_force(account) == 1


@pytest.mark.parametrize(
    ("scopes", "status"),
    [(["read"], 200), (["enforce"], 200), (["ingest"], 403), (["manage"], 403)],
)
def test_halts_are_listed_for_who_reads_and_for_who_asks_before_spending(
    account: Account, scopes: list[str], status: int
) -> None:
    api_key = with_scopes(account, *scopes)
    assert ask(api_key).status == status
    answer = Caller(api_key).get("/v1/halts")
    assert answer.status == status
    if status == 403:
        assert answer.body == json.loads(ask(api_key).body)
        assert "'read' or 'enforce'" in answer.body["detail"]


@pytest.mark.django_db
def test_without_a_key_nothing_is_listed() -> None:
    for headers in ({}, {"Authorization": "Basic x"}, {"Authorization": "Bearer"}):
        answer = run(handle_halts(request_of(headers, b"")))
        assert answer.status == 401
        assert "WWW-Authenticate" in answer.headers


def test_another_tenants_halts_are_neither_listed_nor_lifted(
    account: Account, stranger: Account, api: Caller
) -> None:
    made = api.post("/v1/halts", RESEARCHER).body
    theirs = caller(stranger)
    assert theirs.get("/v1/halts").body == {"version": 0, "halts": []}
    refused = theirs.delete(f"/v1/halts/{made['id']}")
    assert (refused.status, refused.code) == (404, "not_found")
    assert halts_in_force(account) == 1


def test_a_halt_sent_twice_with_one_key_is_one_halt(account: Account, api: Caller) -> None:
    first = api.post("/v1/halts", RESEARCHER, Idempotency_Key="one")
    again = api.post("/v1/halts", RESEARCHER, Idempotency_Key="one")
    assert (again.status, again.body) == (201, first.body)
    assert halts_in_force(account) == 1


@pytest.fixture
def no_database(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The halts and the key were read once; now the database is away, and time has passed."""
    assert caller(account).post("/v1/halts", RESEARCHER).status == 201
    assert ask(account.api_key).status == 200
    stop_watching()

    def is_away(*args: object) -> None:
        raise OperationalError("no server")

    with monkeypatch.context() as patched:
        patched.setattr(remembered, "UNTOLD_SECONDS", -1.0)
        patched.setattr(keys, "platform_scope", is_away)
        patched.setattr(halt_watch, "platform_scope", is_away)
        patched.setattr(fast_halts, "tenant_scope", is_away)
        patched.setattr(halt_watch.log, "warning", lambda *args, **fields: None)
        yield
        stop_watching()


def test_known_halts_are_listed_while_the_database_is_away(
    account: Account, no_database: None
) -> None:
    answer = ask(account.api_key)
    assert answer.status == 200
    assert [halt["match"] for halt in json.loads(answer.body)["halts"]] == [RESEARCHER["match"]]
    assert ask(account.api_key, If_None_Match=answer.headers["ETag"]).status == 304


def test_what_is_not_known_is_not_made_up_while_the_database_is_away(
    account: Account, no_database: None
) -> None:
    halt_watch.forget_halts()
    unknown = ask(account.api_key)
    assert (unknown.status, json.loads(unknown.body)["code"]) == (503, "database_unavailable")
    assert ask(account.api_key + "x").status == 503
    keys.forget_known_keys()
    assert ask(account.api_key).status == 503


def test_nobody_waits_for_a_database_that_does_not_answer(
    account: Account, no_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(*args: object) -> None:
        raise AssertionError("asked the database")

    with monkeypatch.context() as patched:
        patched.setattr(fast_halts, "is_database_silent", lambda: True)
        patched.setattr(keys, "platform_scope", wait)
        patched.setattr(fast_halts, "tenant_scope", wait)
        assert ask(account.api_key).status == 200


def test_a_key_that_was_revoked_or_has_expired_learns_nothing_of_a_halt(
    account: Account, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A known halt is answered from memory; that a key still counts is not."""
    texts = {name: with_scopes(account, "enforce") for name in ("revoked", "expired")}
    assert api.post("/v1/halts", RESEARCHER).status == 201
    with account.scope(), connection.cursor() as cursor:
        read_halts(cursor, account.tenant.id)

    def reserve(text: str) -> int:
        headers = {"Authorization": f"Bearer {text}", "Content-Type": "application/json"}
        body = b'{"agent": "researcher", "amount_usd": "1"}'
        return run(handle_reserve(request_of(headers, body))).status

    assert {reserve(text) for text in texts.values()} == {423}
    monkeypatch.setattr(remembered, "UNTOLD_SECONDS", 0.0)
    with account.scope():
        key = ApiKey.objects.get(prefix=texts["revoked"].split("_")[1])
        keys.revoke_api_key(key=key, actor="tests")
        expired = ApiKey.objects.filter(prefix=texts["expired"].split("_")[1])
        expired.update(expires_at=timezone.now())
    assert {reserve(text) for text in texts.values()} == {401}
    # An expiry is known without the database.
    monkeypatch.setattr(fast_halts, "is_database_silent", lambda: True)
    assert reserve(texts["expired"]) == 401
