"""Monthly partitions of usage_event: made ahead of time, protected like their parent, and dropped
once every tenant's events in them are sealed.
"""

import time
from datetime import UTC, date, datetime
from typing import Final

import structlog
from dateutil.relativedelta import relativedelta
from django.db import OperationalError, connection

from common.database_errors import sqlstate_of
from tenants.row_security import row_security_sql
from tenants.scope import platform_scope

log = structlog.get_logger(__name__)

MONTHS_AHEAD: Final = 2
# To drop a partition locks the table of all events, and what arrives meanwhile waits behind it: so
# it gives up after this time, and is tried again.
DROP_LOCK_TIMEOUT: Final = "100ms"
DROP_TRIES: Final = 5
DROP_PAUSE_SECONDS: Final = 1.0
LOCK_NOT_AVAILABLE: Final = "55P03"


def partition_name(month: date) -> str:
    """Return the partition that holds a month (UTC)."""
    return f"usage_event_{month:%Y_%m}"


def make_partitions(*, first: date, last: date) -> list[str]:
    """See that a partition exists for every month from `first` to `last`; return the new ones.

    Safe to run twice, also simultaneously: a lock lets one of them make what is missing.
    Row-level security of a parent does not bind queries that name a partition, so each gets its
    own.
    """
    made = []
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(7302)")
        month = first.replace(day=1)
        while month <= last:
            name = partition_name(month)
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [name])
            if not cursor.fetchone()[0]:
                cursor.execute(_partition_sql(name, month))
                made.append(name)
            month += relativedelta(months=1)
    return made


def make_due_partitions(*, now: datetime, max_age_days: int) -> list[str]:
    """Partitions for every time that an event may carry now, and for the months ahead."""
    oldest = (now - relativedelta(days=max_age_days + 1)).astimezone(UTC).date()
    newest = (now + relativedelta(months=MONTHS_AHEAD)).astimezone(UTC).date()
    return make_partitions(first=oldest, last=newest)


def _partition_sql(name: str, month: date) -> str:
    until = month + relativedelta(months=1)
    # Made apart and attached, which locks out neither readers nor writers of the other months, as
    # CREATE TABLE … PARTITION OF would.
    return f"""
        CREATE TABLE {name} (LIKE usage_event INCLUDING ALL)
            -- Rows are only added: to look at all of them for every tenth row more is work for
            -- nothing.
            WITH (autovacuum_vacuum_insert_scale_factor = 1,
                autovacuum_vacuum_insert_threshold = 500000, autovacuum_analyze_scale_factor = 0.5);
        {row_security_sql(name)}
        ALTER TABLE usage_event ATTACH PARTITION {name}
            FOR VALUES FROM ('{month:%Y-%m-%d} 00:00:00+00') TO ('{until:%Y-%m-%d} 00:00:00+00');
    """


def drop_sealed_partitions(*, before: datetime) -> list[str]:
    """Drop partitions of months that end by `before` and are sealed for every tenant; return their
    names.

    One that stays locked by others is left for the next run, and so are the months after it.
    """
    dropped = []
    for name, ends_at in _partitions_before(before):
        if not _drop_when_free(name, ends_at):
            break
        log.info("partition dropped", partition=name)
        dropped.append(name)
    return dropped


def _drop_when_free(name: str, ends_at: datetime) -> bool:
    for _ in range(DROP_TRIES):
        try:
            with platform_scope("drop a month of sealed events"):
                return _drop(name, ends_at)
        except OperationalError as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise
        time.sleep(DROP_PAUSE_SECONDS)
    log.warning("partition in use, tried again later", partition=name)
    return False


def _partitions_before(before: datetime) -> list[tuple[str, datetime]]:
    """Return the partitions of months that end by then, with their ends, the oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'usage_event'::regclass ORDER BY c.relname"
        )
        names = [row[0] for row in cursor.fetchall()]
    ends = [
        (name, datetime.strptime(name, "usage_event_%Y_%m").replace(tzinfo=UTC)) for name in names
    ]
    ends = [(name, starts_at + relativedelta(months=1)) for name, starts_at in ends]
    return [(name, ends_at) for name, ends_at in ends if ends_at <= before]


def _drop(name: str, ends_at: datetime) -> bool:
    with connection.cursor() as cursor:
        # An index finds each tenant's first event; nothing is added to a month as old as this.
        cursor.execute(
            f"SELECT t.id FROM tenant t LEFT JOIN usage_seal s ON s.tenant_id = t.id"
            f" WHERE EXISTS (SELECT FROM {name} e WHERE e.tenant_id = t.id)"
            " AND coalesce(s.sealed_until < %s, true) LIMIT 1",
            [ends_at],
        )
        if cursor.fetchone() is not None:
            return False
        cursor.execute(f"SET LOCAL lock_timeout = '{DROP_LOCK_TIMEOUT}'")
        cursor.execute(f"DROP TABLE {name}")
    return True
