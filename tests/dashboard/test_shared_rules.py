"""Rules that count several teams' calls: a member of one team reads nothing of the others there."""

import re
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from alerts.settings import create_maintenance_window
from metering.configuration.rate_limits import create_rate_limit
from metering.core.match import group_key
from metering.limits.halts import halt, lift_halt
from metering.limits.limit_increases import approve_increase
from metering.limits.rate_counters import SLOTS
from metering.models import Halt, RateLimit
from metering.rollups import roll_up
from tenants.roles import Role
from tests.dashboard.conftest import sign_in
from tests.dashboard.test_enforcement_pages import make_breaker, make_raise, page, press, words
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account, make_budget, make_event, send

# What the other team spent within the minute, what a limit of all teams is, and what that makes.
FOREIGN = re.compile(r"75,?319|8,?642|87[12](\.\d+)?%")


@pytest.fixture
def member(account: Account) -> Client:
    """An engineer of the team "own", whose agent is "scout"; "foreign" runs "secret" and both run
    "shared".
    """
    make_breaker(account, per=["agent"])
    make_breaker(account, name="of foreign alone", match={"team": "foreign"}, per=["team"])
    make_budget(account, name="whole", cost_usd=8642)
    spent = {"scout": ("own", "2"), "secret": ("foreign", "75319"), "shared": ("foreign", "3")}
    calls = [
        make_event(agent=agent, team=team, cost_usd=cost) for agent, (team, cost) in spent.items()
    ]
    send(account, [*calls, make_event(agent="shared", team="own", cost_usd="1", session="s-own")])
    send(account, [make_event(agent="secret", team="foreign", session="s-foreign")])
    with account.scope():
        roll_up(tenant_id=account.tenant.id)
    return sign_in(make_team_member(account, Role.ENGINEER, "own"))


def stop(account: Account, *, actor: str = "Ana", **match: object) -> Halt:
    with account.scope():
        return halt(tenant=account.tenant, match=match, reason="It loops", actor=actor)


def test_halts_of_what_other_teams_run_are_not_named(
    account: Account, owner: Client, member: Client
) -> None:
    stop(account, team="foreign", agent="hidden-1")
    stop(account, customer="hidden-2")
    stop(account, session="s-foreign")
    stop(account, session="s-own")
    stop(account, agent=["scout", "secret"])
    stop(account, team=["own", "foreign"], feature="both-teams")
    html = page(member, "/enforcement/halts")
    for name in ("secret", "hidden-1", "hidden-2", "s-foreign"):
        assert name not in html
        assert name in page(owner, "/enforcement/halts")
    for name in ("scout", "shared", "s-own", "both-teams"):
        assert name in html
    # The breaker's of "scout" and "shared", and the three by hand.
    assert "5 halts are in force" in words(member, "/enforcement/halts")
    assert "5 in force" in words(member, "/")
    assert "10 in force" in words(owner, "/")


def test_what_a_rule_says_of_all_teams_is_withheld(member: Client, owner: Client) -> None:
    for path in ("/enforcement/halts", "/enforcement/breakers"):
        said = words(member, path)
        assert not FOREIGN.search(said)
        assert "secret" not in said
        assert "Its rule counts more than your teams' calls." in said.replace("&#x27;", "'")
        assert FOREIGN.search(words(owner, path))
    said = words(member, "/enforcement/breakers")
    assert "of foreign alone" not in said
    assert "2 groups are stopped" in said
    assert "of foreign alone" in words(owner, "/enforcement/breakers")


def test_a_person_sees_the_halts_that_they_made(account: Account, member: Client) -> None:
    press(member, "/enforcement/halts/make", calls="agent=not-yet-run", reason="Wait")
    assert "not-yet-run" in page(member, "/enforcement/halts")
    with account.scope():
        made = Halt.objects.get(match={"agent": "not-yet-run"})
        lift_halt(halt=made, actor="Ana")
    assert "not-yet-run" in page(member, "/enforcement/halts")


