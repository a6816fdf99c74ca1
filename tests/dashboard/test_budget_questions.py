"""Before a budget is saved: what it would refuse now and would have refused lately."""

from typing import Any

import pytest
from django.test import Client

from common.json_bodies import JsonObject
from metering.models import Budget, RateLimit, TenantPrice
from metering.simulation import preview
from tests.dashboard.test_admin import (
    FormReader,
    budget_form,
    changed,
    errors_of,
    levels,
    price_form,
    saved_form,
)
from tests.factories import Account, make_budget, make_event, send

ADD = "/admin/metering/budget/add/"
EVERYTHING: JsonObject = {"match_0": "", "match_1": "", "per": []}


def question_of(answer: Any) -> JsonObject:
    """The fields that the question sends on when it is confirmed."""
    assert "Nothing is saved yet." in errors_of(answer)
    reader = FormReader()
    reader.feed(answer.content.decode())
    return reader.fields


def budgets(account: Account) -> list[tuple[str, int | None, str]]:
    with account.scope():
        return list(Budget.objects.order_by("id").values_list("name", "limit_cost_nanos", "mode"))


def spend(account: Account, *amounts: tuple[str, str]) -> None:
    """Calls of agents, each of so many dollars."""
    send(account, [make_event(agent=agent, cost_usd=usd) for agent, usd in amounts])


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (
            {"limit_cost_nanos": "0"},
            "every call from the moment you save it: its limit is $0.00",
        ),
        ({"limit_tool_calls": "0"}, "refuses every tool call from the moment you save it"),
    ],
)
def test_a_limit_of_nothing_asks_before_it_refuses_everything(
    account: Account, owner: Client, limits: dict[str, str], words: str
) -> None:
    before = changed(account)
    form = budget_form(**EVERYTHING, **limits)
    answer = owner.post(ADD, form)
    assert words in errors_of(answer)
    assert (budgets(account), changed(account)) == ([], before)
    confirmed = question_of(answer)
    # Back: the form as it was typed, and still nothing is saved.
    again = owner.post(ADD, {**confirmed, "_edit": ""})
    assert 'value="Research agents"' in errors_of(again)
    assert budgets(account) == []
    assert owner.post(ADD, {**confirmed, "_confirmed": "yes"}).status_code == 302
    assert len(budgets(account)) == 1
    # The same answer given twice, as by two clicks.
    owner.post(ADD, {**confirmed, "_confirmed": "yes"})
    assert len(budgets(account)) == 1


def test_nothing_is_asked_where_nothing_is_refused(account: Account, owner: Client) -> None:
    spend(account, ("a", "1"))
    for form in (
        budget_form(**EVERYTHING, limit_cost_nanos="0", mode="warn"),
        budget_form(**EVERYTHING, limit_cost_nanos="0", **levels((100, "none", ""))),
        budget_form(**EVERYTHING, limit_cost_nanos="1.50"),
    ):
        assert owner.post(ADD, form).status_code == 302
    assert len(budgets(account)) == 3


def test_a_budget_that_would_refuse_at_once_says_so_first(account: Account, owner: Client) -> None:
    spend(account, ("research", "30"), ("research", "12"), ("support", "7"), ("idle", "1"))
    form = budget_form(match_0="", match_1="", per=["agent"], limit_cost_nanos="5")
    answer = owner.post(ADD, form)
    page = errors_of(answer)
    assert "2 of 3 groups have already used up the limit" in page
    assert "agent research: $42.00 of $5.00, $37.00 over; agent support: $7.00 of $5.00" in page
    assert "In the last 30 days it would have refused 3 of 4 calls ($49.00 of $50.00)" in page
    assert budgets(account) == []
    owner.post(ADD, {**question_of(answer), "_confirmed": "yes"})
    assert [name for name, _, _ in budgets(account)] == ["Research agents"]


