"""Old rows go a chunk at a time, and only those."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tenants import links, retention
from tenants.models import AuditEntry, IdempotencyRecord, LoginSession, PasswordReset
from tenants.old_rows import ChunkedRun
from tenants.scope import platform_scope
from tests.factories import Account

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime.now(UTC)
WEEK_AGO = NOW - timedelta(days=8)


def answers(account: Account, *ages: datetime) -> list[IdempotencyRecord]:
    with account.scope():
        made = IdempotencyRecord.objects.bulk_create(
            IdempotencyRecord(tenant=account.tenant, key=f"key-{number}", request_hash=b"")
            for number in range(len(ages))
        )
        for each, at in zip(made, ages, strict=True):
            IdempotencyRecord.objects.filter(id=each.id).update(created_at=at)
        return made


def kept() -> list[int]:
    with platform_scope("test"):
        return list(IdempotencyRecord.objects.order_by("id").values_list("id", flat=True))


def remove(rows: Any = None, limit: int = 2) -> int:
    run = ChunkedRun(10)
    rows = IdempotencyRecord.objects.all() if rows is None else rows
    before = NOW - timedelta(days=7)
    return run.remove_by_id(rows, at="created_at", before=before, limit=limit)


def test_each_transaction_removes_a_chunk(account: Account) -> None:
    made = answers(account, *[WEEK_AGO] * 5, NOW)
    with CaptureQueriesContext(connection) as queries:
        assert remove() == 5
    assert kept() == [made[-1].id]
    statements = [query["sql"] for query in queries]
    assert sum(statement.startswith("DELETE") for statement in statements) == 3
    assert sum(statement == "COMMIT" for statement in statements) >= 3


def test_what_must_stay_does_not_stop_what_comes_after_it(account: Account) -> None:
    made = answers(account, *[WEEK_AGO] * 6)
    assert remove(IdempotencyRecord.objects.filter(id__gt=made[2].id)) == 3
    assert kept() == [each.id for each in made[:3]]


def test_a_run_ends_with_its_time_and_the_next_goes_on(account: Account) -> None:
    answers(account, *[WEEK_AGO] * 5)
    before = NOW - timedelta(days=7)
    rows = IdempotencyRecord.objects.all()
    assert ChunkedRun(0).remove_by_id(rows, at="created_at", before=before) == 0
    assert len(kept()) == 5
    assert remove() == 5


def test_the_audit_log_is_kept_for_as_long_as_history(account: Account) -> None:
    ends_at = datetime.now(UTC) + settings.RETENTION_HISTORY
    with account.scope():
        count = AuditEntry.objects.count()
    assert count > 0
    with time_machine.travel(ends_at - timedelta(days=1), tick=False):
        assert retention.remove_old_rows(seconds=10) == 0
    with time_machine.travel(ends_at + timedelta(days=1), tick=False):
        assert retention.remove_old_rows(seconds=10) == count


def test_links_that_ended_long_ago_go_by_index_a_chunk_a_transaction(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "ROWS_A_CHUNK", 2)
    old = NOW - links.RESET_KEPT - timedelta(seconds=1)
    with platform_scope("test"):
        PasswordReset.objects.bulk_create(
            PasswordReset(email=f"{number}@example.com", expires_at=at)
            for number, at in enumerate([NOW, *[old] * 5])
        )
    with CaptureQueriesContext(connection) as queries:
        assert links.forget_old_links(now=NOW, seconds=10) == 5
    statements = [query["sql"] for query in queries]
    assert sum(statement.startswith("DELETE") for statement in statements) == 3
    result = [each for each in statements if "SKIP LOCKED" in each]
    with platform_scope("test"), connection.cursor() as cursor:
        assert list(PasswordReset.objects.values_list("email", flat=True)) == ["0@example.com"]
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        for statement, index in (
            (result[0], "password_reset_by_end"),
            (result[-1], "invitation_by_end"),
        ):
            cursor.execute(f"EXPLAIN {statement}")
            assert index in "\n".join(row[0] for row in cursor.fetchall())


def test_expired_sessions_go(account: Account) -> None:
    for key, expires_at in (("old", WEEK_AGO), ("new", NOW + timedelta(days=1))):
        LoginSession.objects.create(session_key=key, session_data="", expire_date=expires_at)
    assert retention.remove_old_rows(seconds=10) == 1
    assert list(LoginSession.objects.values_list("session_key", flat=True)) == ["new"]
