"""A tenant in which every page has something to show, some of it named to do harm."""

from datetime import UTC, datetime, timedelta

from django.test import Client

from alerts.delivery.requests import test_channel as send_test
from metering.jobs.tasks import run_simulations
from metering.models import Simulation
from tenants.invitations import invite
from tenants.models import Team, User
from tenants.password_resets import make_reset_token
from tenants.roles import Role
from tests.alerts.scene import make_channel
from tests.dashboard.budgets.test_form import fill, post
from tests.dashboard.settings.test_pages import make_price, make_window
from tests.dashboard.test_enforcement_pages import (
    make_breaker,
    make_halt,
    make_raise,
    record,
)
from tests.dashboard.test_incident_pages import delivery_of, make_incident
from tests.factories import Account, finish_jobs, make_budget, make_event, send
from tests.metering.api.caller import caller

HOSTILE = "<img src=x onerror=\"document.title='broken'\">"
AGENT = "scout-7"
# Of the team that the engineer of the walk is in.
TEAM = "growth"


def furnish(account: Account, owner: Client) -> dict[str, object]:
    """Fill the tenant; answer what stands for the parameters of addresses, by their names."""
    make_team(account)
    _report(account)
    return {**_limits(account, owner), **_alerts(account), **_settings(account, owner)}


def make_team(account: Account) -> Team:
    with account.scope():
        team, _ = Team.objects.get_or_create(tenant=account.tenant, name=TEAM)
    return team


def _report(account: Account) -> None:
    """Three weeks of a session a day with a repeated call and an error, and names that do harm."""
    now = datetime.now(UTC)
    events = []
    for day in range(21):
        at = now - timedelta(days=day, minutes=30)
        for step in range(3):
            events.append(
                make_event(
                    id=f"call-{day}-{step}",
                    time=(at + timedelta(seconds=step)).isoformat(),
                    session=f"run-{day}",
                    trace=f"trace-{day}",
                    span=f"span-{day}-{step}",
                    parent_span=f"span-{day}-0" if step else ...,
                    agent=AGENT if step else "writer",
                    team=TEAM if day % 3 else "research",
                    customer=f"customer {day % 4}",
                    feature="search",
                    user=f"user-{day % 5}",
                    input_tokens=1000 * (step + 1),
                    latency_ms=700,
                    status="error" if day % 5 == step else "ok",
                )
            )
    events.append(make_event(agent=HOSTILE, team="x" * 200, cost_usd="1", session="run-0"))
    events.append(make_event(model="unheard-of", provider="nobody", team=TEAM))
    send(account, events)
    finish_jobs()
    api = caller(account)
    today = now.date().isoformat()
    api.post("/v1/unit-counts", {"name": "tickets solved", "day": today, "count": 4})
    api.post("/v1/annotations", {"text": HOSTILE})


def _limits(account: Account, owner: Client) -> dict[str, object]:
    everything = make_budget(
        account, name="Everything", cost_usd=2, levels=[(70, "none"), (100, "block")]
    )
    make_budget(account, name=HOSTILE, per=["agent"], match={"team": TEAM}, period="day")
    waiting = make_raise(account, everything, agent=None, reason=HOSTILE)
    made = make_halt(account, agent="someone-else")
    breaker = make_breaker(account)
    record(account, {}, {"dimensions": {"agent": HOSTILE, "session": "run-0"}})
    post(owner, fill(owner), "/budgets/preview")
    run_simulations()
    with account.scope():
        previewed = Simulation.objects.latest("id")
    return {
        "budget_id": everything.id,
        "raise_id": waiting.id,
        "halt_id": made.id,
        "breaker_id": breaker.id,
        "kind": "breakers",
        "rule_id": breaker.id,
        "simulation_id": previewed.id,
    }


def _alerts(account: Account) -> dict[str, object]:
    channel = make_channel(account, "slack")
    incident = make_incident(account, title=HOSTILE, match={"team": TEAM, "agent": HOSTILE})
    delivery = delivery_of(account)
    with account.scope():
        tested = send_test(channel=channel, actor="tests")
    return {
        "channel_id": channel.id,
        "incident_id": incident.id,
        "delivery_id": delivery.id,
        "test_state": tested.id,
    }


def _settings(account: Account, owner: Client) -> dict[str, object]:
    price = make_price(account)
    window = make_window(account)
    owner.post("/reports/views/save", {"name": "Mine", "query": "", "readers": "tenant"})
    with account.scope():
        user = User.objects.get(email=account.email)
        member = user.memberships.get(tenant=account.tenant)
        invited = invite(
            tenant=account.tenant,
            email="new@example.com",
            role=Role.VIEWER,
            actor="tests",
            actor_role=Role.OWNER,
        )
    return {
        "member_id": member.id,
        "team_id": make_team(account).id,
        "price_id": price.id,
        "window_id": window.id,
        "invitation": invited.token,
        "invitation_id": invited.invitation.id,
        "session": "run-1",
        "trace": "trace-1",
        "source": "tests",
        "sent_id": "call-1-1",
        "new_password": make_reset_token(user),
    }