def test_a_change_that_would_refuse_more_says_so_first(account: Account, owner: Client) -> None:
    spend(account, ("research", "42"), ("support", "7"))
    budget = make_budget(account, name="b", cost_usd=100, period="month")
    path = f"/admin/metering/budget/{budget.id}/change/"
    stored = saved_form(owner, path)
    before = changed(account)
    for changes, words in (
        ({"limit_cost_nanos": "10"}, "The limit is already used up: $49.00 of $10.00"),
        ({"limit_cost_nanos": "1000"}, "from $100.00 to $1,000.00: 10 times as much"),
        ({"mode": "shadow"}, "This budget stops refusing calls from the moment you save it"),
        ({"limit_cost_nanos": "", "limit_requests": "1000"}, "The limit of $100.00 is gone"),
        ({"limit_requests": "1"}, "The limit is already used up: 2 of 1 request"),
    ):
        assert words in errors_of(owner.post(path, {**stored, **changes})), changes
    assert changed(account) == before
    # What changes no limit, and what only loosens a little, is saved at once.
    for changes in ({"name": "other"}, {"limit_cost_nanos": "200"}):
        assert owner.post(path, {**saved_form(owner, path), **changes}).status_code == 302
    preview_page = errors_of(owner.post(path, {**saved_form(owner, path), "_preview": ""}))
    assert "In the last 30 days it would have refused 0 of 2 calls" in preview_page


def test_what_takes_too_long_to_preview_is_said_and_asked(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(account, ("a", "1"), ("a", "1"), ("a", "1"))
    form = budget_form(**EVERYTHING, limit_cost_nanos="2")
    monkeypatch.setattr(preview, "CALLS_MAX", 1)
    assert "older calls are too many to replay" in errors_of(owner.post(ADD, form))
    monkeypatch.setattr(preview, "SECONDS_MAX", -1.0)
    assert "Current spend could not be added up in time" in errors_of(owner.post(ADD, form))
    assert budgets(account) == []


def test_a_rate_that_is_not_per_million_asks(account: Account, owner: Client) -> None:
    path = "/admin/metering/tenantprice/add/"
    no_rates = {"rate_input_tokens": "", "rate_output_tokens": ""}
    for model, rates, words in (
        ("claude-sonnet-4-5", {"rate_input_tokens": "0.000003"}, "is 1/1,000,000 of the present"),
        ("claude-sonnet-4-5", {"rate_output_tokens": "15000"}, "is 1,000 times the present"),
        ("house-model", {"rate_input_tokens": "3000"}, "is more than any model costs"),
        ("house-model", {"rate_input_tokens": "0.0000005"}, "is less than any model costs"),
        ("house-model", {"rate_input_tokens": "0"}, "Every call of house-model is free"),
    ):
        answer = owner.post(path, price_form(model=model, **{**no_rates, **rates}))
        assert words in errors_of(answer), (model, rates)
    with account.scope():
        assert not TenantPrice.objects.exists()
    rates = {"rate_input_tokens": "2.5", "rate_output_tokens": "20"}
    answer = owner.post(path, price_form(model="claude-sonnet-4-5", **rates))
    assert answer.status_code == 302
    tool = {**price_form(), "tool": "web_search", "call_nanos": "10"}
    answer = owner.post("/admin/metering/toolprice/add/", tool)
    assert "Each single call of web_search costs $10.00" in errors_of(answer)


def test_other_limits_ask_before_they_stop_acting(account: Account, owner: Client) -> None:
    rate = {"form_token": "", "name": "r", "mode": "enforce", "requests_per_minute": "10"}
    rate |= {"cost_nanos_per_minute": "", "tokens_per_minute": "", "match_0": "", "match_1": ""}
    assert owner.post("/admin/metering/ratelimit/add/", rate).status_code == 302
    with account.scope():
        path = f"/admin/metering/ratelimit/{RateLimit.objects.get().id}/change/"
    answer = owner.post(path, {**rate, "mode": "warn"})
    assert "“r” stops acting from the moment you save it: mode warn" in errors_of(answer)
    assert owner.post(path, {**rate, "requests_per_minute": "20"}).status_code == 302
