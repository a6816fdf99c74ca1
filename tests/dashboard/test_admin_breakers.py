"""The admin of breakers and rate limits: made, changed, closed, by who may."""

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.configuration.breakers import create_breaker
from metering.configuration.rate_limits import create_rate_limit
from metering.limits.rate_limits import read_rate_rules
from metering.models import Breaker, Halt, RateLimit
from tenants.roles import Role
from tests.cases import each_case
from tests.dashboard.test_admin import changed, errors_of, saved_form
from tests.factories import NANOS, Account, make_event, send

BREAKERS = "/admin/metering/breaker"
RATES = "/admin/metering/ratelimit"
MAY = {Role.OWNER, Role.ADMIN, Role.FINANCE}


def breaker_form(**changes: object) -> JsonObject:
    return {
        "form_token": uuid.uuid4().hex,
        "name": "Research",
        "mode": "enforce",
        "match_0": "team",
        "match_1": "growth",
        "per": ["agent", "feature"],
        "cost_nanos_per_minute": "10",
        "error_percent": "50",
        "error_min_calls": "10",
        "tokens_times": "",
        "usual_min_calls": "20",
        "limit_percent": "",
        "close": "trial",
        "cool_down_seconds": "300",
        **changes,
    }


def rate_form(**changes: object) -> JsonObject:
    return {
        "form_token": uuid.uuid4().hex,
        "name": "Keys",
        "mode": "enforce",
        "match_0": "",
        "per": ["key"],
        "cost_nanos_per_minute": "2.50",
        "tokens_per_minute": "",
        "requests_per_minute": "60",
        **changes,
    }


def make_breaker(account: Account, **fields: object) -> Breaker:
    fields = {"name": "Research", "cost_nanos_per_minute": 10 * NANOS, **fields}
    with account.scope():
        return create_breaker(tenant=account.tenant, actor="tests", **fields)


def open_for(account: Account, *agents: str) -> None:
    now = (timezone.now() - timedelta(seconds=1)).isoformat()
    send(account, [make_event(agent=agent, cost_usd="11", time=now) for agent in agents])
    with account.scope():
        assert Halt.objects.filter(lifted_at=None).count() == len(agents)


def test_a_breaker_is_made_changed_and_removed(account: Account, owner: Client) -> None:
    shown = saved_form(owner, f"{BREAKERS}/add/")
    assert (shown["mode"], shown["close"], shown["cool_down_seconds"]) == (
        "enforce",
        "hand",
        "300",
    )
    assert shown["per"] == ["agent", "feature"]
    assert owner.post(f"{BREAKERS}/add/", breaker_form()).status_code == 302
    with account.scope():
        breaker = Breaker.objects.get()
    assert (breaker.match, breaker.per) == ({"team": "growth"}, ["agent", "feature"])
    assert (breaker.cost_nanos_per_minute, breaker.error_percent) == (10 * NANOS, 50)
    assert (breaker.tokens_times, breaker.close) == (None, "trial")
    listed = owner.get(f"{BREAKERS}/").content.decode()
    assert "more than $10.00 within a minute, 50% failed calls" in listed
    assert "stops calls until a probe succeeds" in listed
    path = f"{BREAKERS}/{breaker.id}"
    before = changed(account)
    shown = saved_form(owner, f"{path}/change/")
    assert owner.post(f"{path}/change/", shown).status_code == 302
    assert changed(account) == before
    assert owner.post(f"{path}/change/", {**shown, "limit_percent": "40"}).status_code == 302
    with account.scope():
        assert Breaker.objects.get().limit_percent == 40
    assert owner.post(f"{path}/delete/", {"post": "yes"}).status_code == 302
    assert [each[1:] for each in changed(account)[-2:]] == [
        ("update", "breaker"),
        ("delete", "breaker"),
    ]


@each_case(
    ("changes", "words"),
    [
        ({"name": ""}, "This field is required"),
        (
            {"cost_nanos_per_minute": "", "error_percent": ""},
            "Give what opens it: a cost per minute",
        ),
        ({"cost_nanos_per_minute": "0"}, "Give more than 0"),
        ({"error_percent": "101"}, "less than or equal to 100"),
        ({"tokens_times": "1"}, "greater than or equal to 2"),
        ({"limit_percent": "100"}, "less than or equal to 99"),
        ({"cool_down_seconds": ""}, "This field is required"),
        ({"per": ["agent", "user", "team", "feature"]}, "Choose at most 3."),
        ({"match_0": "status", "match_1": "error"}, "not known before it has run"),
    ],
)
def test_what_is_no_breaker_is_refused_in_words(
    account: Account, owner: Client, changes: JsonObject, words: str
) -> None:
    assert words in errors_of(owner.post(f"{BREAKERS}/add/", breaker_form(**changes)))
    with account.scope():
        assert not Breaker.objects.exists()


