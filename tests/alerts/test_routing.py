"""Who hears of an incident, and when."""

from datetime import UTC, datetime, time, timedelta

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alerts import incidents
from alerts.digests import gather_held, write_digests
from alerts.incidents import end, observe
from alerts.messages import decode
from alerts.models import Delivery, DeliveryEvent, Incident, IncidentKind, Severity
from alerts.routing import BURST_DELIVERIES
from alerts.settings import change_alert_settings, create_maintenance_window, end_maintenance_window
from alerts.tasks import end_incidents
from tenants.settings import change_settings
from tests.alerts.scene import make_channel, seen, timeline, told
from tests.factories import Account

NIGHT = datetime(2026, 11, 20, 23, tzinfo=UTC)
MORNING = datetime(2026, 11, 21, 7, tzinfo=UTC)


@pytest.fixture
def sleeper(account: Account) -> Account:
    """A tenant with quiet hours from ten to seven, and a chat and a pager."""
    make_channel(account, "slack", name="chat")
    make_channel(account, "pagerduty", name="pager")
    with account.scope():
        change_alert_settings(
            tenant=account.tenant,
            actor="tests",
            changes={"quiet_from": time(22), "quiet_until": time(7)},
        )
    return account


def test_each_severity_goes_to_the_channels_that_take_it(account: Account) -> None:
    make_channel(account, "slack", name="chat")
    make_channel(account, "pagerduty", name="pager")
    make_channel(account, "webhook", name="machine")
    with account.scope():
        for severity in Severity.values:
            observe(
                tenant_id=account.tenant.id, observation=seen(f"c:{severity}", severity=severity)
            )
        heard = {
            severity: [
                delivery.channel.name
                for delivery in Delivery.objects.filter(severity=severity).order_by("id")
                if delivery.channel
            ]
            for severity in Severity.values
        }
    assert heard == {
        "info": ["machine"],
        "warning": ["chat", "machine"],
        "critical": ["chat", "pager", "machine"],
    }


def test_nobody_to_tell_is_said_in_the_timeline(account: Account) -> None:
    with account.scope():
        incident = observe(tenant_id=account.tenant.id, observation=seen())
        assert timeline(incident) == ["opened", "not_notified"]
        last = incident.entries.order_by("-id")[0]
    assert last.text == "No channel takes what is warning, and no contact can be reached."


def test_a_named_contact_hears_whatever_the_severity_and_others_do_not(account: Account) -> None:
    make_channel(account, "pagerduty", name="finance pager", contacts=["finance"])
    make_channel(account, "slack", name="engineers", contacts=["engineering"])
    make_channel(account, "slack", name="everything")
    with account.scope():
        named = seen("budget:1", contacts=("finance",))
        observe(tenant_id=account.tenant.id, observation=named)
        assert [row[0] for row in told(account)] == ["finance pager", "everything"]
        observe(tenant_id=account.tenant.id, observation=seen("budget:2", contacts=()))
        assert [row[0] for row in told(account)[2:]] == ["everything"]
        # An anomaly names nobody, and goes by severity alone.
        observe(tenant_id=account.tenant.id, observation=seen("anomaly:2"))
        assert [row[0] for row in told(account)[3:]] == ["engineers", "everything"]


def test_what_is_critical_wakes_people_and_the_rest_leaves_in_the_morning_as_one(
    sleeper: Account,
) -> None:
    with time_machine.travel(NIGHT, tick=False) as clock, sleeper.scope():
        tenant_id = sleeper.tenant.id
        observe(tenant_id=tenant_id, observation=seen("c:1", severity=Severity.CRITICAL))
        for number in range(3):
            observe(tenant_id=tenant_id, observation=seen(f"w:{number}", title=f"W {number}"))
        end(tenant_id=tenant_id, cause="w:1")
        held = ("chat", "opened", "waiting", "quiet hours")
        assert told(sleeper) == [
            ("chat", "opened", "waiting", ""),
            ("pager", "opened", "waiting", ""),
            held,
            ("chat", "opened", "superseded", "quiet hours"),
            held,
            ("chat", "resolved", "waiting", "quiet hours"),
        ]
        due = set(Delivery.objects.exclude(held_by="").values_list("due_at", flat=True))
        assert due == {MORNING}
        assert gather_held(tenant_id=tenant_id, now=NIGHT) == 0
        clock.move_to(MORNING)
        assert gather_held(tenant_id=tenant_id, now=MORNING) == 3
        digest = Delivery.objects.get(event=DeliveryEvent.DIGEST)
        message = decode(digest.message)
        assert message.title == "3 incidents that were held back"
        assert [(line.title, line.status) for line in message.lines] == [
            ("W 0", "opened"),
            ("W 2", "opened"),
            ("W 1", "resolved"),
        ]
        assert gather_held(tenant_id=tenant_id, now=MORNING) == 0


