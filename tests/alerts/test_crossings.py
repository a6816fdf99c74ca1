"""Crossings become incidents of their window, and end with it."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection

from alerts import crossings
from alerts.crossings import (
    CLAIM_CROSSINGS,
    RETRY_FIRST,
    end_crossings,
    take_crossings,
    tenants_with_crossings,
)
from alerts.incidents import end_snoozes, observe, snooze
from alerts.messages import decode
from alerts.models import Delivery, Incident, Severity
from common.formats import format_time
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import archive_budget, create_budget, update_budget
from metering.models import Budget, Crossing
from tenants.claims import ClaimSize
from tenants.scope import platform_scope
from tests.alerts.scene import make_channel, timeline, told
from tests.factories import NANOS, Account, make_budget, make_event, send

LEVELS = [LevelRule(70, "none", ("team_lead",)), LevelRule(100, "block", ("finance",))]


@pytest.fixture
def daily(account: Account) -> Account:
    """A tenant with 10 USD a day for each agent of team growth."""
    with account.scope():
        create_budget(
            tenant=account.tenant,
            actor="tests",
            name="Agents, daily",
            match={"team": "growth"},
            per=["agent"],
            period="day",
            limit_cost_nanos=10 * NANOS,
            levels=LEVELS,
        )
    return account


@pytest.fixture(autouse=True)
def _claims_do_not_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim is smaller after one that took long, as on a busy machine."""
    monkeypatch.setattr(CLAIM_CROSSINGS, "of", lambda _: 500)


def spend(account: Account, usd: str, **fields: object) -> None:
    fields = {"team": "growth", "agent": "researcher", **fields}
    send(account, [make_event(cost_usd=usd, **fields)])


def take(account: Account) -> int:
    with account.scope():
        return take_crossings(tenant_id=account.tenant.id)


def test_levels_of_one_window_are_one_incident_and_each_is_told_to_its_contacts(
    daily: Account,
) -> None:
    make_channel(daily, "slack", name="leads", contacts=["team_lead"])
    make_channel(daily, "pagerduty", name="money", contacts=["finance"])
    spend(daily, "7")
    assert take(daily) == 1
    spend(daily, "3.5")
    assert take(daily) == 1
    assert take(daily) == 0
    with daily.scope():
        (incident,) = Incident.objects.all()
        assert incident.title == "Budget 'Agents, daily' reached 100% for agent 'researcher'"
        assert incident.severity == Severity.CRITICAL
        assert incident.match == {"team": "growth", "agent": "researcher"}
        assert incident.excess_nanos == NANOS // 2
        assert incident.summary.startswith("105% of the limit used: $10.50 of $10.00 since ")
        assert "New calls are refused." in incident.summary
        assert [row[:2] for row in told(daily)] == [("leads", "opened"), ("money", "escalated")]
        assert timeline(incident) == ["opened", "notified", "escalated", "notified"]


def test_who_was_not_told_of_a_level_is_not_told_that_it_goes_on(daily: Account) -> None:
    make_channel(daily, "slack", name="leads", contacts=["team_lead"])
    make_channel(daily, "slack", name="money", contacts=["finance"])
    make_channel(daily, "slack", name="all")
    spend(daily, "7")
    take(daily)
    with daily.scope():
        later = datetime.now(UTC) + timedelta(hours=1)
        snooze(incident=Incident.objects.get(), actor="ann@example.com", until=later)
        end_snoozes(tenant_id=daily.tenant.id, now=later)
        assert [row[:2] for row in told(daily)] == [
            ("leads", "opened"),
            ("all", "opened"),
            ("leads", "updated"),
            ("all", "updated"),
        ]


def test_what_is_used_is_rounded_down_and_what_is_over_is_said_to_be(daily: Account) -> None:
    make_channel(daily, "slack", name="leads", contacts=["team_lead", "finance"])
    spend(daily, "9.99")
    take(daily)
    spend(daily, "0.28")
    take(daily)
    with daily.scope():
        first, second = (decode(delivery.message) for delivery in Delivery.objects.order_by("id"))
    assert first.summary.startswith("99% of the limit used: $9.99 of $10.00 since ")
    assert "Over the limit" not in dict(first.facts)
    assert second.summary.startswith("102% of the limit used: $10.27 of $10.00 since ")
    assert dict(second.facts)["Over the limit"] == "$0.27"


def test_each_group_has_its_own_incident(daily: Account) -> None:
    spend(daily, "7")
    spend(daily, "8", agent="writer")
    assert take(daily) == 2
    with daily.scope():
        assert Incident.objects.count() == 2


