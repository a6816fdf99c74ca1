"""What a test committed goes before the next one begins, in place of Django's flush.

To truncate a table takes new files for it and all its indexes, even when it holds nothing. More
than a thousand tests commit a few rows each, so deleting those is 20 times faster. The connection
stays, too: to a new one, PostgreSQL reads again what it knows of every table.
"""

from django.db import connection
from django.test import TransactionTestCase

from metering.limits.halt_watch import forget_halts
from metering.usage.sources import PROCESS_RECORDER
from tenants.scope import platform_scope

# What a test's end leaves: the price catalogue is the same for all, and Django fills the rest once.
KEPT_TABLES = ("django_migrations", "django_content_type", "auth_permission", "catalogue_price")

# A table that holds more than this, of rows or of what is left of them, is truncated all the same.
LARGE_BYTES = 1024 * 1024

# Every table and partition that has pages, and whether it is to be truncated: it is large, or
# refuses to have rows deleted. One that others refer to could only be truncated with all of them.
TABLES_IN_USE = """
    SELECT quote_ident(relname), pg_relation_size(oid) > %s AND NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE contype = 'f' AND confrelid = pg_class.oid AND conrelid <> confrelid
    ) OR EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgname LIKE '%%_append_only'
    )
    FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    AND pg_relation_size(oid) > 0 AND relname <> ALL(%s)
    ORDER BY oid
"""


def empty_tables() -> None:
    """Remove all rows but those of KEPT_TABLES, in one transaction."""
    # Else its reading, which locks some tables in its own order, might meet the locks of all.
    forget_halts()
    PROCESS_RECORDER.forget()
    with platform_scope("empty the tables between tests"), connection.cursor() as cursor:
        # Only the tests empty tables whose rows are never removed.
        cursor.execute(
            "DROP TRIGGER IF EXISTS ledger_entry_no_truncate ON ledger_entry;"
            " DROP TRIGGER IF EXISTS audit_entry_no_truncate ON audit_entry;"
            " SET LOCAL spendgate.retention = 'on'"
        )
        cursor.execute(TABLES_IN_USE, [LARGE_BYTES, list(KEPT_TABLES)])
        # Foreign keys are judged at the commit, so the order does not matter.
        for table, is_truncated in cursor.fetchall():
            cursor.execute(f"TRUNCATE {table}" if is_truncated else f"DELETE FROM {table}")


def _teardown(self: TransactionTestCase) -> None:
    empty_tables()


def replace_flush() -> None:
    """See that every test that commits ends with `empty_tables`, and keeps its connection."""
    setattr(TransactionTestCase, "_fixture_teardown", _teardown)  # noqa: B010 - not in the stubs
    setattr(TransactionTestCase, "_should_reload_connections", lambda self: False)  # noqa: B010
