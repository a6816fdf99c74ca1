"""Scans find what is unusual within moments of its data, and make one incident of each cause."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from alerts import anomaly_groups, scans
from alerts.anomaly_groups import ScanResult
from alerts.findings import take_pattern, with_overlaps
from alerts.incidents import observe
from alerts.messages import outside
from alerts.models import Anomaly, EntryKind, Incident, ScanProgress, SeriesState
from alerts.scans import scan_tenant, tenants_to_scan
from alerts.series import SeriesKey
from alerts.settings import change_alert_settings
from common.json_bodies import JsonObject
from metering.core.periods import floor_seconds
from metering.limits.limit_reductions import read_limit_reductions
from tenants.claims import ClaimSize
from tenants.scope import platform_scope
from tests.alerts.scene import seen
from tests.alerts.usage_history import QUARTER, Stream, write_usage
from tests.factories import NANOS, Account, make_event, send
from tests.metering.rollups.test_batches import roll_everything_up

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("forgotten_history"),
]

CENT = NANOS // 100
RESEARCH = Stream("growth", "research", "email", "acme", "gpt-4o", 40, CENT)
SUPPORT = Stream("care", "support", "chat", "globex", "claude-sonnet-4-5", 60, CENT)
USUAL = [RESEARCH, SUPPORT]
HISTORY_QUARTERS = 96


@pytest.fixture
def begun() -> datetime:
    """The begin of a quarter, half a day ago: what a test calls now comes after it."""
    return floor_seconds(datetime.now(UTC) - timedelta(hours=12), 900)


@pytest.fixture
def used(account: Account, begun: datetime) -> Account:
    """A tenant with three days of two agents, scanned up to the quarter that begins at `begun`."""
    write_usage(
        account, USUAL, starts_at=begun - HISTORY_QUARTERS * QUARTER, quarters=HISTORY_QUARTERS
    )
    scan(account, begun)
    return account


def scan(account: Account, now: datetime) -> int:
    with account.scope():
        return scan_tenant(tenant_id=account.tenant.id, now=now)


def incidents_of(account: Account) -> list[Incident]:
    with account.scope():
        return list(Incident.objects.filter(tenant=account.tenant).order_by("id"))


def anomalies_of(account: Account, **fields: object) -> set[tuple[str, str, str]]:
    with account.scope():
        return set(
            Anomaly.objects.filter(tenant=account.tenant, **fields).values_list(
                "dimension", "value", "measure"
            )
        )


def told(account: Account, incident: Incident) -> list[str]:
    with account.scope():
        return list(incident.entries.order_by("id").values_list("kind", flat=True))


def spend(
    account: Account, stream: Stream, at: datetime, *, usd: int | Decimal, calls: int = 20
) -> None:
    """Calls that cost so much together, as a client reports them."""
    send(
        account,
        [
            make_event(
                time=at.isoformat(),
                team=stream.team,
                agent=stream.agent,
                feature=stream.feature,
                customer=stream.customer,
                model=stream.model,
                provider=...,
                cost_usd=str(usd / calls),
            )
            for _ in range(calls)
        ],
    )


def test_a_tenant_without_usage_has_nothing_to_scan(account: Account, begun: datetime) -> None:
    assert scan(account, begun) == 0
    with account.scope():
        assert not ScanProgress.objects.exists()


def test_usual_usage_is_learned_once_and_raises_nothing(used: Account, begun: datetime) -> None:
    with used.scope():
        progress = ScanProgress.objects.get()
        assert progress.learned_until == begun - QUARTER
        assert SeriesState.objects.count() == 1 + 2 * 5
    assert scan(used, begun + timedelta(minutes=14)) == 0
    write_usage(used, USUAL, starts_at=begun, quarters=2, seed=2)
    assert scan(used, begun + QUARTER) == 11
    assert scan(used, begun + 2 * QUARTER) == 11
    assert incidents_of(used) == []
    with used.scope():
        assert ScanProgress.objects.get().learned_until == begun + QUARTER


def test_what_another_version_has_learned_is_learned_again(used: Account, begun: datetime) -> None:
    with used.scope():
        learned = dict(SeriesState.objects.values_list("value", "records"))
        assert SeriesState.objects.update(records=b"older") == len(learned)
    spend(used, RESEARCH, begun + timedelta(minutes=2), usd=30)
    assert scan(used, begun + timedelta(minutes=3)) > 0
    assert [incident.match for incident in incidents_of(used)] == [{"agent": "research"}]
    with used.scope():
        assert dict(SeriesState.objects.values_list("value", "records")) == learned


def test_a_spike_is_found_before_any_roll_up(used: Account, begun: datetime) -> None:
    spend(used, RESEARCH, begun + timedelta(minutes=2), usd=30)
    assert scan(used, begun + timedelta(minutes=3)) > 0
    (incident,) = incidents_of(used)
    assert incident.match == {"agent": "research"}
    assert incident.severity == "critical"
    assert incident.title.startswith("Agent 'research' costs ")
    assert "model 'gpt-4o'" in incident.summary
    assert incident.facts["cost_nanos"] == incident.facts["actual_nanos"] == 30 * NANOS
    shown = outside(incident.facts)
    assert (shown["cost_usd"], shown["actual_usd"]) == ("30", "30")
    assert not any("nanos" in name for name in shown)
    assert incident.excess_nanos == incident.facts["excess_nanos"] > 29 * NANOS
    # All that the agent takes part in is its shadow, and nobody hears of it by itself.
    shadows = anomalies_of(used, incident=incident)
    assert {("agent", "research", "cost"), ("", "", "cost"), ("model", "gpt-4o", "cost")} <= shadows
    assert anomalies_of(used) == shadows
    # Rolled up, it is the same.
    roll_everything_up(used)
    scan(used, begun + timedelta(minutes=4))
    assert [each.id for each in incidents_of(used)] == [incident.id]
    assert anomalies_of(used) == shadows


def test_what_a_new_cause_costs_is_known_from_what_the_scan_has_read(
    used: Account, begun: datetime
) -> None:
    spend(used, RESEARCH, begun + timedelta(minutes=2), usd=30)
    with CaptureQueriesContext(connection) as queries:
        scan_tenant(tenant_id=used.tenant.id, now=begun + timedelta(minutes=3))
    (incident,) = incidents_of(used)
    assert incident.facts["cost_nanos"] == 30 * NANOS
    # Once to judge, and once for which values were used together.
    assert sum("FROM usage_event" in query["sql"] for query in queries) == 2


def test_two_agents_at_once_are_two_incidents(used: Account, begun: datetime) -> None:
    spend(used, RESEARCH, begun, usd=30)
    spend(used, SUPPORT, begun, usd=40)
    scan(used, begun + timedelta(minutes=1))
    assert [incident.match for incident in incidents_of(used)] == [
        {"agent": "support"},
        {"agent": "research"},
    ]


def test_a_new_agent_is_the_cause_of_what_it_adds(used: Account, begun: datetime) -> None:
    spend(used, RESEARCH._replace(agent="unheard-of"), begun, usd=30)
    scan(used, begun + timedelta(minutes=1))
    (incident,) = incidents_of(used)
    assert incident.match == {"agent": "unheard-of"}
    assert incident.title == "Agent 'unheard-of' costs $120.00 an hour, unlike anything seen before"


def test_what_starts_later_joins_the_incident_that_explains_it(
    used: Account, begun: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(used, RESEARCH, begun, usd=6)
    scan(used, begun + timedelta(minutes=1))
    (incident,) = incidents_of(used)
    before = anomalies_of(used)
    spend(used, RESEARCH, begun + timedelta(minutes=5), usd=60, calls=200)
    scan(used, begun + timedelta(minutes=6))
    assert [each.id for each in incidents_of(used)] == [incident.id]
    assert anomalies_of(used) > before
    assert anomalies_of(used) == anomalies_of(used, incident=incident)
    with used.scope():
        assert incident.entries.filter(text__startswith="Also unusual: ").count() == 1


@pytest.mark.parametrize("requests_before", [20, 60])
def test_a_small_sum_is_nobodys_business(
    account: Account, begun: datetime, requests_before: int
) -> None:
    """Whether the quarter before was below the expected or above it by a hair."""
    tiny = [each._replace(nanos_per_request=1_000) for each in USUAL]
    write_usage(
        account,
        tiny,
        starts_at=begun - HISTORY_QUARTERS * QUARTER,
        quarters=HISTORY_QUARTERS - 1,
    )
    before = [each._replace(requests=requests_before) for each in tiny]
    write_usage(account, before, starts_at=begun - QUARTER, quarters=1)
    scan(account, begun)
    # 500 times the usual, and two cents.
    spend(account, RESEARCH, begun, usd=Decimal("0.02"))
    scan(account, begun + timedelta(minutes=1))
    assert incidents_of(account) == []
    spend(account, RESEARCH, begun, usd=Decimal("0.02"))
    scan(account, begun + timedelta(minutes=2))
    assert [each.severity for each in incidents_of(account)] == ["warning"]


def test_dearer_calls_a_lost_cache_and_failures_are_told_apart(
    account: Account, begun: datetime
) -> None:
    cached = SUPPORT._replace(cached_percent=70)
    steady = Stream("ops", "watch", "logs", "initech", "gpt-4o-mini", 50, CENT)
    streams = [RESEARCH, cached, steady]
    write_usage(
        account, streams, starts_at=begun - HISTORY_QUARTERS * QUARTER, quarters=HISTORY_QUARTERS
    )
    scan(account, begun)
    changed = [
        RESEARCH._replace(nanos_per_request=10 * CENT),
        cached._replace(cached_percent=0),
        steady._replace(failed_percent=60),
    ]
    write_usage(account, changed, starts_at=begun, quarters=1, seed=2)
    scan(account, begun + QUARTER + timedelta(minutes=1))
    result = {
        (incident.title.split(" ")[0], incident.match["agent"])
        for incident in incidents_of(account)
    }
    assert result == {("Agent", "research"), ("Agent", "support"), ("59%", "watch")}
    assert [incident.severity for incident in incidents_of(account)] == [
        "critical",
        "warning",
        "warning",
    ]


def test_six_hours_are_one_incident_with_one_begin_and_one_end(
    used: Account, begun: datetime
) -> None:
    spike = RESEARCH._replace(requests=20 * RESEARCH.requests)
    write_usage(used, USUAL, starts_at=begun, quarters=2, seed=2)
    write_usage(used, [spike, SUPPORT], starts_at=begun + 2 * QUARTER, quarters=24, seed=3)
    write_usage(used, USUAL, starts_at=begun + 26 * QUARTER, quarters=12, seed=4)
    for number in [1, 2, 3, 4, 8, 12, 16, 20, 24, 26, 27, 28, 29, 30, 31, 32, 34, 36]:
        scan(used, begun + number * QUARTER + timedelta(minutes=10))
    (incident,) = incidents_of(used)
    kinds = told(used, incident)
    assert kinds.count(EntryKind.OPENED) == 1
    assert kinds.count(EntryKind.RESOLVED) == 1
    assert kinds.count(EntryKind.REOPENED) == 0
    assert incident.resolved_at is not None
    assert incident.match == {"agent": "research"}
    assert anomalies_of(used, ended_at=None) == set()
    assert incident.excess_nanos is not None
    # 19 times 40 requests at a cent, 24 times, give or take what they vary.
    assert incident.excess_nanos == pytest.approx(24 * 19 * 40 * CENT, rel=0.15)


def test_what_is_back_within_the_cool_down_is_the_same_incident(
    used: Account, begun: datetime
) -> None:
    write_usage(used, USUAL, starts_at=begun, quarters=16, seed=2)
    spend(used, RESEARCH, begun, usd=30)
    for number in range(8):
        scan(used, begun + number * QUARTER + timedelta(minutes=1))
    (incident,) = incidents_of(used)
    assert incident.resolved_at is not None
    spend(used, RESEARCH, begun + 8 * QUARTER, usd=30)
    scan(used, begun + 8 * QUARTER + timedelta(minutes=1))
    (again,) = incidents_of(used)
    assert (again.id, again.resolved_at) == (incident.id, None)
    assert told(used, again).count(EntryKind.REOPENED) == 1
    with used.scope():
        Incident.objects.update(resolved_at=datetime.now(UTC) - timedelta(minutes=16))
        Anomaly.objects.update(ended_at=datetime.now(UTC))
    spend(used, RESEARCH, begun + 8 * QUARTER + timedelta(minutes=2), usd=30)
    scan(used, begun + 8 * QUARTER + timedelta(minutes=3))
    assert len(incidents_of(used)) == 2


def at_once(job: Callable[[], object], *, count: int) -> None:
    """Do the same in several threads; what one raises fails the test."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_two_scans_at_once_open_one_incident(used: Account, begun: datetime) -> None:
    spend(used, RESEARCH, begun, usd=30)
    at_once(lambda: scan(used, begun + timedelta(minutes=1)), count=3)
    assert len(incidents_of(used)) == 1
    assert len(anomalies_of(used)) > 1