def test_two_workers_at_once_tell_of_a_crossing_once(daily: Account) -> None:
    make_channel(daily)
    for number in range(10):
        spend(daily, "11", agent=f"agent-{number}")
    barrier = threading.Barrier(4)
    taken: list[int] = []

    def run() -> None:
        try:
            barrier.wait()
            taken.append(take(daily))
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # All or some of them found that another worker takes the tenant's.
    assert sum(taken) + take(daily) == 20
    with daily.scope():
        assert Incident.objects.count() == Delivery.objects.count() == 10


def test_while_a_worker_takes_crossings_no_other_takes_those_of_the_tenant(
    daily: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would find no incident of a window of which both have a crossing, and notify."""
    make_channel(daily)
    spend(daily, "11")
    monkeypatch.setattr(CLAIM_CROSSINGS, "of", lambda _: 1)
    has_claimed, may_go_on = threading.Event(), threading.Event()

    def wait(**named: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            has_claimed.set()
            assert may_go_on.wait(timeout=120)
        return observe(**named)

    def run() -> None:
        try:
            take(daily)
        finally:
            connection.close()

    with monkeypatch.context() as patched:
        patched.setattr("alerts.crossings.observe", wait)
        thread = threading.Thread(target=run)
        thread.start()
        assert has_claimed.wait(timeout=120)
        assert take(daily) == 0
        may_go_on.set()
        thread.join()
    assert take(daily) == 1


@pytest.mark.parametrize("ways", [(), ("hashagg", "hashjoin", "mergejoin", "sort", "material")])
def test_a_claim_takes_no_more_than_its_size_however_postgresql_plans_it(
    daily: Account, monkeypatch: pytest.MonkeyPatch, ways: Sequence[str]
) -> None:
    spend(daily, "11")
    monkeypatch.setattr(CLAIM_CROSSINGS, "of", lambda _: 1)
    with daily.scope(), connection.cursor() as cursor:
        for way in ways:
            cursor.execute(f"SET LOCAL enable_{way} = off")
        assert [take_crossings(tenant_id=daily.tenant.id) for _ in range(3)] == [1, 1, 0]


def test_a_worker_killed_halfway_leaves_the_crossing_to_the_next(
    daily: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_channel(daily)
    spend(daily, "11")

    def die(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as broken:
        broken.setattr("alerts.routing.encode", die)
        with pytest.raises(SystemExit):
            take(daily)
    with platform_scope("tests"):
        assert tenants_with_crossings() == [daily.tenant.id]
        assert not Incident.objects.exists()
    assert take(daily) == 2
    with daily.scope():
        assert Delivery.objects.count() == 1


def test_a_crossing_is_told_late_when_its_period_is_over_by_then(daily: Account) -> None:
    make_channel(daily)
    spend(daily, "11")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    midnight = tomorrow.replace(hour=0, minute=0, second=0, microsecond=0)
    with time_machine.travel(tomorrow, tick=False), daily.scope():
        assert take_crossings(tenant_id=daily.tenant.id) == 2
        # Late usage of a day that is over is told, too.
        spend(daily, "12", agent="writer", time=(midnight - timedelta(hours=1)).isoformat())
        assert take_crossings(tenant_id=daily.tenant.id) == 2
        assert [row[1] for row in told(daily)] == ["opened", "opened"]
        for incident in Incident.objects.order_by("id"):
            assert incident.summary.startswith(
                f"In the period from {format_time(midnight - timedelta(days=1))}"
                f" to {format_time(midnight)}, which is over, 1"
            )
        end_crossings(tenant_id=daily.tenant.id, now=tomorrow)
        first = Incident.objects.order_by("id")[0]
        assert first.summary == (
            f"The period ended {format_time(midnight)}. 110% of the limit used: $11.00 of $10.00."
        )


def test_a_budget_that_counts_by_something_else_by_now_stops_no_other(daily: Account) -> None:
    spend(daily, "8")
    with daily.scope():
        budget = Budget.objects.get()
        update_budget(budget=budget, actor="tests", changes={"per": ["agent", "user"]})
    spend(daily, "9", user="ada")
    # That of the window before, and one each of those that count now.
    assert take(daily) == 3
    with daily.scope():
        assert [incident.title for incident in Incident.objects.order_by("title")] == [
            "Budget 'Agents, daily' reached 70% for agent 'researcher', no user",
            "Budget 'Agents, daily' reached 70% for agent 'researcher', user 'ada'",
        ]


def test_a_crossing_that_cannot_be_told_stays_and_stops_no_other(daily: Account) -> None:
    spend(daily, "8")
    spend(daily, "8", agent="writer")
    with daily.scope():
        bad = Crossing.objects.order_by("id")[0]
        # As after a fault of the service: nothing that a tenant can cause.
        Crossing.objects.filter(id=bad.id).update(group_key="no list")
    assert take(daily) == 1
    with daily.scope():
        assert [incident.match["agent"] for incident in Incident.objects.all()] == ["writer"]
        failed = Crossing.objects.get(claimed_at=None)
        assert (failed.id, failed.failures) == (bad.id, 1)
        assert failed.retry_at is not None
        assert timedelta(0) < failed.retry_at - datetime.now(UTC) <= RETRY_FIRST
        # Set aside: it does not come again at once, and each failure puts it off for longer.
        assert take_crossings(tenant_id=daily.tenant.id) == 0
        Crossing.objects.update(retry_at=datetime.now(UTC) - timedelta(seconds=1))
        assert take_crossings(tenant_id=daily.tenant.id) == 0
        failed.refresh_from_db()
        assert failed.failures == 2
        assert failed.retry_at > datetime.now(UTC) + RETRY_FIRST
    with platform_scope("tests"):
        assert tenants_with_crossings() == []


def test_what_was_not_tried_yet_goes_before_what_failed(
    daily: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.crossings.CLAIM_CROSSINGS", ClaimSize(least=1, first=1, most=1))
    spend(daily, "8")
    spend(daily, "8", agent="writer")
    with daily.scope():
        bad = Crossing.objects.order_by("id")[0]
        Crossing.objects.filter(id=bad.id).update(group_key="no list")
    assert take(daily) == 0
    with daily.scope():
        Crossing.objects.filter(id=bad.id).update(retry_at=datetime.now(UTC) - timedelta(seconds=1))
    assert take(daily) == 1
    with daily.scope():
        assert [incident.match["agent"] for incident in Incident.objects.all()] == ["writer"]


def test_a_budget_that_only_watches_is_one_incident_of_information(account: Account) -> None:
    make_budget(account, cost_usd=1, mode="shadow", per=["session"], period="lifetime")
    send(account, [make_event(cost_usd="2", session=f"s-{number}") for number in range(3)])
    assert take(account) == 3
    with account.scope():
        (incident,) = Incident.objects.all()
        assert incident.severity == Severity.INFO
        assert "nothing was stopped" in incident.summary


def test_a_window_that_is_over_ends_its_incident(daily: Account) -> None:
    spend(daily, "11")
    take(daily)
    now = datetime.now(UTC)
    with daily.scope():
        tenant_id = daily.tenant.id
        assert end_crossings(tenant_id=tenant_id, now=now) == 0
        with time_machine.travel(now + timedelta(days=1), tick=False):
            assert end_crossings(tenant_id=tenant_id, now=now + timedelta(days=1)) == 1
        (incident,) = Incident.objects.all()
        assert (incident.status, incident.resolved_by) == ("resolved", "")
        assert incident.summary.startswith("The period ended ")


def test_of_many_incidents_each_has_its_turn_to_end(
    daily: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.crossings.CHECKED_MAX", 1)
    for agent in ("a", "b"):
        spend(daily, "8", agent=agent)
    take(daily)
    with daily.scope():
        archive_budget(budget=Budget.objects.get(), actor="tests")
        now = datetime.now(UTC)
        ended = [end_crossings(tenant_id=daily.tenant.id, now=now) for _ in range(3)]
    assert ended == [1, 1, 0]


def test_incidents_are_looked_at_some_at_a_time(
    daily: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.crossings.CLAIM_INCIDENTS", ClaimSize(least=1, first=2, most=2))
    looked_at = []
    end_some = crossings._end_some

    def noted(tenant_id: int, ids: Sequence[int], now: datetime) -> int:
        looked_at.append(len(ids))
        return end_some(tenant_id, ids, now)

    monkeypatch.setattr(crossings, "_end_some", noted)
    for agent in "abc":
        spend(daily, "8", agent=agent)
    take(daily)
    with daily.scope():
        archive_budget(budget=Budget.objects.get(), actor="tests")
    assert end_crossings(tenant_id=daily.tenant.id, now=datetime.now(UTC)) == 3
    assert looked_at == [2, 1]


def test_an_archived_budget_ends_its_incidents(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    send(account, [make_event(cost_usd="2")])
    take(account)
    with account.scope():
        archive_budget(budget=budget, actor="tests")
        assert end_crossings(tenant_id=account.tenant.id, now=datetime.now(UTC)) == 1


def test_single_calls_above_their_limit_are_one_incident_and_one_message_a_level(
    account: Account,
) -> None:
    make_channel(account)
    levels = [(70, "none"), (100, "block")]
    make_budget(account, levels=levels, cost_usd=1, per=["request"], period="lifetime")
    for cost_usd in ("0.8", "2", "0.8", "2"):
        send(account, [make_event(cost_usd=cost_usd) for _ in range(3)])
        take(account)
    with account.scope():
        (incident,) = Incident.objects.all()
        assert incident.observations == 12
        assert timeline(incident) == ["opened", "notified", "escalated", "notified"]
        assert [row[1] for row in told(account)] == ["opened", "escalated"]
