"""Incidents: one for a cause as long as it lasts, whoever looks and however often."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.core.exceptions import ValidationError
from django.db import connection

from alerts import incidents
from alerts.errors import IncidentResolved
from alerts.incidents import end, observe
from alerts.models import Incident, Severity
from alerts.settings import change_alert_settings
from tenants.models import User
from tests.alerts.scene import make_channel, seen, timeline, told
from tests.factories import Account

START = datetime(2026, 11, 20, 12, tzinfo=UTC)


def open_one(account: Account, **fields: Any) -> Incident:
    with account.scope():
        return observe(tenant_id=account.tenant.id, observation=seen(**fields))


def test_a_cause_that_goes_on_is_one_incident_told_once(account: Account) -> None:
    make_channel(account)
    with time_machine.travel(START, tick=False) as clock:
        for _ in range(24):
            open_one(account)
            clock.shift(timedelta(minutes=15))
        with account.scope():
            ended = end(tenant_id=account.tenant.id, cause="anomaly:agent=a", summary="Over.")
            (incident,) = Incident.objects.all()
            assert incident == ended
            assert (incident.observations, incident.summary) == (24, "Over.")
            assert (incident.resolved_by, incident.status) == ("", "resolved")
            assert timeline(incident) == ["opened", "notified", "resolved"]
            assert [row[1] for row in told(account)] == ["opened", "resolved"]


def test_many_that_observe_at_once_open_one_incident(account: Account) -> None:
    barrier = threading.Barrier(8)

    def run() -> None:
        try:
            barrier.wait()
            open_one(account)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with account.scope():
        (incident,) = Incident.objects.all()
        assert incident.observations == 8
        assert timeline(incident).count("opened") == 1


def test_what_becomes_more_severe_is_told_again_and_never_becomes_less(account: Account) -> None:
    make_channel(account)
    open_one(account)
    open_one(account, severity=Severity.CRITICAL)
    incident = open_one(account, severity=Severity.INFO)
    with account.scope():
        assert incident.severity == Severity.CRITICAL
        assert [row[1] for row in told(account)] == ["opened", "escalated"]
        assert timeline(incident) == ["opened", "notified", "escalated", "notified"]


def test_what_comes_again_within_the_cool_down_is_the_same_incident_and_told_if_it_stays(
    account: Account,
) -> None:
    make_channel(account)
    with time_machine.travel(START, tick=False) as clock:
        first = open_one(account)
        clock.shift(timedelta(minutes=5))
        with account.scope():
            end(tenant_id=account.tenant.id, cause=first.cause)
        clock.shift(timedelta(minutes=5))
        again = open_one(account)
        with account.scope():
            assert again.id == first.id
            assert told(account)[2:] == [("webhook channel", "opened", "waiting", "cool-down")]
            # It comes and goes: nobody hears more than that it was over.
            end(tenant_id=account.tenant.id, cause=first.cause)
            assert [row[1:3] for row in told(account)] == [
                ("opened", "waiting"),
                ("resolved", "waiting"),
                ("opened", "superseded"),
            ]
        clock.shift(timedelta(minutes=20))
        later = open_one(account)
        with account.scope():
            assert later.id != first.id
            assert told(account)[3] == ("webhook channel", "opened", "waiting", "")


def test_the_cool_down_is_the_tenants_to_choose(account: Account) -> None:
    with account.scope():
        change_alert_settings(
            tenant=account.tenant, actor="tests", changes={"cool_down_seconds": 0}
        )
        first = observe(tenant_id=account.tenant.id, observation=seen())
        end(tenant_id=account.tenant.id, cause=first.cause)
        again = observe(tenant_id=account.tenant.id, observation=seen())
        assert again.id != first.id


def test_what_a_person_resolved_stays_quiet_until_the_cause_has_rested(account: Account) -> None:
    with time_machine.travel(START, tick=False) as clock:
        first = open_one(account)
        with account.scope():
            incidents.resolve(incident=first, actor="ann@example.com", text="Known.")
        for _ in range(5):
            clock.shift(timedelta(minutes=10))
            assert open_one(account).id == first.id
        clock.shift(timedelta(minutes=16))
        assert open_one(account).id != first.id
        with account.scope():
            assert timeline(first)[-1] == "resolved"
            assert Incident.objects.get(id=first.id).status == "resolved"


def test_a_second_click_changes_nothing(account: Account) -> None:
    make_channel(account, "pagerduty")
    incident = open_one(account, severity=Severity.CRITICAL)
    with account.scope():
        for _ in range(2):
            incidents.acknowledge(incident=incident, actor="ann@example.com")
        for _ in range(2):
            resolved = incidents.resolve(incident=incident, actor="ann@example.com")
        assert resolved.acknowledged_by == resolved.resolved_by == "ann@example.com"
        assert timeline(incident) == ["opened", "notified", "acknowledged", "resolved"]
        assert [row[1] for row in told(account)] == ["opened", "acknowledged", "resolved"]
        with pytest.raises(IncidentResolved):
            incidents.acknowledge(incident=incident, actor="ann@example.com")
        incidents.comment(incident=incident, actor="ann@example.com", text="It was the cron job.")
        assert timeline(incident)[-1] == "commented"


def test_snoozed_it_is_not_told_unless_it_becomes_critical_and_told_again_afterwards(
    account: Account,
) -> None:
    make_channel(account)
    with time_machine.travel(START, tick=False) as clock:
        incident = open_one(account, severity=Severity.INFO)
        with account.scope():
            until = START + timedelta(hours=1)
            incidents.snooze(incident=incident, actor="ann@example.com", until=until)
            for wrong in (START, START + timedelta(days=91)):
                with pytest.raises(ValidationError):
                    incidents.snooze(incident=incident, actor="ann@example.com", until=wrong)
        open_one(account, severity=Severity.WARNING)
        with account.scope():
            assert [row[1] for row in told(account)] == ["opened"]
        open_one(account, severity=Severity.CRITICAL)
        clock.shift(timedelta(hours=1))
        with account.scope():
            assert incidents.end_snoozes(tenant_id=account.tenant.id, now=until) == 1
            assert [row[1] for row in told(account)] == ["opened", "escalated", "updated"]
            assert incidents.end_snoozes(tenant_id=account.tenant.id, now=until) == 0


def test_of_many_that_wake_at_once_each_turn_tells_some(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incidents, "SNOOZES_ENDED_MAX", 2)
    until = datetime.now(UTC) + timedelta(hours=1)
    for agent in "abc":
        each = open_one(account, cause=f"anomaly:agent={agent}")
        with account.scope():
            incidents.snooze(incident=each, actor="ann@example.com", until=until)
    with account.scope():
        woken = [incidents.end_snoozes(tenant_id=account.tenant.id, now=until) for _ in range(3)]
    assert woken == [2, 1, 0]


def test_only_members_can_have_an_incident(account: Account, stranger: Account) -> None:
    incident = open_one(account)
    with account.scope():
        with pytest.raises(ValidationError):
            incidents.assign(
                incident=incident, actor="tests", user=User.objects.get(email=stranger.email)
            )
        owner = User.objects.get(email=account.email)
        assert incidents.assign(incident=incident, actor="tests", user=owner).assigned_to == owner
        assert incidents.assign(incident=incident, actor="tests", user=None).assigned_to is None
