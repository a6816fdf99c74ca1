"""Find the decisions of a session, and the newest calls that belong to one."""

from django.db import migrations

DECISION_OF_SESSION = """
    CREATE INDEX decision_of_session ON decision (tenant_id, (dimensions -> 'session'))
        WHERE dimensions -> 'session' IS NOT NULL;
"""
# Lists of sessions read calls by time; in many tenants most calls belong to no session.
SESSION_CALLS = """
    CREATE INDEX usage_event_session_time ON usage_event (tenant_id, time, id) WHERE session <> '';
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0002_storage")]

    operations = [
        migrations.RunSQL(DECISION_OF_SESSION, "DROP INDEX decision_of_session"),
        migrations.RunSQL(SESSION_CALLS, "DROP INDEX usage_event_session_time"),
    ]
