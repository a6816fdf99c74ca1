"""The same key and body: the same answer and one thing made, at any concurrency."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.models import Budget
from tenants import retention
from tenants.api import idempotency
from tenants.keys import find_key_holder
from tenants.models import ApiKey, IdempotencyRecord, Team
from tests.factories import Account
from tests.metering.api.caller import Answer, Caller, caller

KEY = {"Idempotency_Key": "retry-1"}
MONTHLY: JsonObject = {"name": "All", "period": "month", "limit": {"cost_usd": "5"}}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def test_a_retry_gets_the_first_answer(account: Account, api: Caller) -> None:
    first = api.post("/v1/budgets", MONTHLY, **KEY)
    again = api.post("/v1/budgets", dict(reversed(MONTHLY.items())), **KEY)
    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body
    with account.scope():
        assert Budget.objects.count() == 1


def test_another_body_or_address_is_a_conflict(account: Account, api: Caller) -> None:
    api.post("/v1/budgets", MONTHLY, **KEY)
    for path, body in (
        ("/v1/budgets", {**MONTHLY, "name": "Other"}),
        ("/v1/teams", {"name": "growth"}),
    ):
        refused = api.post(path, body, **KEY)
        assert (refused.status, refused.code) == (409, "idempotency_conflict")
    with account.scope():
        assert (Budget.objects.count(), Team.objects.count()) == (1, 0)


def test_a_refusal_leaves_the_key_free(api: Caller) -> None:
    assert api.post("/v1/budgets", {**MONTHLY, "limit": {}}, **KEY).status == 400
    assert api.post("/v1/budgets", MONTHLY, **KEY).status == 201


def test_without_a_key_every_post_makes_one(account: Account, api: Caller) -> None:
    assert api.post("/v1/budgets", MONTHLY).status == 201
    assert api.post("/v1/budgets", MONTHLY).status == 201
    with account.scope():
        assert Budget.objects.count() == 2


def test_two_tenants_may_use_the_same_key(account: Account, stranger: Account) -> None:
    first = caller(account).post("/v1/teams", {"name": "growth"}, **KEY)
    other = caller(stranger).post("/v1/teams", {"name": "growth"}, **KEY)
    assert (first.status, other.status) == (201, 201)
    assert first.body["id"] != other.body["id"]


def test_a_new_api_keys_text_is_answered_again_but_not_stored_readably(
    account: Account, api: Caller
) -> None:
    body = {"name": "CI", "scopes": ["read"]}
    first = api.post("/v1/keys", body, **KEY)
    again = api.post("/v1/keys", body, **KEY)
    assert again.body == first.body
    secret = first.body["key"].split("_", 2)[2]
    assert find_key_holder(first.body["key"]) is not None
    with account.scope():
        record = IdempotencyRecord.objects.get()
        assert secret not in record.body
        assert ApiKey.objects.filter(name="CI").count() == 1


@pytest.mark.parametrize("key", ["", "k" * 201, "caf\u00e9"])
def test_a_key_that_is_no_key_is_refused(api: Caller, key: str) -> None:
    refused = api.post("/v1/teams", {"name": "growth"}, Idempotency_Key=key)
    assert (refused.status, refused.code) == (400, "invalid_idempotency_key")


def test_many_at_once_with_one_key_make_one(account: Account) -> None:
    start = threading.Barrier(6)

    def post() -> Answer:
        try:
            start.wait()
            return caller(account).post("/v1/budgets", MONTHLY, **KEY)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=6) as executor:
        answers = [each.result() for each in [executor.submit(post) for _ in range(6)]]
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["id"] for answer in answers}) == 1
    with account.scope():
        assert Budget.objects.count() == 1


def test_a_first_request_that_takes_too_long_is_a_conflict_to_be_tried_again(
    account: Account, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 1)
    is_claimed, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with account.scope():
                IdempotencyRecord.objects.create(
                    tenant=account.tenant, key="retry-1", request_hash=b""
                )
                is_claimed.set()
                may_end.wait(timeout=10)
                raise InterruptedError
        except InterruptedError:
            pass
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    is_claimed.wait(timeout=10)
    refused = api.post("/v1/teams", {"name": "growth"}, **KEY)
    may_end.set()
    thread.join()
    assert (refused.status, refused.code) == (409, "request_in_progress")
    assert api.post("/v1/teams", {"name": "growth"}, **KEY).status == 201


def test_keys_of_long_ago_are_forgotten(account: Account, api: Caller) -> None:
    api.post("/v1/teams", {"name": "growth"}, **KEY)
    assert retention.remove_old_rows(seconds=10) == 0
    with account.scope():
        IdempotencyRecord.objects.update(created_at=timezone.now() - timedelta(days=8))
    assert retention.remove_old_rows(seconds=10) == 1


def test_an_answer_that_can_no_longer_be_read_is_not_made_again(
    account: Account, api: Caller
) -> None:
    api.post("/v1/teams", {"name": "growth"}, **KEY)
    with account.scope():
        IdempotencyRecord.objects.update(body="written with another SECRET_KEY")
    refused = api.post("/v1/teams", {"name": "growth"}, **KEY)
    assert (refused.status, refused.code) == (409, "conflict")
