"""Row-level security on everything that belongs to a tenant, and an audit log that only grows.

`user_account` and `password_reset` have no policy: a person may belong to several tenants and signs in
before one is chosen. Nor has `sign_in_attempt`: it is written before it is known whose it is.
"""

from django.db import migrations

from tenants.row_security import ForceRowSecurity

# Retention alone removes entries, and says so in its transaction.
APPEND_ONLY = """
    CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND current_setting('spendgate.retention', true) = 'on' THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'rows of the audit log are never changed or removed';
    END $$;
    CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE ON audit_entry
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
    CREATE TRIGGER audit_entry_no_truncate BEFORE TRUNCATE ON audit_entry
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
"""

STORAGE = [
    migrations.RunSQL(
        "CREATE SEQUENCE configuration_version START 2", "DROP SEQUENCE configuration_version"
    ),
    ForceRowSecurity("tenant", column="id"),
    ForceRowSecurity(
        "team",
        "membership",
        "team_member",
        "invitation",
        "api_key",
        "audit_entry",
        "idempotency_record",
    ),
    migrations.RunSQL(APPEND_ONLY, "DROP FUNCTION refuse_audit_change() CASCADE"),
]
