"""What is too old to be kept goes in chunks, a transaction each, so that no one waits for it long.

A run ends after a time, and the next one continues: what is gone is gone.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.db.models import QuerySet

from tenants.scope import platform_scope

ROWS_A_CHUNK: Final = 2_000


class ChunkedRun:
    """A run that removes old rows for a while, a chunk a transaction."""

    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the run's time is over."""
        return time.monotonic() >= self._ends_at

    def repeat(self, reason: str, remove: Callable[[CursorWrapper], int]) -> int:
        """Remove chunk after chunk of all tenants' rows until one is empty; return the number of
        rows. `remove` takes a cursor.
        """
        total = 0
        while not self.is_over:
            with platform_scope(reason), connection.cursor() as cursor:
                count = remove(cursor)
            total += count
            if not count:
                break
        return total

    def remove_by_id(
        self,
        rows: QuerySet[Any],
        *,
        at: str,
        before: datetime,
        limit: int = ROWS_A_CHUNK,
        prepare: Callable[[CursorWrapper], None] = lambda cursor: None,
    ) -> int:
        """Remove those of `rows` whose `at` is before then; return their number.

        Ids rise with `at`, so the index of the ids finds the oldest. Others that are as old but not
        among `rows` stay. `prepare` is run at the begin of each transaction.
        """
        total, after = 0, 0
        while not self.is_over:
            with platform_scope(f"old rows of {rows.model._meta.db_table}"):
                oldest = rows.model._default_manager.filter(id__gt=after).order_by("id")
                looked_at = list(oldest.values_list("id", at)[:limit])
                old = [id_ for id_, written_at in looked_at if written_at < before]
                if not old:
                    break
                with connection.cursor() as cursor:
                    prepare(cursor)
                total += rows.filter(id__in=old).delete()[0]
            after = looked_at[-1][0]
        return total
