"""Sequences, storage and row security of what enforces.

Locks: everything here is new and empty.
"""

from django.db import migrations

from tenants.row_security import ForceRowSecurity

SEQUENCES = """
    CREATE SEQUENCE decision_id CACHE 100;
    CREATE SEQUENCE pace_id;
    CREATE SEQUENCE breaker_state_id;
    CREATE SEQUENCE halt_version;
"""

# Rows that are updated all the time: room on the page keeps the new version beside the old one.
STORAGE = """
    ALTER TABLE reservation SET (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_insert_scale_factor = 1);
    ALTER TABLE pace SET (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05);
    ALTER TABLE breaker_state SET (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05);
    ALTER TABLE call_size SET (fillfactor = 70);
    ALTER TABLE decision SET (autovacuum_vacuum_insert_scale_factor = 1);
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0004_enforcement")]

    operations = [
        migrations.RunSQL(
            SEQUENCES,
            "DROP SEQUENCE decision_id; DROP SEQUENCE pace_id; DROP SEQUENCE breaker_state_id;"
            " DROP SEQUENCE halt_version",
        ),
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
        ForceRowSecurity(
            "reservation",
            "decision",
            "halt",
            "budget_raise",
            "model_route",
            "rate_limit",
            "pace",
            "breaker",
            "breaker_state",
            "tightening",
            "call_size",
            "simulation",
        ),
    ]
