"""Months of events: there before they are needed, and gone without anybody waiting for it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from dateutil.relativedelta import relativedelta
from django.conf import settings
from django.db import connection, connections, transaction

from metering.calls import retries
from metering.jobs.tasks import make_partitions
from metering.usage import partitions
from metering.usage.partitions import drop_sealed_partitions, make_due_partitions, partition_name
from tenants.scope import platform_scope, tenant_scope
from tests.factories import Account, make_event, send

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2034, 5, 20, tzinfo=UTC)


def exists(month: datetime) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [partition_name(month.date())])
        return bool(cursor.fetchone()[0])


@contextmanager
def in_a_transaction(tenant_id: int, statement: str) -> Iterator[None]:
    """Meanwhile another connection has run the statement, and its transaction goes on."""
    has_begun, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with tenant_scope(tenant_id), connection.cursor() as cursor:
                cursor.execute(statement)
                has_begun.set()
                may_end.wait(timeout=30)
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert has_begun.wait(timeout=10)
    try:
        yield
    finally:
        may_end.set()
        thread.join()


def test_the_first_event_of_a_month_never_waits_for_its_partition(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    with time_machine.travel(NOW, tick=False):
        make_partitions()

    def refuse(**_: object) -> list[str]:
        raise AssertionError("made in a request")

    monkeypatch.setattr(retries, "make_due_partitions", refuse)
    oldest = NOW + relativedelta(months=1, day=1) - settings.EVENT_MAX_AGE
    for at in (oldest, NOW + relativedelta(months=1, day=1), NOW + relativedelta(months=2, day=1)):
        with time_machine.travel(at, tick=False):
            assert send(account, [make_event(time=...)])["accepted"] == 1


def test_a_partition_is_made_while_others_write_and_read(account: Account) -> None:
    send(account, [make_event()])
    with (
        in_a_transaction(account.tenant.id, "UPDATE usage_event SET latency_ms = 1"),
        platform_scope("test"),
        connection.cursor() as cursor,
    ):
        cursor.execute("SET LOCAL lock_timeout = '2s'")
        make_due_partitions(now=NOW + relativedelta(years=1), max_age_days=35)
    assert exists(NOW + relativedelta(years=1))


def test_a_new_partition_has_the_indexes_and_the_protection_of_the_others(account: Account) -> None:
    with time_machine.travel(NOW, tick=False):
        make_partitions()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity,"
            " (SELECT count(*) FROM pg_index i JOIN pg_inherits p ON p.inhrelid = i.indexrelid"
            " WHERE i.indrelid = c.oid), (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid)"
            " FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid"
            " WHERE h.inhparent = 'usage_event'::regclass"
        )
        rows = cursor.fetchall()
        cursor.execute("SELECT count(*) FROM pg_index WHERE indrelid = 'usage_event'::regclass")
        (count,) = cursor.fetchone()
    assert {row[1:] for row in rows} == {(True, count, count)}


def test_a_month_in_use_is_dropped_later_and_nobody_waits_behind(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = datetime(2020, 1, 1, tzinfo=UTC)
    with platform_scope("test"):
        make_due_partitions(now=old, max_age_days=1)
    monkeypatch.setattr(partitions, "DROP_PAUSE_SECONDS", 0.01)
    reading = "SELECT count(*) FROM usage_event"
    waited: list[float] = []

    def write() -> None:
        try:
            while not is_over.is_set():
                begun_at = time.monotonic()
                send(account, [make_event()])
                waited.append(time.monotonic() - begun_at)
        finally:
            connections.close_all()

    is_over = threading.Event()
    writer = threading.Thread(target=write)
    with in_a_transaction(account.tenant.id, reading):
        writer.start()
        assert drop_sealed_partitions(before=datetime(2021, 1, 1, tzinfo=UTC)) == []
        is_over.set()
        # It would wait for as long as the reader does.
        writer.join(timeout=20)
        assert not writer.is_alive()
    assert waited
    assert exists(old)
    assert partition_name(old.date()) in drop_sealed_partitions(
        before=datetime(2021, 1, 1, tzinfo=UTC)
    )
    assert not exists(old)


def test_a_month_that_is_not_over_stays(account: Account) -> None:
    old = datetime(2020, 5, 1, tzinfo=UTC)
    with platform_scope("test"):
        make_due_partitions(now=old - timedelta(days=40), max_age_days=1)
    drop_sealed_partitions(before=old - timedelta(days=1))
    assert exists(old - timedelta(days=1))
    assert partition_name((old - timedelta(days=1)).date()) in drop_sealed_partitions(before=old)
    with transaction.atomic():
        assert not exists(old - timedelta(days=1))
