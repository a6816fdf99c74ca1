"""The form of a budget: money, levels, what saving would stop, and the preview beside it."""

import re
from typing import Any

import pytest
from django.test import Client

from common.json_bodies import JsonObject
from dashboard.budgets.previewing import Outcome, finding_of
from metering.core import event_stretches
from metering.jobs.tasks import run_simulations
from metering.models import Budget, Simulation, SimulationStatus
from metering.simulation import store
from tests.cases import each_case
from tests.dashboard.test_admin import FormReader
from tests.dashboard.test_enforcement_pages import text_of, words
from tests.factories import NANOS, Account, make_budget, make_event, send


def form_of(client: Client, path: str = "/budgets/new") -> JsonObject:
    """The fields of the form as the page fills them in."""
    answer = client.get(path)
    assert answer.status_code == 200
    html = answer.content.decode()
    reader = FormReader()
    reader.feed(html[html.index('id="rule"') - 60 :])
    (mode,) = re.findall(r'name="mode" value="(\w+)" checked', html)
    return {**reader.fields, "mode": mode}


def fill(client: Client, path: str = "/budgets/new", **changes: object) -> JsonObject:
    fields = {"name": "Daily", "period": "day", "limit_cost_nanos": "50", "mode": "enforce"}
    return {**form_of(client, path), **fields, **changes}


def post(client: Client, fields: JsonObject, path: str = "/budgets/new") -> Any:
    sent = {name: value for name, value in fields.items() if value is not None}
    return client.post(path, sent, follow=True)


def said(answer: Any) -> str:
    return text_of(answer.content.decode())


def budgets(account: Account) -> list[Budget]:
    with account.scope():
        return list(Budget.objects.filter(tenant=account.tenant).order_by("id"))


def seal_of(answer: Any) -> str:
    """What confirms the warnings that a form came back with."""
    reader = FormReader()
    html = answer.content.decode()
    reader.feed(html[html.index('id="rule"') - 60 :])
    return str(reader.fields["_confirmed"])


def test_a_sentence_makes_a_budget_with_its_levels(account: Account, owner: Client) -> None:
    fields = fill(
        owner,
        per_0="agent",
        match_0="team",
        match_1="research\ngrowth",
        **{
            "levels-1-percent": "70",
            "levels-1-action": "none",
            "levels-1-notify": "team_lead, ana@example.com",
        },
    )
    answer = post(owner, fields)
    assert "“Daily” is saved and in force." in said(answer)
    (made,) = budgets(account)
    assert (made.per, made.match, made.limit_cost_nanos, made.period) == (
        ["agent"],
        {"team": ["research", "growth"]},
        50 * NANOS,
        "day",
    )
    with account.scope():
        levels = [(level.percent, level.action, level.notify) for level in made.levels.all()]
    assert levels == [(70, "none", ["team_lead", "ana@example.com"]), (100, "block", [])]


def test_a_form_that_is_sent_twice_makes_one_budget(account: Account, owner: Client) -> None:
    fields = fill(owner)
    post(owner, fields)
    again = post(owner, fields | {"name": "Another"})
    assert "This form was sent already" in said(again)
    assert [row.name for row in budgets(account)] == ["Daily"]


@each_case(
    ("amount", "sentence"),
    [
        ("50,00", "commas could mean thousands or decimals"),
        ("1,000", "commas could mean thousands or decimals"),
        ("-5", "not below 0"),
        ("1e3", "digits alone"),
        ("0.0000000001", "at most 9 decimals"),
        ("", "Give at least one limit"),
    ],
)
def test_money_that_could_mean_two_things_is_refused(
    account: Account, owner: Client, amount: str, sentence: str
) -> None:
    answer = post(owner, fill(owner, limit_cost_nanos=amount))
    assert sentence in said(answer)
    assert budgets(account) == []


def test_a_limit_of_nothing_asks_first(account: Account, owner: Client) -> None:
    fields = fill(owner, limit_cost_nanos="0")
    answer = post(owner, fields)
    assert "refuses every call from the moment you save it" in said(answer)
    assert budgets(account) == []
    post(owner, {**fields, "_confirmed": seal_of(answer)})
    assert [budget.limit_cost_nanos for budget in budgets(account)] == [0]


