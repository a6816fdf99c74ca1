"""Rules are judged by what was used, open one incident each, and end when they are not met."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alerts import rule_checks, rules
from alerts.incidents import resolve
from alerts.models import EntryKind, Incident, ScanProgress
from alerts.rule_checks import judge_rules, tenants_to_judge
from alerts.scans import scan_tenant
from alerts.settings import change_alert_settings
from metering.core.periods import floor_seconds
from metering.models import BudgetWindow
from tenants.scope import platform_scope
from tests.alerts.test_scans import RESEARCH, SUPPORT, USUAL, spend
from tests.alerts.usage_history import QUARTER, write_usage
from tests.factories import NANOS, Account, make_budget, make_event, send
from tests.metering.rollups.test_batches import roll_everything_up

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("forgotten_history"),
]
DAY = timedelta(days=1)


@pytest.fixture
def begun() -> datetime:
    """The begin of a quarter, half a day ago."""
    return floor_seconds(datetime.now(UTC) - timedelta(hours=12), 900)


def judge(account: Account, now: datetime | None = None) -> int:
    with account.scope():
        return judge_rules(tenant_id=account.tenant.id, now=now or datetime.now(UTC))


def only(account: Account, **changes: object) -> None:
    """Let one rule be on, the first that is named, as it is changed."""
    (name,) = changes
    off = {other: {"on": False} for other in rules.RULES if other != name}
    with account.scope():
        change_alert_settings(
            tenant=account.tenant, actor="tests", changes={"rules": {**off, **changes}}
        )


def standing(account: Account) -> list[Incident]:
    with account.scope():
        return list(Incident.objects.filter(resolved_at=None).order_by("id"))


def test_one_request_far_above_its_average_is_told_and_rests(account: Account) -> None:
    only(account, costly_request={})
    send(account, [make_event(agent="research", feature="email") for _ in range(30)])
    roll_everything_up(account)
    assert judge(account) == 0
    costly = make_event(agent="research", feature="email", input_tokens=200_000, session="s-1")
    send(account, [costly])
    assert judge(account) == 1
    (incident,) = standing(account)
    assert incident.title == "One request of agent 'research' cost $0.602"
    assert incident.summary.startswith("That is 1")
    assert f"It is event '{costly['id']}' of 'tests' in session 's-1'." in incident.summary
    assert incident.match == {
        "agent": "research",
        "feature": "email",
        "model": "claude-sonnet-4-5",
    }
    assert incident.facts["cost_nanos"] == 601_500_000
    assert incident.severity == "info"
    # Seen twice it is the same; without another one it is over after a while.
    judge(account)
    assert [each.id for each in standing(account)] == [incident.id]
    judge(account, datetime.now(UTC) + timedelta(minutes=2))
    judge(account, datetime.now(UTC) + timedelta(minutes=70))
    assert standing(account) == []


def test_a_quarter_with_costly_requests_is_told_by_agent(account: Account, begun: datetime) -> None:
    only(account, costly_quarter={"severity": "warning"})
    write_usage(account, USUAL, starts_at=begun - 96 * QUARTER, quarters=96)
    spend(account, RESEARCH, begun, usd=6, calls=12)
    spend(account, SUPPORT, begun, usd=6, calls=10)
    assert judge(account, begun + timedelta(minutes=2)) == 1
    (incident,) = standing(account)
    assert incident.match == {"agent": "research"}
    assert incident.severity == "warning"
    assert incident.facts["average_nanos"] == NANOS // 2
    # What the events of another quarter cost has nothing to do with this one.
    judge(account, begun + timedelta(minutes=31))
    assert standing(account) == []


def test_an_hour_above_its_multiple_of_the_usual_is_told_and_ends(
    account: Account, begun: datetime
) -> None:
    only(account, hourly_spend={})
    write_usage(account, USUAL, starts_at=begun - 96 * QUARTER, quarters=96)
    assert judge(account, begun) == 0
    spend(account, RESEARCH, begun, usd=20)
    assert judge(account, begun + timedelta(minutes=1)) == 1
    (incident,) = standing(account)
    assert incident.title.startswith("An hour cost ")
    assert incident.match == {}
    judge(account, begun + timedelta(hours=1))
    assert standing(account) == []


def test_rules_write_nothing_where_another_worker_was_faster(
    account: Account, begun: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(account, hourly_spend={})
    write_usage(account, USUAL, starts_at=begun - 96 * QUARTER, quarters=96)
    judge(account, begun)
    spend(account, RESEARCH, begun, usd=20)
    tenant_id, now = account.tenant.id, begun + timedelta(minutes=1)
    judge_one = rule_checks._judge

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.undo()
        assert judge_rules(tenant_id=tenant_id, now=now) == 1
        return judge_one(*arguments)

    monkeypatch.setattr(rule_checks, "_judge", overtaken)
    assert judge_rules(tenant_id=tenant_id, now=now) == 0
    assert len(standing(account)) == 1


def test_a_detectors_incident_takes_the_rule_in(account: Account, begun: datetime) -> None:
    only(account, hourly_spend={})
    write_usage(account, USUAL, starts_at=begun - 96 * QUARTER, quarters=96)
    now = begun + timedelta(minutes=1)
    with account.scope():
        scan_tenant(tenant_id=account.tenant.id, now=begun)
    spend(account, RESEARCH, begun, usd=30)
    with account.scope():
        scan_tenant(tenant_id=account.tenant.id, now=now)
    judge(account, now)
    judge(account, now)
    (incident,) = standing(account)
    assert incident.kind == "anomaly"
    with account.scope():
        lines = incident.entries.filter(text__startswith="By the rule hourly_spend as well.")
        assert [line.kind for line in lines] == [EntryKind.UPDATED]
        # The hour still holds what the anomaly cost, and nobody needs to hear of it again.
        resolve(incident=incident, actor="ann@example.com")
    judge(account, now)
    assert standing(account) == []


def test_a_user_near_the_end_of_a_day_is_told_once_and_not_beside_a_level(
    account: Account,
) -> None:
    only(account, user_day_budget={})
    make_budget(account, name="daily", per=["user"], period="day", cost_usd=1)
    make_budget(account, name="team", per=["team"], period="day", cost_usd=1)
    now = datetime.now(UTC).isoformat()
    send(account, [make_event(user="ann", team="a", provider=..., cost_usd="0.93", time=now)])
    send(account, [make_event(user="bob", team="b", provider=..., cost_usd="0.89", time=now)])
    assert judge(account) == 1
    (incident,) = standing(account)
    assert incident.title == "User 'ann' has used 93% of the daily budget 'daily'"
    assert incident.match == {"user": "ann"}
    assert incident.severity == "warning"
    # From the level on, the crossing tells it.
    send(account, [make_event(user="ann", team="a", provider=..., cost_usd="0.10", time=now)])
    assert judge(account) == 0
    assert standing(account) == []


def test_a_feature_that_grew_on_the_week_is_told(account: Account) -> None:
    only(account, feature_week={})
    today = floor_seconds(datetime.now(UTC), 86_400)
    for days, feature, usd in [
        (9, "email", "10"),
        (9, "chat", "10"),
        (2, "email", "20"),
        (2, "chat", "14"),
    ]:
        at = (today - days * DAY).isoformat()
        send(account, [make_event(feature=feature, provider=..., cost_usd=usd, time=at)])
    assert judge(account) == 1
    (incident,) = standing(account)
    assert incident.title == "Feature 'email' cost 100% more than a week before"
    assert incident.match == {"feature": "email"}
    assert incident.excess_nanos == 10 * NANOS
    # Within the hour it stands; turned off it is over.
    judge(account)
    assert len(standing(account)) == 1
    only(account, user_day_budget={})
    judge(account)
    assert standing(account) == []


def test_a_month_that_will_not_last_is_told_before_it_is_over(account: Account) -> None:
    only(account, month_projection={})
    now = datetime.now(UTC)
    budget = make_budget(account, name="month", per=["team"], period="month", cost_usd=100)
    # Ten days are over and 40 or 20 USD spent: 120 or 60 in thirty days.
    for team, usd in (("a", 40), ("b", 20)):
        send(
            account, [make_event(team=team, provider=..., cost_usd=str(usd), time=now.isoformat())]
        )
    starts_at = now - 10 * DAY
    with account.scope():
        BudgetWindow.objects.filter(budget_id=budget.id).update(
            starts_at=starts_at, ends_at=starts_at + 30 * DAY
        )
        assert judge_rules(tenant_id=account.tenant.id, now=now) == 1
    (incident,) = standing(account)
    assert incident.title == "Budget 'month' will be exceeded this month at the present pace"
    assert incident.match == {"team": "a"}
    assert incident.facts["projected_nanos"] == pytest.approx(120 * NANOS, rel=1e-6)
    assert incident.facts["limit_nanos"] == 100 * NANOS
    with account.scope():
        # For the proof that every test ends with.
        span = BudgetWindow.objects.filter(budget_id=budget.id)
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        span.update(starts_at=month, ends_at=(month + 32 * DAY).replace(day=1))


def test_another_tenants_usage_meets_no_rule(account: Account, stranger: Account) -> None:
    send(account, [make_event()])
    make_budget(stranger, per=["user"], period="day", cost_usd=1)
    send(stranger, [make_event(user="ann", provider=..., cost_usd="0.95")])
    assert judge(account) == 0
    assert judge(stranger) == 1
    assert standing(account) == []


def test_tenants_are_judged_after_they_were_scanned(account: Account) -> None:
    def waiting() -> list[int]:
        with platform_scope("see who is to be judged"):
            return tenants_to_judge()

    assert waiting() == []
    assert judge(account) == 0
    send(account, [make_event()])
    now = datetime.now(UTC)
    with account.scope():
        scan_tenant(tenant_id=account.tenant.id, now=now)
    assert waiting() == [account.tenant.id]
    judge(account, now)
    assert waiting() == []
    with account.scope():
        assert ScanProgress.objects.get().judged_at == now