def test_a_page_at_night_is_resolved_at_night(sleeper: Account) -> None:
    with time_machine.travel(NIGHT, tick=False), sleeper.scope():
        critical = seen("c", severity=Severity.CRITICAL)
        incident = observe(tenant_id=sleeper.tenant.id, observation=critical)
        incidents.acknowledge(incident=incident, actor="ann@example.com")
        end(tenant_id=sleeper.tenant.id, cause="c")
        assert [(row[0], row[1], row[3]) for row in told(sleeper)] == [
            ("chat", "opened", ""),
            ("pager", "opened", ""),
            ("chat", "acknowledged", ""),
            ("pager", "acknowledged", ""),
            ("chat", "resolved", ""),
            ("pager", "resolved", ""),
        ]


def test_a_held_message_that_cannot_be_read_keeps_no_other_waiting(sleeper: Account) -> None:
    with sleeper.scope():
        with time_machine.travel(NIGHT, tick=False):
            for cause in ("one", "two"):
                observe(tenant_id=sleeper.tenant.id, observation=seen(cause))
        first = Delivery.objects.order_by("id")[0]
        Delivery.objects.filter(id=first.id).update(message={"of": "another release"})
        assert gather_held(tenant_id=sleeper.tenant.id, now=MORNING) == 0
        assert set(Delivery.objects.values_list("state", "held_by")) == {("waiting", "")}


def test_quiet_hours_are_the_tenants_own(sleeper: Account) -> None:
    with sleeper.scope():
        change_settings(
            tenant=sleeper.tenant, actor="tests", changes={"timezone": "America/New_York"}
        )
        with time_machine.travel(NIGHT, tick=False):  # six in the evening there
            observe(tenant_id=sleeper.tenant.id, observation=seen())
        assert told(sleeper) == [("chat", "opened", "waiting", "")]


def test_maintenance_holds_what_it_covers_and_lets_go_when_it_ends_early(account: Account) -> None:
    make_channel(account, "slack", name="chat")
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    with time_machine.travel(now, tick=False), account.scope():
        window = create_maintenance_window(
            tenant=account.tenant,
            actor="tests",
            starts_at=now,
            ends_at=now + timedelta(hours=2),
            match={"agent": "a"},
            reason="Load test",
        )
        observe(tenant_id=account.tenant.id, observation=seen("one"))
        other = seen("two", match={"agent": "b"})
        observe(tenant_id=account.tenant.id, observation=other)
        critical = seen("three", severity=Severity.CRITICAL)
        observe(tenant_id=account.tenant.id, observation=critical)
        assert [row[3] for row in told(account)] == ["maintenance", "", ""]
        end_maintenance_window(window=window, actor="tests")
        assert Delivery.objects.order_by("id")[0].due_at == now


def test_a_storm_is_told_together(account: Account) -> None:
    make_channel(account, "slack", name="chat")
    make_channel(account, "webhook", name="machine")
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    with time_machine.travel(now, tick=False), account.scope():
        for number in range(BURST_DELIVERIES + 5):
            observe(tenant_id=account.tenant.id, observation=seen(f"c:{number}"))
        rows = told(account)
        assert [row[3] for row in rows if row[0] == "chat"] == [""] * BURST_DELIVERIES + [
            "burst"
        ] * 5
        assert {row[3] for row in rows if row[0] == "machine"} == {""}
        later = now + timedelta(minutes=5)
        assert gather_held(tenant_id=account.tenant.id, now=later) == 5


