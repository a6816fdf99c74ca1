"""API keys: shown once, stored as a hash, with scopes, an end, and a revocation."""

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tenants.keys import create_api_key, find_key_holder, revoke_api_key
from tenants.models import ApiKey, AuditEntry
from tenants.remembered import UNTOLD_SECONDS
from tests.cases import each_case
from tests.factories import Account
from tests.metering.api.caller import Caller, caller

EVENTS = [{"id": "one", "input_tokens": 1, "model": "m"}]


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def make_key(account: Account, **fields: Any) -> tuple[ApiKey, str]:
    with account.scope():
        return create_api_key(tenant=account.tenant, name="key", actor="tests", **fields)


def test_a_keys_text_is_in_the_answer_that_makes_it_and_nowhere_else(
    account: Account, api: Caller
) -> None:
    made = api.post("/v1/keys", {"name": "CI", "scopes": ["read", "ingest"]})
    assert made.status == 201
    text = made.body.pop("key")
    assert text.startswith(made.body["prefix"])
    assert made.body["scopes"] == ["ingest", "read"]
    listed = api.get("/v1/keys").body["data"]
    assert made.body in listed
    assert text not in str(listed)
    secret = text.split("_", 2)[2]
    with account.scope():
        stored = ApiKey.objects.get(id=made.body["id"])
        assert secret.encode() not in bytes(stored.secret_hash)
        log = str(list(AuditEntry.objects.values_list("changes", flat=True)))
    assert secret not in log
    assert bytes(stored.secret_hash).hex() not in log


def test_a_key_may_do_what_its_scopes_say(account: Account, api: Caller) -> None:
    answers = {}
    for scope in ("ingest", "read", "manage", "enforce"):
        key = api.post("/v1/keys", {"name": scope, "scopes": [scope]}).body["key"]
        holder = Caller(key)
        answers[scope] = (
            holder.post("/v1/events", EVENTS).status,
            holder.get("/v1/budgets").status,
            holder.post("/v1/teams", {"name": scope}).status,
        )
    assert answers == {
        "ingest": (200, 403, 403),
        "read": (403, 200, 403),
        "manage": (403, 403, 201),
        "enforce": (403, 403, 403),
    }


def test_a_key_hands_on_no_more_than_it_has(account: Account) -> None:
    _, text = make_key(account, scopes=["manage"])
    refused = Caller(text).post("/v1/keys", {"name": "more", "scopes": ["manage", "read"]})
    assert (refused.status, refused.code) == (403, "forbidden")
    assert Caller(text).post("/v1/keys", {"name": "same", "scopes": ["manage"]}).status == 201


@each_case(
    "body",
    [
        {"name": "CI"},
        {"name": "CI", "scopes": []},
        {"name": "CI", "scopes": ["root"]},
        {"name": "CI", "scopes": "read"},
        {"name": "", "scopes": ["read"]},
        {"name": "CI", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "CI", "scopes": ["read"], "expires_at": "soon"},
        {"name": "CI", "scopes": ["read"], "key": "sg_mine_mine"},
    ],
)
def test_a_wrong_key_is_refused(account: Account, api: Caller, body: dict[str, object]) -> None:
    assert api.post("/v1/keys", body).status == 400
    with account.scope():
        assert ApiKey.objects.count() == 1


def test_a_revoked_key_is_refused_within_a_second(
    account: Account, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = api.post("/v1/keys", {"name": "CI", "scopes": ["read"]}).body
    other = Caller(made["key"])
    assert other.get("/v1/budgets").status == 200
    assert api.delete(f"/v1/keys/{made['id']}").status == 204
    now = time.monotonic()
    monkeypatch.setattr("tenants.remembered.time.monotonic", lambda: now + UNTOLD_SECONDS + 0.01)
    assert (other.get("/v1/budgets").code) == "unauthenticated"
    assert api.delete(f"/v1/keys/{made['id']}").status == 204
    listed = {row["id"]: row for row in api.get("/v1/keys").body["data"]}
    assert listed[made["id"]]["revoked_at"] is not None


def test_a_key_ends_when_it_expires(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    later = timezone.now() + timedelta(hours=1)
    _, text = make_key(account, expires_at=later)
    assert find_key_holder(text) is not None
    monkeypatch.setattr("tenants.keys.timezone.now", lambda: later)
    assert find_key_holder(text) is None


@each_case(
    "text",
    [
        "",
        "sg",
        "sg_",
        "sg__",
        "sg_unknown_secret",
        "xx_{prefix}_{secret}",
        "sg_{prefix}_wrong",
        "sg_{prefix}_",
        "sg_{prefix}_{secret}x",
        "sg_{prefix}_\u00e9",
        "sg_" + "x" * 300,
        "{prefix}_{secret}",
    ],
)
def test_what_is_no_key_stands_for_nobody(account: Account, text: str) -> None:
    _, prefix, secret = account.api_key.split("_", 2)
    assert find_key_holder(text.format(prefix=prefix, secret=secret)) is None
    assert find_key_holder(account.api_key) is not None


def test_a_refusal_for_lack_of_a_key_says_which_is_wanted(account: Account) -> None:
    for key in (None, "sg_wrong_key", "\u00e9"):
        answer = Caller(key).get("/v1/budgets")
        assert (answer.status, answer.code) == (401, "unauthenticated")
        answer = Caller(key).post("/v1/events", EVENTS)
        assert (answer.status, answer.code) == (401, "unauthenticated")


def test_the_last_use_is_noted(account: Account, api: Caller) -> None:
    with account.scope():
        assert ApiKey.objects.get().last_used_at is None
    api.get("/v1/budgets")
    with account.scope():
        assert ApiKey.objects.get().last_used_at is not None


def test_revoking_twice_writes_one_entry(account: Account) -> None:
    key, _ = make_key(account)
    with account.scope():
        revoke_api_key(key=key, actor="tests")
        revoke_api_key(key=key, actor="tests")
        entries = AuditEntry.objects.filter(object_type="apikey", object_id=str(key.id))
        assert [entry.action for entry in entries.order_by("id")] == ["create", "update"]