@pytest.mark.parametrize("role", list(Role))
def test_who_may_change_budgets_may_change_breakers(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    breaker = make_breaker(account)
    open_for(account, "a")
    with account.scope():
        limit = create_rate_limit(
            tenant=account.tenant, actor="tests", name="Keys", requests_per_minute=5
        )
    client = as_role(role)
    for path in (BREAKERS, RATES):
        assert client.get(f"{path}/").status_code == 200
    assert client.get(f"{BREAKERS}/{breaker.id}/change/").status_code == 200
    assert client.get(f"{RATES}/{limit.id}/change/").status_code == 200
    before = changed(account)
    statuses = [
        client.get(f"{BREAKERS}/add/").status_code,
        client.post(f"{BREAKERS}/{breaker.id}/change/", breaker_form(name="x")).status_code,
        client.post(f"{BREAKERS}/{breaker.id}/delete/", {"post": "yes"}).status_code,
        client.post(f"{RATES}/add/", rate_form()).status_code,
        client.post(f"{RATES}/{limit.id}/change/", rate_form(name="x")).status_code,
        client.post(f"{RATES}/{limit.id}/delete/", {"post": "yes"}).status_code,
    ]
    if role in MAY:
        assert statuses == [200, 302, 302, 302, 302, 302]
    else:
        assert statuses == [403] * 6
        assert changed(account) == before


def test_a_rate_limit_is_made_changed_and_removed(account: Account, owner: Client) -> None:
    assert owner.post(f"{RATES}/add/", rate_form()).status_code == 302
    with account.scope():
        limit = RateLimit.objects.get()
        (rule,) = read_rate_rules(account.tenant.id)
    assert (rule.cost_nanos_per_minute, rule.tokens_per_minute, rule.requests_per_minute) == (
        2_500_000_000,
        None,
        60,
    )
    assert (limit.per, limit.match) == (["key"], {})
    assert "$2.50, 60 requests" in owner.get(f"{RATES}/").content.decode()
    path = f"{RATES}/{limit.id}"
    before = changed(account)
    shown = saved_form(owner, f"{path}/change/")
    assert owner.post(f"{path}/change/", shown).status_code == 302
    assert changed(account) == before
    assert owner.post(f"{path}/change/", {**shown, "tokens_per_minute": "9"}).status_code == 302
    assert owner.post(f"{path}/delete/", {"post": "yes"}).status_code == 302
    assert [each[1:] for each in changed(account)[-3:]] == [
        ("create", "ratelimit"),
        ("update", "ratelimit"),
        ("delete", "ratelimit"),
    ]


@each_case(
    ("changes", "words"),
    [
        (
            {"cost_nanos_per_minute": "", "requests_per_minute": ""},
            "Give at least one rate: cost, tokens or requests.",
        ),
        ({"cost_nanos_per_minute": "0"}, "Give more than 0"),
        ({"requests_per_minute": "0"}, "greater than or equal to 1"),
        ({"tokens_per_minute": str(2**53 + 1)}, "less than or equal to"),
        ({"per": ["status"]}, "Select a valid choice"),
    ],
)
def test_what_is_no_rate_limit_is_refused_in_words(
    account: Account, owner: Client, changes: JsonObject, words: str
) -> None:
    assert words in errors_of(owner.post(f"{RATES}/add/", rate_form(**changes)))
    with account.scope():
        assert not RateLimit.objects.exists()


def test_a_strangers_breakers_and_rate_limits_are_not_there(
    account: Account, stranger: Account, owner: Client
) -> None:
    breaker = make_breaker(stranger, name="secret-breaker")
    open_for(stranger, "theirs")
    with stranger.scope():
        limit = create_rate_limit(
            tenant=stranger.tenant, actor="t", name="secret-limit", requests_per_minute=5
        )
    before = changed(stranger)
    assert b"secret" not in owner.get(f"{BREAKERS}/").content
    assert b"secret" not in owner.get(f"{RATES}/").content
    for path in (
        f"{BREAKERS}/{breaker.id}/change/",
        f"{BREAKERS}/{breaker.id}/delete/",
        f"{RATES}/{limit.id}/change/",
        f"{RATES}/{limit.id}/delete/",
    ):
        answer = owner.post(path, {"post": "yes", "group": "", **breaker_form()})
        assert answer.status_code in {302, 403, 404}, path
    assert changed(stranger) == before
    with stranger.scope():
        assert Halt.objects.get().lifted_at is None