def test_what_stops_calls_at_once_asks_first(account: Account, owner: Client) -> None:
    send(account, [make_event(agent="scout", cost_usd="242.5")])
    fields = fill(owner, per_0="agent")
    answer = post(owner, fields)
    assert "Save and stop calls" in said(answer)
    assert "agent scout: $242.50 of $50.00" in said(answer)
    assert budgets(account) == []
    other = {**fields, "limit_cost_nanos": "60", "_confirmed": seal_of(answer)}
    assert "Save and stop calls" in said(post(owner, other)), "it was confirmed for another limit"
    post(owner, {**fields, "_confirmed": seal_of(answer)})
    assert len(budgets(account)) == 1


def test_saved_as_shadow_it_stops_nothing_and_asks_nothing(account: Account, owner: Client) -> None:
    send(account, [make_event(cost_usd="242.5")])
    post(owner, {**fill(owner), "as_shadow": "yes"})
    assert [budget.mode for budget in budgets(account)] == ["shadow"]


def test_a_second_budget_of_a_name_asks_first(account: Account, owner: Client) -> None:
    make_budget(account, name="Daily")
    fields = fill(owner)
    answer = post(owner, fields)
    assert "There is already a budget named “Daily”." in said(answer)
    post(owner, {**fields, "_confirmed": seal_of(answer)})
    assert [budget.name for budget in budgets(account)] == ["Daily", "Daily"]


def test_a_change_keeps_what_the_form_does_not_touch(account: Account, owner: Client) -> None:
    budget = make_budget(
        account,
        name="Old",
        per=["agent", "feature", "user", "team"],
        match={"customer": ["a", None], "agent": "x"},
        limit_tokens=5_000,
        levels=[(60, "throttle"), (100, "lockout")],
    )
    path = f"/budgets/{budget.id}/edit"
    fields = form_of(owner, path)
    post(owner, {**fields, "name": "New"}, path)
    (stored,) = budgets(account)
    names = ("per", "match", "limit_tokens", "limit_cost_nanos", "period", "timezone", "revision")
    assert stored.name == "New"
    assert [getattr(stored, name) for name in names] == [getattr(budget, name) for name in names]
    with account.scope():
        levels = [(level.percent, level.action) for level in stored.levels.all()]
    assert levels == [(60, "throttle"), (100, "lockout")]


def test_a_cleared_percentage_removes_a_level(account: Account, owner: Client) -> None:
    budget = make_budget(account, name="Old", levels=[(60, "none"), (100, "block")])
    path = f"/budgets/{budget.id}/edit"
    post(owner, {**form_of(owner, path), "levels-0-percent": ""}, path)
    with account.scope():
        assert [level.percent for level in budget.levels.all()] == [100]


def test_wrong_fields_say_so_and_nothing_is_lost(account: Account, owner: Client) -> None:
    answer = post(
        owner,
        fill(owner, name="Kept", per_0="agent", per_1="agent", **{"levels-0-percent": "2000"}),
    )
    text = said(answer)
    assert "A dimension is chosen twice." in text
    assert "Nothing was saved." in text
    assert 'value="Kept"' in answer.content.decode()
    assert 'value="2000"' in answer.content.decode()
    assert budgets(account) == []


def test_presets_fill_the_form(account: Account, owner: Client) -> None:
    fields = form_of(owner, "/budgets/new?start=session")
    assert (fields["per_0"], fields["limit_cost_nanos"], fields["limit_tokens"]) == (
        "session",
        "0.5",
        "20000",
    )
    post(owner, fields)
    assert [budget.name for budget in budgets(account)] == ["Session limits"]


def test_an_expired_session_keeps_what_was_typed(account: Account, owner: Client) -> None:
    owner.get("/budgets")
    fields = fill(owner, name="Typed before")
    owner.cookies.pop("sessionid")
    answer = owner.post("/budgets/new", fields)
    assert answer["Location"].startswith("/login")
    answer = owner.post(
        answer["Location"], {"username": account.email, "password": account.password}, follow=True
    )
    html = answer.content.decode()
    assert "You were signed out before this was saved" in html
    assert 'value="Typed before"' in html
    assert 'id="rule"' in html
    assert budgets(account) == []


