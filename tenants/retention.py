"""How long answers for retries, the audit log and login sessions are kept."""

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from tenants.models import AuditEntry, IdempotencyRecord
from tenants.old_rows import ROWS_A_CHUNK, ChunkedRun

# For how long a retry with the same Idempotency-Key gets the first answer.
ANSWERS_KEPT: Final = timedelta(days=7)


def remove_old_rows(*, seconds: float) -> int:
    """Remove what is too old to be kept; return the number of rows."""
    run = ChunkedRun(seconds)
    now = timezone.now()
    answers = IdempotencyRecord.objects.all()
    removed = run.remove_by_id(answers, at="created_at", before=now - ANSWERS_KEPT)
    removed += run.repeat("expired sessions", _remove_expired_sessions)
    return removed + run.remove_by_id(
        AuditEntry.objects.all(),
        at="at",
        before=now - settings.RETENTION_HISTORY,
        prepare=permit_removal,
    )


def _remove_expired_sessions(cursor: CursorWrapper) -> int:
    cursor.execute(
        """
        DELETE FROM login_session WHERE ctid = ANY (
            ARRAY(SELECT ctid FROM login_session WHERE expire_date < now() LIMIT %s))
        """,
        [ROWS_A_CHUNK],
    )
    return int(cursor.rowcount)


def permit_removal(cursor: CursorWrapper) -> None:
    """Let this transaction remove rows of tables to which rows are only added otherwise."""
    cursor.execute("SET LOCAL spendgate.retention = 'on'")
