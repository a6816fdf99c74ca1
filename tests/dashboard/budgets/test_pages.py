"""The list of budgets and a budget's page: figures, order, filters, roles, other teams."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine
from django.test import Client

from common.values import normal_value
from metering.configuration.budgets import archive_budget, update_budget
from metering.core.match import group_key
from metering.limits.halts import halt
from metering.models import Budget, Halt, HaltKind, LimitIncrease
from tenants.members import change_team_members
from tenants.models import Team, User
from tenants.people import create_team
from tenants.roles import Role
from tests.dashboard.conftest import make_member, sign_in
from tests.dashboard.test_enforcement_pages import (
    HOSTILE,
    MANAGERS,
    make_raise,
    page,
    press,
    record,
    text_of,
    words,
)
from tests.factories import NANOS, Account, make_budget, make_event, send, windows_of

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)


def member_of(account: Account, team: str, role: Role = Role.ENGINEER) -> Client:
    """Somebody who belongs to one team."""
    email = make_member(account, role)
    with account.scope():
        row = Team.objects.filter(tenant=account.tenant, name=team).first() or create_team(
            tenant=account.tenant, name=team, actor="tests"
        )
        user = User.objects.get(email=email)
        change_team_members(team=row, leads_by_user={user.id: False}, actor="tests")
    return sign_in(email)


def test_a_budget_is_one_row_with_its_fullest_window_and_unfolds(
    account: Account, owner: Client
) -> None:
    budget = make_budget(account, name="Each", per=["session"], period="lifetime", cost_usd=1)
    send(
        account,
        [
            make_event(session=f"s{number}", cost_usd="1.5" if number < 2 else "0.2")
            for number in range(30)
        ],
    )
    said = words(owner, "/budgets")
    assert page(owner, "/budgets").count(">Each</a>") == 1
    assert "2 of 30 sessions over" in said
    assert "$1.50 of $1.00" in said
    unfolded = page(owner, f"/budgets?open={budget.id}")
    assert unfolded.count('class="nest') == 26  # 25 windows, and the way to the others
    assert "1–25 of" in text_of(unfolded)  # noqa: RUF001 - a range
    rest = page(owner, f"/budgets?open={budget.id}&page=2")
    assert rest.count('class="nest') == 6


def test_what_acts_comes_first_and_what_is_used_up_before_the_rest(
    account: Account, owner: Client
) -> None:
    make_budget(account, name="shadow-over", mode="shadow", cost_usd=1)
    make_budget(account, name="warn-over", mode="warn", cost_usd=1)
    make_budget(account, name="calm", cost_usd=1000)
    make_budget(account, name="blocking", cost_usd=2)
    send(account, [make_event(cost_usd="3")])
    html = page(owner, "/budgets")
    table = html[html.index("<tbody>") :]
    result = [table.index(f">{name}<") for name in ("blocking", "calm", "warn-over", "shadow-over")]
    assert result == sorted(result)
    assert "1 budget refuses calls now: blocking" in html


def test_the_headline_says_when_a_budget_runs_out(account: Account) -> None:
    with time_machine.travel(NOON, tick=False):
        budget = make_budget(account, name="Daily", period="day", cost_usd=10)
        send(account, [make_event(cost_usd="9")])
        owner = sign_in(account.email)
        said = words(owner, "/budgets")
        assert "1 budget runs out and will refuse calls: Daily, today" in said
        each = words(owner, f"/budgets/{budget.id}")
    assert "Daily runs out at 1:20 PM, 11 hours before the budget resets" in each


@pytest.mark.parametrize(
    ("query", "shown", "hidden"),
    [
        ("q=scout", ["Agents", "market-scout"], ["writer", "Customers"]),
        ("q=agents", ["Agents"], ["Customers"]),
        ("q=GROWTH", ["Growth"], ["Agents", "Customers"]),
        ("mode=warn", ["Customers"], ["Agents", "Growth"]),
        ("dimension=customer", ["Customers"], ["Agents", "Growth"]),
        ("filter[team]=research", ["Agents", "Customers"], ["Growth"]),
        ("filter[agent]=writer", ["Agents", "writer"], ["market-scout"]),
        ("q=100%25", ["No budget matches"], ["Agents"]),
    ],
)
def test_the_list_is_searched_and_filtered(
    account: Account, owner: Client, query: str, shown: list[str], hidden: list[str]
) -> None:
    make_budget(account, name="Agents", per=["agent"])
    make_budget(account, name="Customers", per=["customer"], mode="warn")
    make_budget(account, name="Growth", match={"team": "growth"})
    send(
        account,
        [
            make_event(agent="market-scout", team="research", customer="acme", cost_usd="5"),
            make_event(agent="writer", team="growth", customer="acme", cost_usd="3"),
        ],
    )
    html = page(owner, f"/budgets?{query}")
    said = text_of(html[html.index('id="content"') :]).replace("Any dimension", "")
    assert [name for name in shown if name not in said] == []
    assert [name for name in hidden if re.search(rf"\b{name}\b", said)] == []


def test_archived_budgets_are_folded_and_keep_their_page(account: Account, owner: Client) -> None:
    budget = make_budget(account, name="Old one")
    send(account, [make_event(cost_usd="3")])
    with account.scope():
        archive_budget(budget=budget, actor="tests")
    assert "1 archived budget" in words(owner, "/budgets")
    said = words(owner, f"/budgets/{budget.id}")
    assert "Old one is archived" in said
    assert "$3.00" in said
    assert "Raise limit" not in said


def test_a_budget_says_its_rule_who_uses_it_and_what_it_refused(
    account: Account, owner: Client
) -> None:
    budget = make_budget(
        account,
        name="Research",
        match={"team": "research"},
        per=["agent"],
        period="day",
        cost_usd=10,
        levels=[(70, "none"), (100, "block")],
    )
    send(
        account,
        [
            make_event(team="research", agent="scout", customer="acme", cost_usd="6"),
            make_event(team="research", agent="scout", customer="birch", cost_usd="2"),
            make_event(team="research", agent="other", customer="acme", cost_usd="1"),
            make_event(team="growth", agent="scout", customer="acme", cost_usd="50"),
        ],
    )
    reason = {"budget": budget.id, "mode": "enforce", "detail": "No room for scout."}
    other = {"budget": budget.id, "mode": "enforce", "detail": "No room for other."}
    record(
        account,
        {"reasons": [reason | {"group": {"agent": "scout"}}]},
        {"reasons": [other | {"group": {"agent": "other"}}]},
    )
    html = page(owner, f"/budgets/{budget.id}?by=customer")
    said = text_of(html)
    assert "Each agent of team research may use $10 per day. At 70% notify the channels" in said
    assert "80% of" in said
    assert "acme $6.00 75%" in said
    assert "birch $2.00 25%" in said
    assert "No room for scout." in said
    assert "No room for other." not in said
    assert "70% of $10.00" in said  # the crossing


def test_the_burn_down_ends_at_the_windows_balance(account: Account, owner: Client) -> None:
    budget = make_budget(account, per=["agent"], period="day", cost_usd=10)
    now = datetime.now(UTC)
    earlier = max(now - timedelta(hours=2), now.replace(hour=0, minute=0, second=0, microsecond=0))
    send(
        account,
        [
            make_event(agent="a", cost_usd="3", time=earlier.isoformat()),
            make_event(agent="a", cost_usd="1.5"),
            make_event(agent="b", cost_usd="0.5"),
        ],
    )
    window = next(
        each for each in windows_of(account, budget) if each.group_key == group_key(["a"])
    )
    figure = json.loads(page(owner, f"/budgets/{budget.id}/chart.json?window={window.id}"))
    spent = figure["data"][0]
    assert (spent["y"][0], spent["y"][-1]) == (0, 4.5)
    assert spent["y"] == sorted(spent["y"])
    assert "$4.50" in words(owner, f"/budgets/{budget.id}/chart.html?window={window.id}")
    csv = page(owner, f"/budgets/{budget.id}/chart.csv?window={window.id}")
    assert csv.splitlines()[-1].endswith('"4.5"')
    assert Decimal(window.spent_nanos) == Decimal("4.5") * NANOS


def test_a_window_without_end_is_drawn_from_the_first_day_of_its_usage(
    account: Account, owner: Client
) -> None:
    """What was spent days ago may be reported within a minute, as an import does."""
    budget = make_budget(account, period="lifetime", cost_usd=10)
    first = datetime.now(UTC) - timedelta(days=20)
    send(
        account,
        [
            make_event(agent="importer", cost_usd="3", time=first.isoformat()),
            make_event(agent="late", cost_usd="1.5"),
        ],
    )
    spent = json.loads(page(owner, f"/budgets/{budget.id}/chart.json"))["data"][0]
    assert spent["x"][0] == f"{first:%Y-%m-%d}T00:00:00"
    assert (spent["y"][0], spent["y"][1], spent["y"][-1]) == (0, 3, 4.5)
    said = words(owner, f"/budgets/{budget.id}")
    assert "importer $3.00" in said
    assert "an hour" not in said


def test_increases_are_steps_and_crossings_marks(account: Account, owner: Client) -> None:
    budget = make_budget(account, period="day", cost_usd=10, levels=[(70, "none"), (100, "block")])
    send(account, [make_event(cost_usd="8")])
    asked = make_raise(account, budget, usd=5, agent=None)
    press(owner, f"/enforcement/requests/{asked.id}/approve")
    figure = json.loads(page(owner, f"/budgets/{budget.id}/chart.json"))
    names = [trace.get("name") for trace in figure["data"]]
    assert {"Spent", "Limit", "Level reached"} <= set(names)
    steps = figure["data"][names.index("Limit")]["y"]
    assert {10.0, 15.0} <= set(steps)


def test_a_lockout_of_other_calls_too_is_lifted_only_if_chosen(
    account: Account, owner: Client
) -> None:
    budget = make_budget(account, match={"feature": "review"}, cost_usd=10)
    make_raise(account, budget, usd=5, agent=None)
    for match, is_checked in (({"agent": "scout"}, False), ({"feature": "review"}, True)):
        with account.scope():
            made = halt(tenant=account.tenant, match=match, reason="Locked out.", actor="tests")
            Halt.objects.filter(tenant=account.tenant, id=made.id).update(kind=HaltKind.LOCKOUT)
        box = f'name="lift" value="{made.id}"{" checked" if is_checked else ""}>'
        assert box in page(owner, f"/budgets/{budget.id}")
        html = page(owner, "/enforcement/requests")
        assert box in html
        assert ("Something else stops these calls too" in html) is is_checked


def test_past_periods_are_history_and_open_their_window(account: Account, owner: Client) -> None:
    start = datetime.now(UTC) - timedelta(days=3)
    with time_machine.travel(start, tick=False):
        budget = make_budget(account, name="Daily", period="day", cost_usd=10)
        send(account, [make_event(cost_usd="12")])
    send(account, [make_event(cost_usd="2")])
    said = words(owner, f"/budgets/{budget.id}")
    assert "Over the limit in 1 of the last 2 days" in said
    past = windows_of(account, budget)[0]
    assert "Daily is over its limit, at 120%" in words(
        owner, f"/budgets/{budget.id}?window={past.id}"
    )


def test_a_request_is_approved_in_place_and_its_lockout_lifted_with_it(
    account: Account, owner: Client
) -> None:
    budget = make_budget(account, name="Daily", per=["agent"], cost_usd=10)
    send(account, [make_event(agent="a", cost_usd="9")])
    asked = make_raise(account, budget)
    with account.scope():
        lockout = halt(
            tenant=account.tenant, match={"agent": "a"}, reason="Locked out at 90%.", actor="Daily"
        )
        Halt.objects.filter(tenant=account.tenant, id=lockout.id).update(kind=HaltKind.LOCKOUT)
    said = words(owner, f"/budgets/{budget.id}")
    assert "Also lift the lockout: Locked out at 90%." in said
    said = press(
        owner,
        f"/enforcement/requests/{asked.id}/approve",
        lift=str(lockout.id),
        back=f"/budgets/{budget.id}",
    )
    assert "It applies to new calls immediately." in said
    with account.scope():
        assert Halt.objects.get(tenant=account.tenant, id=lockout.id).lifted_at is not None
        assert LimitIncrease.objects.get(tenant=account.tenant, id=asked.id).status == "approved"


def test_an_approval_lifts_no_halt_that_a_person_made(account: Account, owner: Client) -> None:
    budget = make_budget(account, per=["agent"], cost_usd=10)
    asked = make_raise(account, budget)
    with account.scope():
        made = halt(tenant=account.tenant, match={"agent": "a"}, reason="No.", actor="Ana")
    press(owner, f"/enforcement/requests/{asked.id}/approve", lift=str(made.id))
    with account.scope():
        assert Halt.objects.get(tenant=account.tenant, id=made.id).lifted_at is None


def test_changes_of_the_limit_are_listed_from_what_to_what(account: Account, owner: Client) -> None:
    budget = make_budget(account, cost_usd=10)
    send(account, [make_event(cost_usd="1")])
    with account.scope():
        update_budget(budget=budget, actor="Ana", changes={"limit_cost_nanos": 25 * NANOS})
    assert "$10.00 → $25.00" in words(owner, f"/budgets/{budget.id}")


@pytest.mark.parametrize("role", Role)
def test_who_manages_changes_budgets_and_others_read(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    budget = make_budget(account, name="Daily")
    client = as_role(role)
    assert ("Create budget" in page(client, "/budgets")) is (role in MANAGERS)
    html = page(client, f"/budgets/{budget.id}")
    assert ("Archive" in html) is (role in MANAGERS)
    for path in ("/budgets/new", f"/budgets/{budget.id}/edit"):
        assert client.get(path).status_code == (200 if role in MANAGERS else 403)
    for path in ("/budgets/new", f"/budgets/{budget.id}/edit", "/budgets/preview"):
        assert (client.post(path).status_code == 403) is (role not in MANAGERS)
    answer = client.post(f"/budgets/{budget.id}/archive")
    assert answer.status_code == (302 if role in MANAGERS else 403)
    with account.scope():
        is_archived = Budget.objects.get(tenant=account.tenant).archived_at is not None
    assert is_archived is (role in MANAGERS)


@pytest.mark.parametrize("path", ["", "/edit", "/chart.json", "/chart.html", "/chart.csv"])
def test_another_tenants_budget_is_not_there(
    account: Account, stranger: Account, owner: Client, path: str
) -> None:
    budget = make_budget(stranger)
    send(stranger, [make_event(cost_usd="1")])
    assert owner.get(f"/budgets/{budget.id}{path}").status_code == 404


def test_a_member_of_a_team_sees_its_budgets_alone(account: Account) -> None:
    mine = make_budget(account, name="Mine", match={"team": "research"})
    theirs = make_budget(account, name="Theirs", match={"team": "growth"})
    both = make_budget(account, name="Both", match={"team": ["growth", "research"]})
    whole = make_budget(account, name="Whole")
    each = make_budget(account, name="Teams", per=["team"])
    send(
        account,
        [
            make_event(team="research", agent="a", cost_usd="1.11"),
            make_event(team="growth", agent="b", cost_usd="77.77"),
        ],
    )
    client = member_of(account, "research")
    said = words(client, f"/budgets?open={each.id}")
    assert "Mine" in said
    assert "Teams" in said
    for hidden in ("Theirs", "Both", "Whole", "77.77", "78.88", "growth"):
        assert hidden not in said
    for budget in (theirs, both, whole):
        assert client.get(f"/budgets/{budget.id}").status_code == 404
        assert client.get(f"/budgets/{budget.id}/chart.csv").status_code == 404
    assert "$1.11" in words(client, f"/budgets/{mine.id}")
    others = next(
        window for window in windows_of(account, each) if window.group_key == group_key(["growth"])
    )
    assert client.get(f"/budgets/{each.id}?window={others.id}").status_code == 404
    said = words(client, f"/budgets/{each.id}")
    assert "77.77" not in said


def test_the_sidebar_counts_the_requests_that_the_person_can_see(
    account: Account, owner: Client
) -> None:
    make_raise(account, make_budget(account, match={"team": "research"}, per=["agent"]))
    make_raise(account, make_budget(account, match={"team": "growth"}, per=["agent"]))
    make_raise(account, make_budget(account, per=["team"]), agent="growth")
    assert "3 pending" in page(owner, "/")
    assert "1 pending" in page(member_of(account, "research"), "/")


def test_a_member_of_a_team_sees_no_other_teams_calls_in_enforcement(account: Account) -> None:
    theirs = make_budget(account, name="Theirs", match={"team": "growth"}, per=["agent"])
    make_raise(account, theirs, agent="secret-agent")
    record(
        account,
        {"dimensions": {"agent": "secret-agent", "team": "growth"}, "asked_nanos": 7_770_000_000},
        {"dimensions": {"agent": "a", "team": "research"}, "asked_nanos": 1_110_000_000},
    )
    send(account, [make_event(team="growth", agent="secret-agent", cost_usd="77.77")])
    client = member_of(account, "research")
    for path in (
        "/enforcement/requests",
        "/enforcement/decisions",
        "/enforcement/halts",
        "/enforcement/estimates",
        "/enforcement/unknown",
    ):
        said = words(client, path)
        assert "secret-agent" not in said, path
        assert "7.77" not in said, path
    assert "$1.11" in words(client, "/enforcement/decisions")
    asked = words(client, "/enforcement/halts/confirm?dimension=agent&value=secret-agent")
    assert "77.77" not in asked


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_stay_text(account: Account, owner: Client, value: str) -> None:
    budget = make_budget(account, name=value, per=["agent"], match={"team": normal_value(value)})
    send(account, [make_event(agent=value, team=value, customer=value, cost_usd="1")])
    for path in (
        "/budgets",
        f"/budgets?open={budget.id}",
        f"/budgets/{budget.id}?by=customer",
        f"/budgets/{budget.id}/edit",
        f"/budgets/{budget.id}/chart.html",
    ):
        html = page(owner, path)
        assert "<script>alert" not in html
        assert 'onmouseover="alert' not in html.replace("&quot;", "")
