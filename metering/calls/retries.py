"""A commit that PostgreSQL gave up is tried again."""

from collections.abc import Callable
from typing import Final

from django.conf import settings
from django.db import IntegrityError, InternalError, OperationalError, connection
from django.utils import timezone

from common.database_errors import is_away, is_conflict, lacks_partition
from metering.usage.partitions import make_due_partitions
from tenants.scope import tenant_scope

ATTEMPTS_MAX: Final = 5


def with_retries(tenant_id: int, commit: Callable[[], None]) -> None:
    """Commit again where PostgreSQL gave up because of another transaction, where a month lacks its
    partition, and where the server had closed the connection.

    `commit` must be safe to repeat after a commit whose answer was lost.
    """
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            commit()
        except IntegrityError as error:
            if attempt == ATTEMPTS_MAX or not lacks_partition(error):
                raise
            with tenant_scope(tenant_id):
                make_due_partitions(now=timezone.now(), max_age_days=settings.EVENT_MAX_AGE.days)
        except (OperationalError, InternalError) as error:
            is_over = attempt == ATTEMPTS_MAX or not is_away(error)
            if is_over or not (is_conflict(error) or _renew_connection(attempt)):
                raise
        else:
            return


def _renew_connection(attempt: int) -> bool:
    """Reconnect, once: the server may have closed the connection, which is not always known yet.

    Events that a broken commit did store will be found as duplicates.
    """
    if attempt > 1 or connection.in_atomic_block:
        return False
    connection.close()
    return True
