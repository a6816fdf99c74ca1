"""How long what every tenant has is kept: answers for retries, and the audit log."""

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from tenants.models import AuditEntry, IdempotencyRecord
from tenants.old_rows import ChunkedRun

# For how long a retry with the same Idempotency-Key gets the first answer.
ANSWERS_KEPT: Final = timedelta(days=7)


def remove_old_rows(*, seconds: float) -> int:
    """Remove what is too old to be kept; return the number of rows."""
    run = ChunkedRun(seconds)
    now = timezone.now()
    answers = IdempotencyRecord.objects.all()
    removed = run.remove_by_id(answers, at="created_at", before=now - ANSWERS_KEPT)
    return removed + run.remove_by_id(
        AuditEntry.objects.all(),
        at="at",
        before=now - settings.RETENTION_HISTORY,
        prepare=permit_removal,
    )


def permit_removal(cursor: CursorWrapper) -> None:
    """Let this transaction remove rows of tables to which rows are only added otherwise."""
    cursor.execute("SET LOCAL spendgate.retention = 'on'")