def test_the_preview_says_what_the_rule_would_have_done(account: Account, owner: Client) -> None:
    send(account, [make_event(agent="scout", cost_usd="20") for _ in range(5)])
    answer = post(owner, fill(owner, per_0="agent"), "/budgets/preview")
    text = said(answer)
    assert "Would have refused 3 calls on 1 day and saved $60.00" in text
    assert "scout now at 200%: calls stop when you save." in text
    assert budgets(account) == []


def test_the_preview_of_a_change_compares_with_what_is_in_force(
    account: Account, owner: Client
) -> None:
    budget = make_budget(account, name="Daily", period="day", cost_usd=50)
    send(account, [make_event(cost_usd="20") for _ in range(5)])
    path = f"/budgets/{budget.id}/edit"
    fields = {**form_of(owner, path), "limit_cost_nanos": "70"}
    text = said(post(owner, fields, f"/budgets/{budget.id}/preview"))
    assert "Calls refused 3 2" in text


def test_a_long_past_is_replayed_by_a_worker(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stretches, "AT_ONCE_MAX", 2)
    monkeypatch.setattr(store, "are_few_events", lambda **_: False)
    send(account, [make_event(cost_usd="20") for _ in range(5)])
    html = post(owner, fill(owner), "/budgets/preview").content.decode()
    assert "Replaying the last 30 days" in html
    with account.scope():
        (waiting,) = Simulation.objects.filter(tenant=account.tenant)
    assert f"/budgets/previews/{waiting.id}" in html
    assert owner.get(f"/budgets/previews/{waiting.id}").status_code == 204
    # A further change replaces the preview that no one waits for any more.
    post(owner, {**fill(owner), "simulation": str(waiting.id)}, "/budgets/preview")
    with account.scope():
        (second,) = Simulation.objects.filter(tenant=account.tenant)
    assert second.id != waiting.id
    run_simulations()
    with account.scope():
        second.refresh_from_db()
    assert second.status == SimulationStatus.DONE
    assert "Would have refused 3 calls on 1 day" in words(owner, f"/budgets/previews/{second.id}")


def test_a_form_that_is_not_complete_has_no_preview(account: Account, owner: Client) -> None:
    text = said(post(owner, fill(owner, name="", limit_cost_nanos="50,00"), "/budgets/preview"))
    assert "No preview yet" in text
    assert "commas could mean" in text
    with account.scope():
        assert not Simulation.objects.filter(tenant=account.tenant).exists()


def test_what_a_budget_would_do_is_shown_before_it_has_a_name(
    account: Account, owner: Client
) -> None:
    send(account, [make_event(cost_usd="40"), make_event(cost_usd="40")])
    text = said(post(owner, fill(owner, name=""), "/budgets/preview"))
    assert "Would have refused 1 call on 1 day and saved $40.00" in text
    # The refused call tells it; no level counts how often it was almost reached.
    assert "was reached" not in text
    assert "Give the budget a name." in said(post(owner, fill(owner, name="")))


@pytest.mark.parametrize(
    ("refused", "calls", "words_"),
    [
        (0, 0, "No calls match this rule in the last 30 days"),
        (0, 9, "Would have refused no calls in the last 30 days"),
        (1, 9, "Would have refused 1 call on 1 day and saved $2.50"),
    ],
)
def test_the_result_of_a_replay_in_a_sentence(refused: int, calls: int, words_: str) -> None:
    outcome = Outcome(refused=refused, days=1, saved_nanos=5 * NANOS // 2, levels=[])
    assert finding_of(outcome, calls=calls) == words_


def test_refused_calls_without_a_price_saved_nothing_to_speak_of() -> None:
    outcome = Outcome(refused=206, days=4, saved_nanos=0, levels=[])
    assert finding_of(outcome, calls=900) == "Would have refused 206 calls on 4 days"
