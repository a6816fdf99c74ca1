"""Rules of configuration: the domain refuses by field, whoever calls it."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.core.exceptions import ValidationError

from common.json_bodies import JsonObject
from metering.budgets.rules import LevelRule
from metering.configuration.breakers import create_breaker, update_breaker
from metering.configuration.budgets import create_budget, update_budget
from metering.configuration.rate_limits import create_rate_limit, update_rate_limit
from metering.configuration.routes import create_route, update_route
from metering.limits.routes import Tier
from metering.models import Breaker, Budget, ModelRoute, RateLimit
from tenants.models import AuditEntry
from tests.cases import each_case
from tests.factories import NANOS, Account

BUDGET: JsonObject = {
    "name": "Daily",
    "period": "day",
    "limit_cost_nanos": NANOS,
    "levels": [LevelRule(100, "block", ())],
}
BREAKER: JsonObject = {"name": "Runaway", "cost_nanos_per_minute": NANOS}
RATE: JsonObject = {"name": "Keys", "requests_per_minute": 10}
ROUTE: JsonObject = {"name": "Summaries", "tiers": [Tier("openai", "gpt-5", None)]}
BIG = 2**53 + 1
Problems = dict[str, list[str | None]]


def refused(call: Callable[[], object]) -> Problems:
    """The codes of what is refused, by field."""
    with pytest.raises(ValidationError) as error:
        call()
    result = error.value.error_dict
    return {field: [each.code for each in errors] for field, errors in result.items()}


def level(percent: int = 80, action: str = "none", **rates: int) -> JsonObject:
    return {"levels": [LevelRule(percent, action, (), **rates)]}


BUDGETS: list[tuple[JsonObject, Problems]] = [
    ({"limit_cost_nanos": None}, {"limit": ["missing_limit"]}),
    ({"limit_tokens": -1}, {"limit_tokens": ["invalid"]}),
    ({"limit_tokens": BIG}, {"limit_tokens": ["invalid"]}),
    ({"name": ""}, {"name": ["blank"]}),
    ({"mode": "loud"}, {"mode": ["invalid_choice"]}),
    ({"period": "minute"}, {"period": ["invalid_choice"]}),
    ({"timezone": "Mars/Base"}, {"timezone": ["unknown_timezone"]}),
    ({"match": {"shoe_size": "44"}}, {"match.shoe_size": ["invalid"]}),
    ({"match": {"team": []}}, {"match.team": ["invalid"]}),
    ({"match": {"team": ["a"] * 201}}, {"match.team": ["invalid"]}),
    ({"match": {"team": "x" * 201}}, {"match.team": ["invalid"]}),
    ({"match": {"status": "odd"}}, {"match.status": ["invalid"]}),
    ({"per": ["agent", "agent"]}, {"per": ["invalid"]}),
    ({"per": ["shoe_size"]}, {"per": ["invalid"]}),
    ({"rollover_max_percent": 501}, {"rollover_max_percent": ["invalid"]}),
    ({"anchor_at": datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)}, {"anchor_at": ["invalid"]}),
    ({"period": "lifetime", "is_rolling": True}, {"is_rolling": ["invalid"]}),
    ({"per": ["request"], "has_rollover": True}, {"has_rollover": ["invalid"]}),
    (
        {"is_rolling": True, "has_rollover": True, "anchor_at": datetime(2026, 1, 1, tzinfo=UTC)},
        {"anchor_at": ["invalid"], "has_rollover": ["invalid"]},
    ),
    (
        {"has_rollover": True, "limit_cost_nanos": None, "limit_tokens": 1},
        {"has_rollover": ["invalid"]},
    ),
    (level(0), {"levels.0.percent": ["invalid"]}),
    (level(1001), {"levels.0.percent": ["invalid"]}),
    (level(action="shout"), {"levels.0.action": ["invalid_choice"]}),
    (level(tokens_per_minute=5), {"levels.0.tokens_per_minute": ["invalid"]}),
    (
        level(action="throttle", cost_nanos_per_minute=0),
        {"levels.0.cost_nanos_per_minute": ["invalid"]},
    ),
    ({"levels": [LevelRule(80, "none", ("",))]}, {"levels.0.notify": ["invalid"]}),
    ({"levels": [LevelRule(80, "none", ())] * 2}, {"levels": ["invalid"]}),
    ({"levels": [LevelRule(n, "none", ()) for n in range(1, 22)]}, {"levels": ["invalid"]}),
]


@each_case(("changes", "problems"), BUDGETS)
def test_a_budget_that_contradicts_itself_is_not_made(
    account: Account, changes: JsonObject, problems: Problems
) -> None:
    with account.scope():
        result = refused(
            lambda: create_budget(tenant=account.tenant, actor="t", **{**BUDGET, **changes})
        )
        assert result == problems
        assert not Budget.objects.exists()


@each_case(
    ("make", "fields", "problems"),
    [
        (create_breaker, {**BREAKER, "cost_nanos_per_minute": 0}, ["cost_nanos_per_minute"]),
        (create_breaker, {"name": "x"}, ["cost_nanos_per_minute"]),
        (create_breaker, {**BREAKER, "match": {"status": "error"}}, ["match.status"]),
        (create_breaker, {**BREAKER, "per": ["a", "b", "c", "d"]}, ["per"]),
        (create_breaker, {**BREAKER, "tokens_times": 1}, ["tokens_times"]),
        (create_breaker, {**BREAKER, "limit_percent": 100}, ["limit_percent"]),
        (create_breaker, {**BREAKER, "close": "luck"}, ["close"]),
        (create_breaker, {**BREAKER, "cool_down_seconds": 0}, ["cool_down_seconds"]),
        (create_rate_limit, {"name": "x"}, ["limit"]),
        (create_rate_limit, {**RATE, "tokens_per_minute": 0}, ["tokens_per_minute"]),
        (create_rate_limit, {**RATE, "per": ["request"]}, ["per"]),
        (create_rate_limit, {**RATE, "match": {"status": None}}, ["match.status"]),
        (create_route, {**ROUTE, "name": ""}, ["name"]),
        (create_route, {**ROUTE, "tiers": []}, ["tiers"]),
        (create_route, {**ROUTE, "tiers": [Tier("", "m", None)]}, ["tiers"]),
    ],
)
def test_a_limit_that_means_nothing_is_not_made(
    account: Account, make: Callable[..., object], fields: JsonObject, problems: list[str]
) -> None:
    with account.scope():
        result = refused(lambda: make(tenant=account.tenant, actor="t", **fields))
        assert list(result) == problems
        assert not any(model.objects.exists() for model in (Breaker, RateLimit, ModelRoute))


def test_a_change_that_is_refused_changes_nothing(account: Account) -> None:
    made: JsonObject = {"tenant": account.tenant, "actor": "t"}
    with account.scope():
        budget = create_budget(**made, **BUDGET)
        breaker = create_breaker(**made, **BREAKER)
        limit = create_rate_limit(**made, **RATE)
        route = create_route(**made, **ROUTE)
        logged = AuditEntry.objects.count()
    calls: list[Callable[[], object]] = [
        lambda: update_budget(budget=budget, actor="t", changes={"limit_cost_nanos": None}),
        lambda: update_budget(budget=budget, actor="t", changes={}, levels=level(0)["levels"]),
        lambda: update_breaker(breaker=breaker, actor="t", changes={"error_percent": 101}),
        lambda: update_rate_limit(limit=limit, actor="t", changes={"mode": "loud"}),
        lambda: update_route(route=route, actor="t", changes={"tiers": []}),
    ]
    for call in calls:
        with account.scope():
            refused(call)
    with account.scope():
        for row in (budget, breaker, limit, route):
            stored = type(row).objects.get()
            values = [field.attname for field in row._meta.concrete_fields]
            assert [getattr(stored, name) for name in values] == [
                getattr(row, name) for name in values
            ]
        assert AuditEntry.objects.count() == logged
