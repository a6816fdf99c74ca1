"""What workers run over all tenants: one tenant's failure keeps no other from its work."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from prometheus_client import REGISTRY

from alerts import breakers as breaker_alerts
from alerts import crossings, digests, incidents, rule_checks, scans, session_checks
from alerts import tasks as alert_tasks
from metering import rollups
from metering.jobs import tasks as metering_tasks
from metering.models import Crossing
from tenants import runs
from tenants.runs import PAUSE_SECONDS, PAUSE_SECONDS_MAX, TenantRun, scoped
from tests.factories import Account

pytestmark = pytest.mark.django_db(transaction=True)
# Each task: where its tenants are found, and what it does for each.
STEPS: list[tuple[Any, Any, str, Any, str]] = [
    (metering_tasks.roll_up, rollups, "tenants_waiting", rollups, "roll_up"),
    (
        metering_tasks.expire_reservations,
        metering_tasks,
        "_tenants_with",
        metering_tasks,
        "expire_due",
    ),
    (
        metering_tasks.age_rolling_windows,
        *(metering_tasks, "_tenants_with_rolling_budgets", metering_tasks, "_age_windows_of"),
    ),
    (
        metering_tasks.price_unpriced,
        *(metering_tasks, "tenants_with_other_prices", metering_tasks, "_start_pricing"),
    ),
    (metering_tasks.run_jobs, metering_tasks, "tenants_with_jobs", metering_tasks, "take_step"),
    (alert_tasks.notify, crossings, "tenants_with_crossings", crossings, "take_crossings"),
    (
        alert_tasks.notify,
        *(breaker_alerts, "tenants_with_breakers", breaker_alerts, "compare_breakers"),
    ),
    (alert_tasks.notify, digests, "tenants_with_held", digests, "gather_held"),
    (alert_tasks.end_incidents, crossings, "tenants_with_incidents", crossings, "end_crossings"),
    (
        alert_tasks.end_incidents,
        *(session_checks, "tenants_with_loops", session_checks, "end_loops"),
    ),
    (alert_tasks.end_incidents, incidents, "tenants_with_ended_snoozes", incidents, "end_snoozes"),
    (alert_tasks.end_incidents, digests, "tenants_with_digests", digests, "write_digests"),
    (
        alert_tasks.check_sessions,
        *(session_checks, "tenants_to_check", session_checks, "check_sessions"),
    ),
    (alert_tasks.scan_anomalies, scans, "tenants_to_scan", scans, "scan_tenant"),
    (alert_tasks.check_rules, rule_checks, "tenants_to_judge", rule_checks, "judge_rules"),
]


def failing_for(tenant_id: int, served: list[int]) -> Callable[..., int]:
    def work(*, tenant_id: int, wanted: int = tenant_id, **options: object) -> int:
        if tenant_id == wanted:
            with connection.cursor() as cursor:
                cursor.execute("SELECT (9223372036854775807 + length(%s))::bigint", ["x"])
        served.append(tenant_id)
        return 0

    return work


def test_no_job_stops_at_a_tenant_for_whom_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for task, finders, finder, workers, worker in STEPS:
        served: list[int] = []
        with monkeypatch.context() as patched:
            patched.setattr(finders, finder, lambda *_: [1, 2, 3])
            patched.setattr(workers, worker, failing_for(2, served))
            with pytest.raises(Exception, match="out of range"):
                task()
        assert sorted(served) == [1, 3], worker


def test_a_tenant_for_whom_a_job_fails_is_left_alone_for_longer_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    tried: list[float] = []

    def fail(*, tenant_id: int) -> int:
        tried.append(clock.seconds)
        raise ValueError("no")

    def succeed(*, tenant_id: int) -> int:
        return 1

    def pause_units(units: int) -> list[float]:
        tried.clear()
        begun_at = clock.seconds
        for _ in range(units * 10):
            TenantRun(5).repeat("a job", lambda: [1], fail)
            clock.seconds += PAUSE_SECONDS / 10
        return [(at - begun_at) / PAUSE_SECONDS for at in tried]

    labels = {"job": "a job", "error": "ValueError"}
    before = REGISTRY.get_sample_value("spendgate_tenant_failures_total", labels) or 0.0
    assert pause_units(8) == pytest.approx([0, 1, 3, 7])
    assert REGISTRY.get_sample_value("spendgate_tenant_failures_total", labels) == before + 4
    # Another job has nothing to do with it.
    assert TenantRun(5).each("another job", lambda: [1], succeed) == 1
    assert TenantRun(5).each("a job", lambda: [1], succeed) == 0
    clock.seconds += PAUSE_SECONDS_MAX
    assert TenantRun(5).each("a job", lambda: [1], succeed) == 1
    # Once it was served, the next pause is short again.
    assert pause_units(3) == pytest.approx([0, 1])


def test_a_run_that_fails_for_one_says_so_once_all_had_their_turn(
    account: Account, stranger: Account
) -> None:
    done: list[int] = []

    def work(*, tenant_id: int) -> int:
        if tenant_id == account.tenant.id:
            raise ValueError("no")
        done.append(Crossing.objects.count())
        return 1

    run = TenantRun(5)
    tenants = [account.tenant.id, stranger.tenant.id]
    assert run.each("a job", lambda: tenants, scoped(work)) == 1
    assert done == [0]
    with pytest.raises(ValueError, match="no"):
        run.report()


def test_what_stops_the_whole_task_is_not_taken_for_a_tenants_trouble(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*, tenant_id: int) -> int:
        raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        TenantRun(5).each("slow", lambda: [account.tenant.id], work)

    def lose(*, tenant_id: int) -> int:
        monkeypatch.setattr(runs, "connection", SimpleNamespace(is_usable=lambda: False))
        raise ValueError("the database is away")

    with pytest.raises(ValueError, match="away"):
        TenantRun(5).each("lost", lambda: [account.tenant.id, 0], lose)


def test_a_step_with_work_without_end_leaves_the_others_their_time(account: Account) -> None:
    run = TenantRun(0.1, steps=2)
    assert run.repeat("first", lambda: [account.tenant.id], lambda *, tenant_id: 1) > 1
    assert run.each("second", lambda: [account.tenant.id], lambda *, tenant_id: 1) == 1
