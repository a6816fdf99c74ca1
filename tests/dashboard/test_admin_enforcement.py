"""The admin of what enforces: levels that throttle, session limits and routes."""

import uuid

from django.test import Client

from common.json_bodies import JsonObject
from metering.budgets.reading import read_budget_index
from metering.configuration.routes import create_route
from metering.limits.routes import Tier, read_routes
from metering.models import Budget, ModelRoute
from tenants.models import AuditEntry
from tests.cases import each_case
from tests.dashboard.test_admin import budget_form, changed, errors_of, levels, saved_form
from tests.factories import Account

ROUTES = "/admin/metering/modelroute"


def route_form(**changes: object) -> JsonObject:
    return {
        "form_token": uuid.uuid4().hex,
        "name": "Summaries",
        "task_type": "summary",
        "tiers": "openai, gpt-5-nano, 4\nanthropic, claude-sonnet-4-5",
        **changes,
    }


def test_a_new_budget_starts_with_a_level_that_blocks(account: Account, owner: Client) -> None:
    path = "/admin/metering/budget/add/"
    shown = saved_form(owner, path)
    assert (shown["levels-0-percent"], shown["levels-0-action"]) == ("100", "block")
    assert shown["levels-1-percent"] == ""
    form = {**shown, "name": "As it was shown", "limit_cost_nanos": "5", "per": []}
    assert owner.post(path, form).status_code == 302
    assert owner.post(path, budget_form(name="Without levels")).status_code == 302
    with account.scope():
        for budget in Budget.objects.all():
            assert [(level.percent, level.action) for level in budget.levels.all()] == [
                (100, "block")
            ]
        assert Budget.objects.count() == 2


def test_session_limits_are_two_clicks_away(account: Account, owner: Client) -> None:
    assert b"Add session limits" in owner.get("/admin/metering/budget/").content
    opened = owner.get("/admin/metering/budget/add_session_limits/")
    path = opened["Location"]
    assert b"Calls without a session share one of these limits" in owner.get(path).content
    assert owner.post(path, saved_form(owner, path)).status_code == 302
    with account.scope():
        budget = Budget.objects.get()
        assert (budget.name, budget.per, budget.period) == (
            "Session limits",
            ["session"],
            "lifetime",
        )
        assert (budget.limit_cost_nanos, budget.limit_tokens) == (500_000_000, 20_000)
        assert (budget.limit_tool_calls, budget.limit_seconds) == (15, 120)
        result = [(level.percent, level.action, level.notify) for level in budget.levels.all()]
    assert result == [(80, "none", ["engineering"]), (100, "block", ["engineering"])]


def test_a_level_that_throttles_has_rates_and_others_have_none(
    account: Account, owner: Client
) -> None:
    path = "/admin/metering/budget/add/"
    rates = {"levels-0-cost_nanos_per_minute": "0.25", "levels-0-tokens_per_minute": "30000"}
    for row, words in (
        ({**levels((80, "block", "")), **rates}, "Only the action “throttle” has a rate."),
        (
            {**levels((80, "throttle", "")), "levels-0-cost_nanos_per_minute": "0"},
            "Give more than 0.",
        ),
    ):
        assert words in errors_of(owner.post(path, budget_form(**row)))
    form = budget_form(**levels((80, "throttle", ""), (100, "hold", "finance")), **rates)
    assert owner.post(path, form).status_code == 302
    with account.scope():
        budget = Budget.objects.get()
        first, second = read_budget_index(account.tenant.id).rules[budget.id].levels
    assert (first.cost_nanos_per_minute, first.tokens_per_minute) == (250_000_000, 30_000)
    assert (second.action, second.cost_nanos_per_minute) == ("hold", None)
    listed = owner.get("/admin/metering/budget/").content.decode()
    assert "80% throttle to $0.25 and 30,000 tokens a minute, 100% hold" in listed
    change = f"/admin/metering/budget/{budget.id}/change/"
    before = changed(account)
    assert owner.post(change, saved_form(owner, change)).status_code == 302
    assert changed(account) == before


def test_a_route_is_made_changed_and_removed(account: Account, owner: Client) -> None:
    assert owner.post(f"{ROUTES}/add/", route_form()).status_code == 302
    with account.scope():
        row = ModelRoute.objects.get()
        result = read_routes(account.tenant.id).choose("summary")
    assert result is not None
    assert result.tiers == (
        Tier("openai", "gpt-5-nano", 4),
        Tier("anthropic", "claude-sonnet-4-5", None),
    )
    assert "gpt-5-nano → claude-sonnet-4-5" in owner.get(f"{ROUTES}/").content.decode()
    again = owner.post(f"{ROUTES}/add/", route_form(), follow=True)
    assert b"There is a route for the task type" in again.content
    path = f"{ROUTES}/{row.id}"
    before = changed(account)
    shown = saved_form(owner, f"{path}/change/")
    assert owner.post(f"{path}/change/", shown).status_code == 302
    assert changed(account) == before
    assert owner.post(f"{path}/change/", {**shown, "task_type": ""}).status_code == 302
    with account.scope():
        assert ModelRoute.objects.get().task_type == ""
    assert owner.post(f"{path}/delete/", {"post": "yes"}).status_code == 302
    with account.scope():
        assert not ModelRoute.objects.exists()
    assert [each[1:] for each in changed(account)[-2:]] == [
        ("update", "modelroute"),
        ("delete", "modelroute"),
    ]


@each_case(
    ("tiers", "words"),
    [
        ("", "This field is required"),
        ("claude-sonnet-4-5", "is not: provider, model, complexity"),
        ("a, b, c, d", "is not: provider, model, complexity"),
        ("openai, gpt-5-nano, 4", "the best one takes everything"),
        ("openai, gpt-5-nano, 11\nanthropic, claude-sonnet-4-5", "from 0 to 10"),
        (f"openai, m, {'9' * 5000}\nanthropic, claude-sonnet-4-5", "is not: provider"),
    ],
)
def test_what_is_no_route_is_refused_in_words(
    account: Account, owner: Client, tiers: str, words: str
) -> None:
    assert words in errors_of(owner.post(f"{ROUTES}/add/", route_form(tiers=tiers)))
    with account.scope():
        assert not ModelRoute.objects.exists()


def test_a_strangers_routes_are_not_there(
    account: Account, stranger: Account, owner: Client
) -> None:
    with stranger.scope():
        route = create_route(
            tenant=stranger.tenant, actor="t", name="secret-route", tiers=[Tier("p", "m", None)]
        )
        entries = AuditEntry.objects.count()
    assert b"secret-route" not in owner.get(f"{ROUTES}/").content
    for path in (f"{ROUTES}/{route.id}/change/", f"{ROUTES}/{route.id}/delete/"):
        assert owner.post(path, {"post": "yes", **route_form()}).status_code in {302, 403, 404}
    with stranger.scope():
        assert ModelRoute.objects.get().name == "secret-route"
        assert AuditEntry.objects.count() == entries
