"""A tenant configures as much as it may, and no more, however many ask at once."""

import threading
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from common.errors import LimitReached
from common.json_bodies import JsonObject
from metering.models import Budget
from tenants.invitations import invite
from tenants.keys import create_api_key
from tenants.limits import LIMITS, set_limit
from tenants.roles import Role
from tests.dashboard.conftest import sign_in
from tests.factories import Account, make_account, make_budget
from tests.metering.api.caller import Caller

pytestmark = pytest.mark.django_db(transaction=True)


def limit(account: Account, name: str, value: int) -> None:
    call_command("set_limit", account.tenant.name, name, str(value), verbosity=0)


def test_everything_that_is_limited_is_refused_with_one_code(account: Account) -> None:
    api = Caller(account.api_key)
    budget = make_budget(account)
    bodies: dict[str, tuple[str, JsonObject]] = {
        "budgets": ("/v1/budgets", {"name": "b", "period": "day", "limit": {"cost_usd": "1"}}),
        "halts": ("/v1/halts", {"match": {"agent": "x"}, "reason": "r"}),
        "breakers": ("/v1/breakers", {"name": "b", "error_percent": 20}),
        "rate_limits": ("/v1/rate-limits", {"name": "r", "limit": {"tokens_per_minute": 5}}),
        "raises": (
            f"/v1/budgets/{budget.id}/raises",
            {"by": {"cost_usd": "1"}, "reason": "r", "duration_seconds": 60},
        ),
        "channels": (
            "/v1/channels",
            {"name": "c", "kind": "webhook", "config": {"url": "https://hooks.example.com/in"}},
        ),
        "prices": (
            "/v1/prices",
            {"model": "m", "rates": {"input_per_mtok_usd": "2", "output_per_mtok_usd": "1"}},
        ),
        "keys": ("/v1/keys", {"name": "k", "scopes": ["read"]}),
        "teams": ("/v1/teams", {"name": "t"}),
    }
    for name, (path, body) in bodies.items():
        limit(account, name, 0)
        refused = api.post(path, body)
        assert (refused.status, refused.code) == (409, "limit_reached"), (name, refused.body)
        assert (refused.body["limit"], refused.body["allowed"]) == (name, 0)
    assert api.post("/v1/halts", {"match": {}, "reason": "stop everything"}).status == 201
    limit(account, "members", 2)
    with account.scope():
        for email, error in (("a@b.example", None), ("b@b.example", LimitReached)):
            with pytest.raises(error) if error else nullcontext():
                invite(
                    tenant=account.tenant,
                    email=email,
                    role=Role.VIEWER,
                    actor="tests",
                    actor_role=Role.OWNER,
                )


def test_two_at_once_do_not_pass_a_limit_together(account: Account) -> None:
    limit(account, "keys", 3)
    refused: list[LimitReached] = []

    def create() -> None:
        try:
            with account.scope():
                create_api_key(tenant=account.tenant, name="k", actor="tests")
        except LimitReached as error:
            refused.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The account has one already.
    assert len(refused) == 6


def test_what_was_removed_makes_room_and_other_tenants_have_their_own(account: Account) -> None:
    limit(account, "budgets", 1)
    api = Caller(account.api_key)
    budget = make_budget(account)
    with pytest.raises(LimitReached, match="limit of 1 budgets"):
        make_budget(account)
    make_budget(make_account())
    assert api.delete(f"/v1/budgets/{budget.id}").status == 204
    make_budget(account)
    with account.scope():
        assert Budget.objects.filter(archived_at=None).count() == 1


def test_the_form_says_that_the_limit_is_reached(account: Account) -> None:
    limit(account, "routes", 0)
    page = sign_in(account.email).post(
        "/admin/metering/modelroute/add/",
        {"name": "n", "tiers": "openai, gpt-5", "form_token": "t"},
        follow=True,
    )
    assert "You have reached the limit of 0 routes." in page.content.decode()


@pytest.mark.parametrize("value", ["-1", "many", "1000000"])
def test_a_limit_is_a_number_within_reason(account: Account, value: str) -> None:
    with pytest.raises(CommandError):
        call_command("set_limit", account.tenant.name, "budgets", value, verbosity=0)


def test_the_default_comes_back(account: Account) -> None:
    limit(account, "budgets", 7)
    with account.scope():
        number = set_limit(tenant=account.tenant, name="budgets", value=None, actor="tests")
    assert number == LIMITS["budgets"]


def test_a_key_that_expires_makes_none_that_lasts_longer(account: Account) -> None:
    ends_at = datetime.now(UTC) + timedelta(days=1)
    with account.scope():
        _, text = create_api_key(
            tenant=account.tenant, name="short", actor="tests", expires_at=ends_at
        )
    api = Caller(text)
    key = {"name": "k", "scopes": ["manage"]}
    for later in (None, (ends_at + timedelta(seconds=1)).isoformat()):
        assert api.post("/v1/keys", {**key, "expires_at": later}).status == 403
    assert api.post("/v1/keys", key).status == 403
    sooner = (ends_at - timedelta(hours=1)).isoformat()
    assert api.post("/v1/keys", {**key, "expires_at": sooner}).status == 201
