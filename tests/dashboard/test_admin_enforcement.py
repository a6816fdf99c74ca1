"""The admin of what enforces: levels that throttle, session limits, raises and routes."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from metering.budgets.reading import read_book
from metering.limits.limit_increases import Added, RaiseAsk, ask_for_raise
from metering.limits.routes import Tier, create_route, read_routes
from metering.models import Budget, BudgetRaise, ModelRoute
from tenants.models import AuditEntry
from tenants.roles import Role
from tests.dashboard.test_admin import budget_form, changed, errors_of, levels, saved_form
from tests.factories import NANOS, Account, make_budget

RAISES = "/admin/metering/budgetraise"
ROUTES = "/admin/metering/modelroute"
MAY = {Role.OWNER, Role.ADMIN, Role.FINANCE}


def make_raise(account: Account, budget: Budget, *, reason: str = "A large import") -> BudgetRaise:
    ask = RaiseAsk(
        add=Added(cost_nanos=5 * NANOS),
        reason=reason,
        ends_at=timezone.now() + timedelta(hours=1),
    )
    with account.scope():
        return ask_for_raise(budget=budget, actor="an agent", ask=ask)


def status_of(account: Account, row: BudgetRaise) -> str:
    with account.scope():
        return BudgetRaise.objects.get(id=row.id).status


def raise_form(budget: Budget, **changes: Any) -> dict[str, Any]:
    ends_at = timezone.now() + timedelta(hours=1)
    return {
        "form_token": uuid.uuid4().hex,
        "budget": budget.id,
        "group": "",
        "add_cost_nanos": "12.50",
        "add_tokens": "",
        "add_requests": "",
        "add_tool_calls": "",
        "add_seconds": "",
        "ends_at_0": f"{ends_at:%Y-%m-%d}",
        "ends_at_1": f"{ends_at:%H:%M:%S}",
        "reason": "Launch day",
        **changes,
    }


def route_form(**changes: Any) -> dict[str, Any]:
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
            assert [(one.percent, one.action) for one in budget.levels.all()] == [(100, "block")]
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
        found = [(one.percent, one.action, one.notify) for one in budget.levels.all()]
    assert found == [(80, "none", ["engineering"]), (100, "block", ["engineering"])]


def test_a_level_that_throttles_has_rates_and_others_have_none(
    account: Account, owner: Client
) -> None:
    path = "/admin/metering/budget/add/"
    rates = {"levels-0-cost_nanos_per_minute": "0.25", "levels-0-tokens_per_minute": "30000"}
    for row, words in (
        ({**levels((80, "block", "")), **rates}, "Only the action “throttle” has a rate."),
        (
            {**levels((80, "throttle", "")), "levels-0-cost_nanos_per_minute": "0"},
            "the action “block” stops calls",
        ),
    ):
        assert words in errors_of(owner.post(path, budget_form(**row)))
    form = budget_form(**levels((80, "throttle", ""), (100, "hold", "finance")), **rates)
    assert owner.post(path, form).status_code == 302
    with account.scope():
        budget = Budget.objects.get()
        first, second = read_book(account.tenant.id).rules[budget.id].levels
    assert (first.cost_nanos_per_minute, first.tokens_per_minute) == (250_000_000, 30_000)
    assert (second.action, second.cost_nanos_per_minute) == ("hold", None)
    listed = owner.get("/admin/metering/budget/").content.decode()
    assert "80 % throttle to $0.25 and 30,000 tokens a minute, 100 % hold" in listed
    change = f"/admin/metering/budget/{budget.id}/change/"
    before = changed(account)
    assert owner.post(change, saved_form(owner, change)).status_code == 302
    assert changed(account) == before


@pytest.mark.parametrize("role", list(Role))
def test_who_may_change_budgets_may_decide(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    budget = make_budget(account)
    approved, refused = make_raise(account, budget), make_raise(account, budget)
    client = as_role(role)
    assert client.get(f"{RAISES}/").status_code == 200
    page = client.get(f"{RAISES}/{approved.id}/change/")
    assert page.status_code == 200
    assert (b"/approve/" in page.content) == (role in MAY)
    asked = client.get(f"{RAISES}/{approved.id}/approve/")
    assert asked.status_code == (200 if role in MAY else 403)
    statuses = [
        client.post(f"{RAISES}/{approved.id}/approve/", {"note": "fine"}).status_code,
        client.post(f"{RAISES}/{refused.id}/refuse/", {"note": ""}).status_code,
        client.get(f"{RAISES}/add/").status_code,
        client.post(f"{RAISES}/add/", raise_form(budget)).status_code,
        client.get(f"{ROUTES}/add/").status_code,
    ]
    if role in MAY:
        assert statuses == [302, 302, 200, 302, 200]
        assert status_of(account, approved) == "approved"
        assert status_of(account, refused) == "refused"
    else:
        assert statuses == [403] * 5
        assert {status_of(account, row) for row in (approved, refused)} == {"asked"}
        with account.scope():
            assert BudgetRaise.objects.count() == 2


def test_a_decision_is_asked_for_once_more_and_made_once(account: Account, owner: Client) -> None:
    row = make_raise(account, make_budget(account), reason="<script>alert(1)</script>")
    path = f"{RAISES}/{row.id}/approve/"
    page = owner.get(path).content.decode()
    assert "the limits are higher, until the raise ends" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert status_of(account, row) == "asked"
    assert owner.post(path, {"note": "n" * 1001}).status_code == 200
    assert status_of(account, row) == "asked"
    answer = owner.post(path, {"note": "Until noon"}, follow=True)
    assert b"is approved." in answer.content
    with account.scope():
        stored = BudgetRaise.objects.get()
        assert (stored.decided_by, stored.note) == (account.email, "Until noon")
    for decision in ("approve", "refuse"):
        assert owner.post(f"{RAISES}/{row.id}/{decision}/", {"note": ""}).status_code == 403
    assert changed(account)[-1] == (account.email, "approve", "budgetraise")


def test_what_is_over_is_said_and_not_approved(account: Account, owner: Client) -> None:
    row = make_raise(account, make_budget(account))
    with account.scope():
        BudgetRaise.objects.update(ends_at=timezone.now() - timedelta(hours=1))
    answer = owner.post(f"{RAISES}/{row.id}/approve/", {"note": ""}, follow=True)
    assert b"The time that this raise was asked for is over." in answer.content
    assert status_of(account, row) == "asked"


def test_a_raise_made_here_is_in_force_at_once_until_it_is_ended(
    account: Account, owner: Client
) -> None:
    budget = make_budget(account, per=["team", "agent"])
    form = raise_form(budget, group="growth\n")
    assert "Give a value a line for: team, agent." in errors_of(owner.post(f"{RAISES}/add/", form))
    form = raise_form(budget, group="growth\nreader")
    assert owner.post(f"{RAISES}/add/", form).status_code == 302
    with account.scope():
        (rule,) = read_book(account.tenant.id).rules[budget.id].raises
        assert (rule.group_key, rule.cost_nanos) == ('["growth","reader"]', 12_500_000_000)
        row = BudgetRaise.objects.get()
    listed = owner.get(f"{RAISES}/").content.decode()
    assert "growth, reader" in listed
    assert "$12.50" in listed
    assert owner.post(f"{RAISES}/{row.id}/change/", form).status_code == 403
    assert owner.post(f"{RAISES}/{row.id}/delete/", {"post": "yes"}).status_code == 302
    with account.scope():
        row.refresh_from_db()
    assert row.ends_at <= timezone.now()
    assert owner.post(f"{RAISES}/{row.id}/delete/", {"post": "yes"}).status_code == 403
    assert [one[1] for one in changed(account)[-3:]] == ["create", "approve", "update"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"add_cost_nanos": ""}, "Raise at least one part."),
        ({"add_cost_nanos": "a lot"}, "Write 1200.50: digits alone"),
        ({"add_tokens": "5"}, "The budget has no such limit."),
        ({"ends_at_0": "2020-01-01"}, "This moment is over."),
        ({"ends_at_0": ""}, "This field is required"),
        ({"reason": ""}, "This field is required"),
        ({"group": "growth"}, "The budget has no groups."),
    ],
)
def test_what_is_no_raise_is_refused_in_words(
    account: Account, owner: Client, changes: dict[str, Any], words: str
) -> None:
    form = raise_form(make_budget(account), **changes)
    assert words in errors_of(owner.post(f"{RAISES}/add/", form))
    with account.scope():
        assert not BudgetRaise.objects.exists()


def test_a_route_is_made_changed_and_removed(account: Account, owner: Client) -> None:
    assert owner.post(f"{ROUTES}/add/", route_form()).status_code == 302
    with account.scope():
        row = ModelRoute.objects.get()
        found = read_routes(account.tenant.id).choose("summary")
    assert found is not None
    assert found.tiers == (
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
    assert [one[1:] for one in changed(account)[-2:]] == [
        ("update", "modelroute"),
        ("delete", "modelroute"),
    ]


@pytest.mark.parametrize(
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


def test_a_strangers_raises_and_routes_are_not_there(
    account: Account, stranger: Account, owner: Client
) -> None:
    secret = make_budget(stranger, name="secret-budget")
    row = make_raise(stranger, secret)
    with stranger.scope():
        route = create_route(
            tenant=stranger.tenant, actor="t", name="secret-route", tiers=[Tier("p", "m", None)]
        )
        entries = AuditEntry.objects.count()
    assert b"secret-budget" not in owner.get(f"{RAISES}/").content
    assert b"secret-budget" not in owner.get(f"{RAISES}/add/").content
    assert b"secret-route" not in owner.get(f"{ROUTES}/").content
    assert "Select a valid choice" in errors_of(owner.post(f"{RAISES}/add/", raise_form(secret)))
    for path in (
        f"{RAISES}/{row.id}/approve/",
        f"{RAISES}/{row.id}/refuse/",
        f"{RAISES}/{row.id}/delete/",
        f"{ROUTES}/{route.id}/change/",
        f"{ROUTES}/{route.id}/delete/",
    ):
        assert owner.post(path, {"post": "yes", **route_form()}).status_code in {302, 403, 404}
    with stranger.scope():
        assert BudgetRaise.objects.get().status == "asked"
        assert ModelRoute.objects.get().name == "secret-route"
        assert AuditEntry.objects.count() == entries