def test_the_first_scans_of_a_tenant_at_once_learn_everything_once(
    account: Account, begun: datetime
) -> None:
    write_usage(account, USUAL, starts_at=begun - 8 * QUARTER, quarters=8)
    at_once(lambda: scan(account, begun), count=2)
    with account.scope():
        assert ScanProgress.objects.get().learned_until == begun - QUARTER
        assert SeriesState.objects.count() == 11


def test_a_scan_that_dies_has_changed_nothing(
    used: Account, begun: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state() -> list[Any]:
        with used.scope():
            progress = ScanProgress.objects.values_list("learned_until", "batch_id").get()
            return [progress, list(SeriesState.objects.order_by("pk").values_list("records"))]

    before = state()
    write_usage(used, USUAL, starts_at=begun, quarters=1, seed=2)
    spend(used, RESEARCH, begun + QUARTER, usd=30)
    monkeypatch.setattr(anomaly_groups, "summary", lambda narrative: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scan(used, begun + QUARTER + timedelta(minutes=1))
    assert state() == before
    assert incidents_of(used) == []
    assert anomalies_of(used) == set()
    monkeypatch.undo()
    scan(used, begun + QUARTER + timedelta(minutes=1))
    assert len(incidents_of(used)) == 1


def test_a_scan_that_dies_at_its_end_has_learned_and_told_nothing(
    used: Account, begun: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_usage(used, USUAL, starts_at=begun, quarters=1, seed=2)
    spend(used, RESEARCH, begun + QUARTER, usd=30)
    now = begun + QUARTER + timedelta(minutes=1)
    monkeypatch.setattr(anomaly_groups, "summary", lambda narrative: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scan_tenant(tenant_id=used.tenant.id, now=now)
    assert anomalies_of(used) == set()
    with used.scope():
        assert ScanProgress.objects.get().learned_until == begun
    monkeypatch.undo()
    scan_tenant(tenant_id=used.tenant.id, now=now)
    assert len(incidents_of(used)) == 1


def test_a_scan_writes_nothing_where_another_was_faster(
    used: Account, begun: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(used, RESEARCH, begun, usd=30)
    now = begun + timedelta(minutes=1)

    def overtaken(scan: ScanResult, at: datetime) -> ScanResult:
        monkeypatch.undo()
        assert scan_tenant(tenant_id=used.tenant.id, now=now) > 0
        return with_overlaps(scan, at)

    monkeypatch.setattr(scans, "with_overlaps", overtaken)
    assert scan_tenant(tenant_id=used.tenant.id, now=now) == 0
    assert len(incidents_of(used)) == 1


def test_a_stretch_is_as_long_as_one_transaction_may_take(
    account: Account, begun: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_usage(account, USUAL, starts_at=begun - 20 * QUARTER, quarters=20)
    stretches = []
    learn_stretch = scans._learn_stretch

    def noted(tenant_id: int, starts_at: datetime, ends_at: datetime) -> set[SeriesKey]:
        stretches.append((ends_at - starts_at) // QUARTER)
        return learn_stretch(tenant_id, starts_at, ends_at)

    monkeypatch.setattr(scans, "_learn_stretch", noted)
    monkeypatch.setattr(scans, "LEARN_SUMS", ClaimSize(least=44, first=44, most=44))
    scan_tenant(tenant_id=account.tenant.id, now=begun)
    # By then it is known that there are eleven series.
    assert stretches == [1, 4, 4, 4, 4, 2]


def test_events_that_come_within_a_quarter_of_its_end_are_learned(
    used: Account, begun: datetime
) -> None:
    write_usage(used, USUAL, starts_at=begun, quarters=1, seed=3)
    scan(used, begun + QUARTER + timedelta(minutes=1))
    spend(used, RESEARCH, begun + timedelta(minutes=3), usd=30)
    scan(used, begun + QUARTER + timedelta(minutes=10))
    (incident,) = incidents_of(used)
    assert incident.facts["began_at"] == begun.isoformat()


def test_another_tenant_is_not_touched(used: Account, stranger: Account, begun: datetime) -> None:
    write_usage(stranger, USUAL, starts_at=begun - 96 * QUARTER, quarters=96)
    scan(stranger, begun)
    spend(used, RESEARCH, begun, usd=30)
    scan(stranger, begun + timedelta(minutes=1))
    scan(used, begun + timedelta(minutes=1))
    assert incidents_of(stranger) == []
    assert len(incidents_of(used)) == 1
    with stranger.scope():
        assert Anomaly.objects.count() == 0


def test_a_critical_incident_tightens_budgets_while_it_lasts(
    used: Account, begun: datetime
) -> None:
    with used.scope():
        change_alert_settings(
            tenant=used.tenant, actor="tests", changes={"anomaly_limit_percent": 50}
        )

    def tightened() -> list[tuple[JsonObject, int]]:
        with used.scope(), connection.cursor() as cursor:
            return [
                (dict(limit_reduction.match), limit_reduction.limit_percent)
                for limit_reduction in read_limit_reductions(cursor, used.tenant.id)
            ]

    write_usage(used, USUAL, starts_at=begun, quarters=12, seed=4)
    spend(used, RESEARCH, begun, usd=30)
    scan(used, begun + timedelta(minutes=1))
    assert tightened() == [({"agent": "research"}, 50)]
    scan(used, begun + timedelta(minutes=14))
    assert tightened() == [({"agent": "research"}, 50)]
    for number in range(1, 13):
        scan(used, begun + number * QUARTER)
    (incident,) = incidents_of(used)
    assert incident.resolved_at is not None
    assert tightened() == []


def test_usage_that_stops_is_worth_a_note_only(account: Account, begun: datetime) -> None:
    write_usage(account, USUAL, starts_at=begun - 96 * QUARTER, quarters=96)
    scan(account, begun)
    for number in range(1, 6):
        scan(account, begun + number * QUARTER)
    (incident,) = incidents_of(account)
    assert (incident.title, incident.severity) == ("All requests have stopped", "info")
    assert incident.match == {}
    assert incident.excess_nanos == 0


def test_learning_a_long_past_stops_when_its_time_is_over(
    account: Account, begun: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "LEARN_SECONDS", 0.0)
    write_usage(account, USUAL, starts_at=begun - 20 * QUARTER, quarters=20)
    with account.scope():
        scan_tenant(tenant_id=account.tenant.id, now=begun)
        first = ScanProgress.objects.get()
        assert first.learned_until == begun - 20 * QUARTER
    monkeypatch.undo()
    scan(account, begun)
    with account.scope():
        assert ScanProgress.objects.get().learned_until == begun - QUARTER


def test_tenants_are_scanned_when_something_came_or_a_quarter_ended(
    account: Account, stranger: Account
) -> None:
    def waiting() -> list[int]:
        with platform_scope("see who is to be scanned"):
            return tenants_to_scan()

    assert waiting() == []
    send(account, [make_event()])
    assert waiting() == [account.tenant.id]
    now = datetime.now(UTC)
    scan(account, now)
    scan(account, now)
    assert waiting() == []
    with account.scope():
        ScanProgress.objects.update(scanned_at=now - QUARTER)
    assert waiting() == [account.tenant.id]


def test_a_pattern_never_seen_is_one_note_that_ends_and_never_beside_an_anomaly(
    account: Account,
) -> None:
    now, tenant_id = datetime.now(UTC), account.tenant.id
    with account.scope():
        for _ in range(3):
            take_pattern(tenant_id=tenant_id, is_novel=True, now=now)
        (incident,) = Incident.objects.all()
        assert (incident.severity, incident.observations) == ("info", 3)
        take_pattern(tenant_id=tenant_id, is_novel=False, now=now)
        assert Incident.objects.get().resolved_at is not None
        Incident.objects.update(resolved_at=now - timedelta(days=1))
        observe(tenant_id=tenant_id, observation=seen())
        take_pattern(tenant_id=tenant_id, is_novel=True, now=now)
        assert not Incident.objects.filter(cause="pattern:tenant", resolved_at=None).exists()
