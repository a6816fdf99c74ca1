"""Monthly partitions of usage_event: made ahead of time, protected like their parent."""

from datetime import UTC, date, datetime

from dateutil.relativedelta import relativedelta
from django.db import connection

from tenants.row_security import row_security_sql

MONTHS_AHEAD = 2


def partition_name(month: date) -> str:
    """The partition that holds a month (UTC)."""
    return f"usage_event_{month:%Y_%m}"


def make_partitions(*, first: date, last: date) -> list[str]:
    """See that a partition exists for every month from `first` to `last`; answer the new ones.

    Safe to run twice and by two at once: a lock lets one of them make what is missing. Row-level
    security of a parent does not bind queries that name a partition, so each gets its own.
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
                cursor.execute(row_security_sql(name))
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
    return (
        f"CREATE TABLE {name} PARTITION OF usage_event"
        f" FOR VALUES FROM ('{month:%Y-%m-%d} 00:00:00+00') TO ('{until:%Y-%m-%d} 00:00:00+00')"
        # Rows are only added: to look at all of them for every tenth row more is work for nothing.
        " WITH (autovacuum_vacuum_insert_scale_factor = 1, autovacuum_vacuum_insert_threshold ="
        " 500000, autovacuum_analyze_scale_factor = 0.5)"
    )
