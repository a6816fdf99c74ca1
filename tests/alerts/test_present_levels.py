"""Incidents of levels say what is true now: they end for their reason, and are told again."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from alerts.crossings import end_crossings, take_crossings
from alerts.incidents import resolve
from alerts.models import Incident, Severity
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import update_budget
from metering.intake.corrections import correct_event
from metering.jobs.tasks import age_rolling_windows
from metering.limits.limit_increases import Added, IncreaseAsk, approve_increase, ask_for_increase
from metering.models import Budget
from tests.alerts.scene import make_channel, timeline, told
from tests.factories import NANOS, Account, make_budget, make_event, send

LEVELS = [(70, "none"), (100, "block")]


@pytest.fixture
def budget(account: Account) -> Budget:
    """One dollar a month, told on a webhook."""
    make_channel(account, severities=["warning", "critical"])
    return make_budget(account, name="Monthly", cost_usd=1, levels=LEVELS)


def spend(account: Account, usd: str, **fields: object) -> None:
    send(account, [make_event(cost_usd=usd, **fields)])


def work(account: Account) -> Incident:
    """What the workers do; the newest incident after it."""
    now = datetime.now(UTC)
    with account.scope():
        take_crossings(tenant_id=account.tenant.id)
        end_crossings(tenant_id=account.tenant.id, now=now)
        return Incident.objects.order_by("-id")[0]


def change(account: Account, budget: Budget, usd: str) -> None:
    nanos = int(float(usd) * NANOS)
    with account.scope():
        update_budget(budget=budget, actor="ann", changes={"limit_cost_nanos": nanos})


def events(account: Account) -> list[str]:
    with account.scope():
        return [row[1] for row in told(account)]


def test_a_limit_that_was_raised_ends_the_incident_and_is_told_when_it_is_reached_again(
    account: Account, budget: Budget
) -> None:
    spend(account, "1.1")
    first = work(account)
    assert first.summary.startswith("110% of the limit used: $1.10 of $1.00 since ")
    change(account, budget, "10")
    ended = work(account)
    assert ended.id == first.id
    assert ended.resolved_at is not None
    assert ended.summary == "The limit was raised. 11% of the limit used: $1.10 of $10.00."
    spend(account, "9.5")
    second = work(account)
    assert second.id != first.id
    assert (second.severity, second.excess_nanos) == (Severity.CRITICAL, 6 * NANOS // 10)
    assert second.summary.startswith("106% of the limit used: $10.60 of $10.00 since ")
    # At once: a person has changed something, so this is no flapping.
    with account.scope():
        assert told(account)[-1][1:] == ("opened", "waiting", "")
    assert events(account) == ["opened", "resolved", "opened"]


def test_a_level_is_told_again_within_an_incident_that_a_lower_level_keeps_open(
    account: Account, budget: Budget
) -> None:
    spend(account, "1.1")
    work(account)
    change(account, budget, "1.5")
    fallen = work(account)
    assert fallen.resolved_at is None
    assert fallen.title == "Budget 'Monthly' reached 70%"
    assert (fallen.severity, fallen.excess_nanos) == (Severity.WARNING, 0)
    assert fallen.summary.startswith("73% of the limit used: $1.10 of $1.50 since ")
    assert "Calls continue." in fallen.summary
    with account.scope():
        assert timeline(fallen)[-1] == "updated"
    spend(account, "0.4")
    again = work(account)
    assert (again.id, again.severity) == (fallen.id, Severity.CRITICAL)
    assert events(account) == ["opened", "escalated"]


def test_an_incident_says_the_figures_of_now(account: Account, budget: Budget) -> None:
    spend(account, "0.8")
    opened = work(account)
    spend(account, "0.15")
    now = work(account)
    assert now.id == opened.id
    assert now.summary.startswith("95% of the limit used: $0.95 of $1.00 since ")
    assert (now.facts["spent_nanos"], now.facts["used_percent"]) == (950_000_000, 95.0)
    with account.scope():
        assert timeline(now) == ["opened", "notified"]
    assert now.seen_at == opened.seen_at


def test_what_a_person_has_resolved_is_told_again_when_it_is_reached_anew_or_gets_worse(
    account: Account, budget: Budget
) -> None:
    spend(account, "0.8")
    for usd, limit in (("0.3", None), ("9", "10")):
        incident = work(account)
        with account.scope():
            resolve(incident=incident, actor="ann")
        if limit:
            change(account, budget, limit)
        spend(account, usd)
        assert work(account).id > incident.id
    assert events(account) == ["opened", "resolved", "opened", "resolved", "opened"]


@pytest.mark.parametrize("by", ["increase", "void"])
def test_an_incident_ends_for_its_reason(account: Account, budget: Budget, by: str) -> None:
    spend(account, "1.1", id="dear")
    opened = work(account)
    with account.scope():
        if by == "increase":
            ask = IncreaseAsk(
                Added(cost_nanos=NANOS), "release day", datetime.now(UTC) + timedelta(hours=1)
            )
            approve_increase(
                limit_increase=ask_for_increase(budget=budget, actor="agent", ask=ask), actor="ann"
            )
    if by == "void":
        correct_event(
            tenant_id=account.tenant.id,
            source="tests",
            sent_id="dear",
            replacement=None,
            reason="wrong",
            actor="ann",
        )
    ended = work(account)
    assert ended.id == opened.id
    assert ended.resolved_at is not None
    assert (
        ended.summary
        == {
            "increase": "A limit increase was approved. 55% of the limit used: $1.10 of $2.00.",
            "void": "Spend was corrected. 0% of the limit used: $0 of $1.00.",
        }[by]
    )
    spend(account, "2")
    again = work(account)
    assert (again.id != opened.id, again.resolved_at) == (True, None)
    assert events(account) == ["opened", "resolved", "opened"]


def test_a_rolling_window_that_hovers_at_a_level_is_told_once_within_the_cool_down(
    account: Account,
) -> None:
    make_channel(account, severities=["warning", "critical"])
    noon = datetime.now(UTC).replace(second=0, microsecond=0)
    levels = [(70, "none"), (90, "none"), (100, "block")]
    with time_machine.travel(noon - timedelta(minutes=59), tick=False):
        make_budget(account, cost_usd=10, period="hour", is_rolling=True, levels=levels)
        spend(account, "0.6", time=...)
    with time_machine.travel(noon, tick=False):
        spend(account, "9.5", time=...)
        assert work(account).title.endswith("reached 100%")
    for minutes in range(2, 8, 2):
        with time_machine.travel(noon + timedelta(minutes=minutes), tick=False):
            age_rolling_windows()
            incident = work(account)
            assert incident.resolved_at is None
            # What is still reached is no news, and neither is what was told just now.
            spend(account, "0.6" if minutes < 6 else "0.01", time=...)
            work(account)
    assert events(account) == ["opened"]


def test_levels_are_told_by_the_part_that_reached_them(account: Account) -> None:
    make_budget(account, cost_usd=5, limit_tokens=1000, levels=LEVELS)
    spend(account, "0.1")
    assert work(account).summary.startswith("110% of the limit used: 1,100 of 1,000 tokens since ")


def test_a_budget_that_begins_to_act_is_told_anew(account: Account) -> None:
    make_channel(account, severities=["warning", "critical"])
    budget = make_budget(account, cost_usd=1, mode="warn", levels=LEVELS)
    spend(account, "2")
    assert work(account).severity == Severity.WARNING
    with account.scope():
        update_budget(budget=budget, actor="ann", changes={"mode": "enforce"})
    assert work(account).severity == Severity.CRITICAL
    with account.scope():
        levels = [LevelRule(100, "none", ())]
        update_budget(budget=budget, actor="ann", changes={}, levels=levels)
    assert work(account).severity == Severity.WARNING
    assert events(account) == ["opened", "escalated", "updated"]
