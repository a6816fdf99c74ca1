"""Row security, and that what was promised to customers cannot change."""

from django.db import migrations

from tenants.row_security import ForceRowSecurity

# metering's function refuses any change. A draft may change and become final, and what is final
# may become void, in which nothing else changes. Of a credit note only what is unused changes.
NEVER_CHANGES = """
    CREATE TRIGGER plan_version_append_only BEFORE UPDATE OR DELETE ON plan_version
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER statement_line_append_only BEFORE UPDATE OR DELETE ON statement_line
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER statement_file_append_only BEFORE UPDATE OR DELETE ON statement_file
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE FUNCTION refuse_statement_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND current_setting('spendgate.retention', true) = 'on' THEN
            RETURN OLD;
        END IF;
        IF TG_OP = 'DELETE' OR OLD.state = 'void' OR NEW.state <> 'void'
            OR to_jsonb(OLD) - 'state' - 'voided_at' <> to_jsonb(NEW) - 'state' - 'voided_at'
        THEN
            RAISE EXCEPTION 'a final statement never changes; void it or write a credit note';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER statement_final BEFORE UPDATE OR DELETE ON statement
        FOR EACH ROW WHEN (OLD.state <> 'draft') EXECUTE FUNCTION refuse_statement_change();
    CREATE TRIGGER credit_entry_append_only BEFORE UPDATE OR DELETE ON credit_entry
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER credit_note_line_append_only BEFORE UPDATE OR DELETE ON credit_note_line
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER credit_note_application_append_only
        BEFORE UPDATE OR DELETE ON credit_note_application
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE FUNCTION refuse_credit_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND current_setting('spendgate.retention', true) = 'on' THEN
            RETURN OLD;
        END IF;
        IF TG_OP = 'DELETE' OR to_jsonb(OLD) - 'unused' <> to_jsonb(NEW) - 'unused' THEN
            RAISE EXCEPTION 'a credit note never changes';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER credit_note_final BEFORE UPDATE OR DELETE ON credit_note
        FOR EACH ROW EXECUTE FUNCTION refuse_credit_note_change();
"""
MAY_CHANGE = """
    DROP TRIGGER credit_note_final ON credit_note;
    DROP FUNCTION refuse_credit_note_change();
    DROP TRIGGER credit_note_application_append_only ON credit_note_application;
    DROP TRIGGER credit_note_line_append_only ON credit_note_line;
    DROP TRIGGER credit_entry_append_only ON credit_entry;
    DROP TRIGGER statement_final ON statement;
    DROP FUNCTION refuse_statement_change();
    DROP TRIGGER statement_file_append_only ON statement_file;
    DROP TRIGGER statement_line_append_only ON statement_line;
    DROP TRIGGER plan_version_append_only ON plan_version;
"""

STORAGE = [
    ForceRowSecurity(
        "billing_settings",
        "billing_series",
        "customer",
        "customer_link",
        "plan",
        "plan_version",
        "subscription",
        "statement",
        "statement_file",
        "statement_line",
        "coupon",
        "coupon_use",
        "credit_cover",
        "credit_entry",
        "credit_grant",
        "credit_note",
        "credit_note_application",
        "credit_note_line",
        "wallet",
        "provider_bill_line",
        "reconciliation",
        "reconciliation_drift",
        "reconciliation_settings",
        "stripe_settings",
        "stripe_account",
        "stripe_invoice",
        "stripe_event",
        "stripe_meter",
        "stripe_meter_value",
    ),
    migrations.RunSQL(NEVER_CHANGES, MAY_CHANGE),
]
