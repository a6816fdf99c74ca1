"""Retention may remove entries of the audit log. Locks: replacing the function waits for nobody."""

from django.db import migrations

FUNCTION = """
    CREATE OR REPLACE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {exception}
        RAISE EXCEPTION 'rows of the audit log are never changed or removed';
    END $$;
"""
RETENTION = """
        IF TG_OP = 'DELETE' AND current_setting('spendgate.retention', true) = 'on' THEN
            RETURN NULL;
        END IF;
"""


class Migration(migrations.Migration):
    dependencies = [("tenants", "0005_proven_addresses")]

    operations = [
        migrations.RunSQL(FUNCTION.format(exception=RETENTION), FUNCTION.format(exception=""))
    ]
