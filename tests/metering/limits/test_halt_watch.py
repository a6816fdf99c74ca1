"""Halts reach every process's memory, stay there while the database is away, and what is refused
from memory is recorded.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from common.json_bodies import JsonObject
from metering.limits import halt_watch
from metering.limits.decisions import DecisionRow
from metering.limits.halt_watch import HaltWatcher, known_halts, remember_refusal, stop_watching
from metering.limits.halts import insert_halt, remembered_halts
from metering.models import Decision
from tests.factories import Account
from tests.metering.limits.test_halts import lift, make_halt


class WatcherByHand(HaltWatcher):
    """Its thread never starts: the test looks itself."""

    def _start(self) -> None:
        """Nothing."""


@pytest.fixture
def watcher() -> Iterator[HaltWatcher]:
    watcher = WatcherByHand()
    yield watcher
    watcher.forget()


def wait_for(is_so: Callable[[], object]) -> None:
    """Wait until something is so. How soon it is, `make bench` measures."""
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def halt_elsewhere(account: Account, match: JsonObject) -> None:
    """As another process does: nothing tells this one."""
    with account.scope(), connection.cursor() as cursor:
        insert_halt(
            cursor,
            tenant_id=account.tenant.id,
            match=match,
            reason="it loops",
            kind="manual",
            actor="tests",
        )


def refusal(**fields: Any) -> DecisionRow:
    return DecisionRow(
        decided_at=timezone.now(),
        decision="refuse",
        code="halted",
        dimensions={"agent": "researcher"},
        reasons=[{"detail": "it loops"}],
        **fields,
    )


def decisions(account: Account) -> int:
    with account.scope():
        return Decision.objects.filter(tenant=account.tenant).count()


def test_a_halt_made_elsewhere_is_known_without_other_traffic(
    account: Account,
) -> None:
    tenant_id = account.tenant.id
    assert known_halts(tenant_id) == ()
    wait_for(lambda: remembered_halts(tenant_id) is not None)
    halt_elsewhere(account, {"agent": "researcher"})
    wait_for(lambda: remembered_halts(tenant_id))
    assert [halt.match for halt in known_halts(tenant_id)] == [{"agent": "researcher"}]


def test_a_halt_made_in_this_process_is_known_without_a_pause(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halt_watch, "PAUSE_SECONDS", 60.0)
    known_halts(account.tenant.id)
    wait_for(lambda: remembered_halts(account.tenant.id) is not None)
    made = make_halt(account, {})
    wait_for(lambda: known_halts(account.tenant.id))
    lift(account, made)
    wait_for(lambda: not known_halts(account.tenant.id))


def test_the_thread_makes_its_connection_anew_when_it_broke(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halt_watch.log, "warning", lambda *args, **fields: None)
    tenant_id = account.tenant.id
    known_halts(tenant_id)
    wait_for(lambda: remembered_halts(tenant_id) is not None)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert cursor.fetchone() != (0,)
    halt_elsewhere(account, {"agent": "researcher"})
    wait_for(lambda: known_halts(tenant_id))


def test_one_look_reads_the_halts_of_all_tenants(
    account: Account, stranger: Account, watcher: HaltWatcher
) -> None:
    make_halt(account, {"agent": "researcher"})
    for each in (account, stranger):
        watcher.watch(each.tenant.id)
    assert watcher.look()
    assert [len(remembered_halts(each.tenant.id) or ()) for each in (account, stranger)] == [1, 0]
    assert remembered_halts(stranger.tenant.id) is not None


def test_what_is_known_stays_in_force_while_the_database_is_away_and_is_logged_once(
    account: Account, watcher: HaltWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_halt(account, {"agent": "researcher"})
    watcher.watch(account.tenant.id)
    watcher.look()
    lines = []
    monkeypatch.setattr(halt_watch.log, "warning", lambda *args, **fields: lines.append(args))

    def is_down(reason: str) -> None:
        raise OperationalError("no server")

    with monkeypatch.context() as patched:
        patched.setattr(halt_watch, "platform_scope", is_down)
        for _ in range(3):
            watcher.refuse(account.tenant.id, refusal())
            watcher.look()
        assert not watcher.is_unanswered()
        patched.setattr(halt_watch, "SILENT_SECONDS", 0.0)
        assert watcher.is_unanswered()
    assert len(remembered_halts(account.tenant.id) or ()) == 1
    assert len(lines) == 1
    assert decisions(account) == 0
    watcher.look()
    assert not watcher.is_unanswered()
    assert decisions(account) == 3
    watcher.look()
    assert decisions(account) == 3


def test_refusals_are_bounded_and_the_oldest_give_way(
    account: Account, watcher: HaltWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halt_watch, "REFUSALS_AT_ONCE", 300)
    for number in range(halt_watch.REFUSALS_MAX + 5):
        watcher.refuse(account.tenant.id, refusal(asked_tokens=number))
    watcher.look()
    with account.scope():
        asked = set(Decision.objects.values_list("asked_tokens", flat=True))
    assert asked == set(range(5, halt_watch.REFUSALS_MAX + 5))


def test_a_refusal_that_cannot_be_written_holds_up_no_other(
    account: Account, watcher: HaltWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halt_watch.log, "exception", lambda *args, **fields: None)
    watcher.refuse(account.tenant.id, refusal(asked_tokens=2**70))
    watcher.look()
    watcher.refuse(account.tenant.id, refusal(asked_tokens=7))
    watcher.look()
    with account.scope():
        assert [decision.asked_tokens for decision in Decision.objects.all()] == [7]


def test_a_refusal_is_recorded_soon_with_its_tenant(account: Account, stranger: Account) -> None:
    remember_refusal(account.tenant.id, refusal())
    remember_refusal(stranger.tenant.id, refusal())
    wait_for(lambda: decisions(account) and decisions(stranger))
    with account.scope():
        (row,) = Decision.objects.all()
    assert (row.tenant_id, row.agent, row.code) == (account.tenant.id, "researcher", "halted")
    assert row.reasons == [{"detail": "it loops"}]


def test_a_tenant_that_nobody_asks_about_is_dropped(
    account: Account, watcher: HaltWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher.watch(account.tenant.id)
    watcher.look()
    assert remembered_halts(account.tenant.id) is not None
    monkeypatch.setattr(halt_watch, "WATCHED_SECONDS", -1.0)
    assert not watcher.look()
    assert remembered_halts(account.tenant.id) is None


def test_the_thread_is_stopped_with_its_refusals_written_and_starts_again(
    account: Account,
) -> None:
    known_halts(account.tenant.id)
    wait_for(lambda: remembered_halts(account.tenant.id) is not None)
    remember_refusal(account.tenant.id, refusal())
    stop_watching()
    assert "halt watcher" not in {thread.name for thread in threading.enumerate()}
    assert decisions(account) == 1
    halt_elsewhere(account, {})
    wait_for(lambda: known_halts(account.tenant.id))


def test_an_idle_process_leaves_the_database_alone(
    account: Account, watcher: HaltWatcher, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    watcher.watch(account.tenant.id)
    assert watcher.look()
    watcher.forget()
    with django_assert_num_queries(0):
        assert not watcher.look()
