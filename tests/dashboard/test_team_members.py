"""A member of a team sees that team's usage alone; whoever manages budgets sees all of it."""

import pytest
from django.test import Client

from tenants.members import change_team_members, visible_teams
from tenants.models import Team, User
from tenants.roles import Role
from tests.dashboard.conftest import make_member, sign_in
from tests.factories import Account, make_budget, make_event, send


def make_team_member(account: Account, role: Role, *teams: str) -> str:
    """Another person of the tenant, in these teams; answers the address."""
    email = make_member(account, role)
    with account.scope():
        user = User.objects.get(email=email)
        for name in teams:
            team, _ = Team.objects.get_or_create(tenant=account.tenant, name=name)
            change_team_members(team=team, leads_by_user={user.id: False}, actor="tests")
    return email


def seen(account: Account, email: str, role: Role) -> tuple[str, ...] | None:
    with account.scope():
        user = User.objects.get(email=email)
        return visible_teams(tenant_id=account.tenant.id, user_id=user.id, role=role)


@pytest.mark.parametrize("role", list(Role))
def test_engineers_and_viewers_of_a_team_see_their_teams_alone(
    account: Account, role: Role
) -> None:
    email = make_team_member(account, role, "b", "a")
    is_limited = role in {Role.ENGINEER, Role.VIEWER}
    assert seen(account, email, role) == (("a", "b") if is_limited else None)
    outsider = make_member(account, role)
    assert seen(account, outsider, role) is None


def team_client(account: Account) -> Client:
    return sign_in(make_team_member(account, Role.ENGINEER, "own"))


def test_budgets_of_other_teams_are_not_shown(account: Account) -> None:
    send(account, [make_event(team="own", cost_usd="1"), make_event(team="foreign", cost_usd="7")])
    make_budget(account, name="every team", per=["team"], cost_usd=10)
    make_budget(account, name="own alone", match={"team": "own"}, cost_usd=20)
    make_budget(account, name="both", match={"team": ["own", "foreign"]}, cost_usd=30)
    make_budget(account, name="whole tenant", cost_usd=40)
    html = team_client(account).get("/").content.decode()
    shown = html[html.index('id="attention"') :]
    assert "every team" in shown
    assert "own alone" in shown
    assert "foreign" not in shown
    assert "both" not in shown
    assert "whole tenant" not in shown
    assert "$7" not in html


def test_another_teams_usage_cannot_be_asked_for(account: Account) -> None:
    send(account, [make_event(team="own", cost_usd="1"), make_event(team="foreign", cost_usd="7")])
    client = team_client(account)
    for path in ("/", "/?filter[team]=foreign", "/?filter[team]=foreign&filter[team]=own"):
        html = client.get(path).content.decode()
        assert "$1.00" in html
        assert "$7" not in html
        assert "$8" not in html
        assert ("your own teams only" in html) is ("foreign" in path)
    for path in ("/charts/spend.json", "/charts/spend.html", "/charts/spend.csv"):
        answer = client.get(path + "?group_by=team&filter[team]=foreign").content.decode()
        assert "own" in answer
        assert "foreign" not in answer


def test_models_that_other_teams_use_are_not_shown(account: Account) -> None:
    send(account, [make_event(team=team, model=f"{team}-llm") for team in ("own", "foreign")])
    html = team_client(account).get("/settings/prices").content.decode()
    assert "own-llm" in html
    assert "foreign-llm" not in html


def test_the_team_switch_offers_own_teams_alone(account: Account) -> None:
    send(account, [make_event(team="own")])
    make_team_member(account, Role.VIEWER, "elsewhere")
    html = team_client(account).get("/").content.decode()
    assert "My teams" in html
    assert "elsewhere" not in html
