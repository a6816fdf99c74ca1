"""Find the decisions of a session."""

from django.db import migrations

DECISION_OF_SESSION = """
    CREATE INDEX decision_of_session ON decision (tenant_id, (dimensions -> 'session'))
        WHERE dimensions -> 'session' IS NOT NULL;
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0002_storage")]

    operations = [migrations.RunSQL(DECISION_OF_SESSION, "DROP INDEX decision_of_session")]
