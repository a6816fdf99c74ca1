"""An index that finds the calls of a customer: bills read them by dimensions that no roll-up has.

It is built for one month after the other while events keep arriving, and can be built again after a
failure.
"""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

COLUMNS = "(tenant_id, customer, time) WHERE customer <> ''"
NAME = "usage_event_customer"
PARTITIONS = """
    SELECT p.inhrelid::regclass::text FROM pg_inherits p
    WHERE p.inhparent = 'usage_event'::regclass AND NOT EXISTS (
        SELECT FROM pg_inherits a JOIN pg_index i ON i.indexrelid = a.inhrelid
        WHERE a.inhparent = to_regclass(%s) AND i.indrelid = p.inhrelid
    )
"""


def build(apps: object, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Build the index of each partition by itself, then attach them all."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(PARTITIONS, [NAME])
        partitions = [name for (name,) in cursor.fetchall()]
        if not partitions:
            cursor.execute(f"CREATE INDEX IF NOT EXISTS {NAME} ON usage_event {COLUMNS}")
            return
        cursor.execute(f"CREATE INDEX IF NOT EXISTS {NAME} ON ONLY usage_event {COLUMNS}")
        for partition in partitions:
            # One that was being built when its server stopped is invalid.
            cursor.execute(f"DROP INDEX IF EXISTS {partition}_customer")
            cursor.execute(
                f"CREATE INDEX CONCURRENTLY {partition}_customer ON {partition} {COLUMNS}"
            )
            cursor.execute(f"ALTER INDEX {NAME} ATTACH PARTITION {partition}_customer")


def drop(apps: object, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Remove the index with those of the partitions."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {NAME}")


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("metering", "0005_combinations")]

    operations = [migrations.RunPython(build, drop)]