def test_a_digest_tells_what_opened_since_the_last_one_and_nothing_twice(account: Account) -> None:
    created = datetime(2026, 11, 20, 6, tzinfo=UTC)
    with time_machine.travel(created, tick=False):
        make_channel(account, "slack", name="chat", severities=["critical"], digest="daily")
    with account.scope():
        with time_machine.travel(created + timedelta(hours=1), tick=False):
            observe(tenant_id=account.tenant.id, observation=seen())
        tenant_id = account.tenant.id
        eight = datetime(2026, 11, 20, 8, tzinfo=UTC)
        assert write_digests(tenant_id=tenant_id, now=eight - timedelta(seconds=1)) == 0
        assert write_digests(tenant_id=tenant_id, now=eight) == 1
        assert write_digests(tenant_id=tenant_id, now=eight + timedelta(minutes=5)) == 0
        # Nothing happened since: no message.
        assert write_digests(tenant_id=tenant_id, now=eight + timedelta(days=1)) == 1
        (message,) = [decode(delivery.message) for delivery in Delivery.objects.all()]
    assert (message.title, len(message.lines)) == ("1 incident since Nov 20, 6:00 AM UTC", 1)
    assert message.summary == "Unresolved now, older ones among them: 1."


def test_digests_are_written_a_few_a_transaction_and_find_incidents_by_their_time(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.digests.DIGESTS_MAX", 2)
    created = datetime(2026, 11, 20, 6, tzinfo=UTC)
    with time_machine.travel(created, tick=False) as clock:
        for number in range(5):
            make_channel(account, "slack", name=f"chat {number}", severities=[], digest="hourly")
        clock.shift(timedelta(minutes=1))
        with account.scope():
            observe(tenant_id=account.tenant.id, observation=seen())
        clock.shift(timedelta(hours=1))
        with CaptureQueriesContext(connection) as queries:
            end_incidents()
    with account.scope(), connection.cursor() as cursor:
        assert Delivery.objects.filter(event=DeliveryEvent.DIGEST).count() == 5
        counted = [q["sql"] for q in queries if "COUNT(*)" in q["sql"] and "opened_at" in q["sql"]]
        assert len(counted) == 5
        Incident.objects.bulk_create(
            Incident(
                tenant=account.tenant,
                kind=IncidentKind.RULE,
                severity=Severity.INFO,
                cause=f"old {number}",
                opened_at=old,
                resolved_at=old,
            )
            for number in range(3_000)
            for old in [created - timedelta(hours=number)]
        )
        cursor.execute("ANALYZE incident")
        cursor.execute(f"EXPLAIN {counted[0]}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    locked = [query["sql"] for query in queries if "hourly" in query["sql"]]
    assert sum("SKIP LOCKED" in statement for statement in locked) == 4, locked  # 2, 2, 1, none
    assert "incident_by_begin" in plan
    assert "incident_by_end" in plan


def test_a_digest_lists_the_most_severe_and_counts_all(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.digests.LINES_MAX", 2)
    created = datetime(2026, 11, 20, 6, tzinfo=UTC)
    with account.scope(), time_machine.travel(created, tick=False) as clock:
        make_channel(account, "slack", name="chat", severities=[], digest="hourly")
        clock.shift(timedelta(minutes=1))
        for severity in (Severity.CRITICAL, Severity.INFO, Severity.WARNING):
            observe(tenant_id=account.tenant.id, observation=seen(severity, severity=severity))
        write_digests(tenant_id=account.tenant.id, now=created + timedelta(hours=1))
        message = decode(Delivery.objects.get(event=DeliveryEvent.DIGEST).message)
    assert message.title == "3 incidents since Nov 20, 6:00 AM UTC"
    assert [line.severity for line in message.lines] == ["critical", "warning"]
    assert message.summary.endswith(" 1 more are on the page.")
