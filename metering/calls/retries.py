"""A commit that PostgreSQL gave up is tried again."""

from collections.abc import Callable
from typing import Final

import psycopg
from django.conf import settings
from django.db import IntegrityError, InternalError, OperationalError, connection
from django.utils import timezone

from common.database_errors import is_away, is_conflict, lacks_partition
from metering.usage.partitions import make_due_partitions
from tenants.scope import tenant_scope

ATTEMPTS_MAX: Final = 5
# A connection that the thread kept may have been dead for long, and the next one may break too.
RENEWALS_MAX: Final = 2


def with_retries(tenant_id: int, commit: Callable[[], None]) -> None:
    """Commit again where PostgreSQL gave up because of another transaction, where a month lacks its
    partition, and where the server had closed the connection.

    `commit` must be safe to repeat after a commit whose answer was lost.
    """
    renewals = 0
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            commit()
        except IntegrityError as error:
            if attempt == ATTEMPTS_MAX or not lacks_partition(error):
                raise
            with tenant_scope(tenant_id):
                make_due_partitions(now=timezone.now(), max_age_days=settings.EVENT_MAX_AGE.days)
        except (OperationalError, InternalError) as error:
            if attempt == ATTEMPTS_MAX or not is_away(error):
                raise
            if is_conflict(error):
                continue
            renewals += 1
            _renew_connection(error, number=renewals)
        else:
            return


def _renew_connection(error: Exception, *, number: int) -> None:
    """Reconnect, or raise the error: also where connecting failed, for which callers should not
    wait again.

    Events that a broken commit did store will be found as duplicates.
    """
    cause = error.__cause__
    is_timeout = isinstance(cause, psycopg.errors.ConnectionTimeout)
    cannot_connect = is_timeout or (isinstance(cause, psycopg.Error) and cause.pgconn is not None)
    if number > RENEWALS_MAX or cannot_connect or connection.in_atomic_block:
        raise error
    connection.close()