def test_lifted_halts_of_other_teams_are_not_named(account: Account, member: Client) -> None:
    for made in (stop(account, agent="secret"), stop(account, agent="scout")):
        with account.scope():
            lift_halt(halt=made, actor="Ana")
    html = page(member, "/enforcement/halts")
    assert "secret" not in html
    assert "scout" in html[html.index('id="past-title"') :]


def test_the_question_before_a_halt_tells_nothing_of_other_teams(
    member: Client, owner: Client
) -> None:
    path = "/enforcement/halts/confirm?dimension=agent&value=secret"
    assert not FOREIGN.search(words(member, path))
    assert "Already halted" not in words(member, path)
    assert FOREIGN.search(words(owner, path))
    assert "Already halted" in words(member, path.replace("secret", "shared"))


def test_maintenance_windows_of_other_teams_are_not_named(
    account: Account, member: Client, owner: Client
) -> None:
    now = timezone.now()
    for match in ({"team": "foreign"}, {"agent": "secret"}, {"agent": "scout"}, {}):
        with account.scope():
            create_maintenance_window(
                tenant=account.tenant,
                actor="tests",
                match=match,
                starts_at=now,
                ends_at=now + timedelta(hours=1),
                reason=f"Load test of {match or 'everything'}",
            )
    for path in ("/settings/alerts", "/settings/audit-log"):
        for name in ("&#x27;secret&#x27;", "&#x27;foreign&#x27;"):
            assert name not in page(member, path)
            assert name in page(owner, path)
    assert "&#x27;scout&#x27;" in page(member, "/settings/alerts")
    assert "Load test of everything" in page(member, "/settings/alerts")


def test_an_increase_is_told_what_stops_it_without_other_teams_money(
    account: Account, member: Client, owner: Client
) -> None:
    budget = make_budget(account, name="ours", match={"team": "own"}, per=["agent"])
    asked = make_raise(account, budget, agent="scout")
    with account.scope():
        approve_increase(limit_increase=asked, actor="Ana")
    said = words(member, "/enforcement/requests")
    assert "still stopped" in said
    assert not FOREIGN.search(said)
    assert "whole" not in said
    assert FOREIGN.search(words(owner, "/enforcement/requests"))


def test_a_rate_limit_is_filled_by_own_teams_alone(
    account: Account, member: Client, owner: Client
) -> None:
    def limited(name: str, per: list[str], groups: dict[str, int]) -> None:
        with account.scope():
            made = create_rate_limit(
                tenant=account.tenant, actor="tests", name=name, per=per, tokens_per_minute=1000
            )
        fill(account, made, groups)

    limited("By agent", ["agent"], {"secret": 8720})
    limited("By team", ["team"], {"foreign": 9990, "own": 250})
    said = words(member, "/enforcement/breakers")
    assert "872%" not in said
    assert "999%" not in said
    assert "shared with other teams" in said
    assert "25% own" in said
    assert "872% secret" in words(owner, "/enforcement/breakers")


def fill(account: Account, limit: RateLimit, groups: dict[str, int]) -> None:
    """What the groups of a rate limit asked for a moment ago."""
    second = int((timezone.now() - timedelta(seconds=2)).timestamp())
    with account.scope(), connection.cursor() as cursor:
        for value, tokens in groups.items():
            slots = [0] * SLOTS
            slots[second % SLOTS] = int(Decimal(tokens))
            cursor.execute(
                "INSERT INTO rate_counter (tenant_id, id, subject, group_key, last_second, nanos,"
                " tokens, requests)"
                " VALUES (%s, nextval('rate_counter_id'), %s, %s, %s, %s, %s, %s)",
                [
                    *(account.tenant.id, f"limit:{limit.id}", group_key([value]), second),
                    *([0] * SLOTS, slots, [0] * SLOTS),
                ],
            )
