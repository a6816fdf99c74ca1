"""The table of events, the sequences, and what protects facts.

Locks: everything here is new and empty.
"""

from django.db import migrations

from tenants.row_security import ForceRowSecurity

# Columns of fixed width come first: reading sums over millions of rows skips nothing to get at them.
CREATE_USAGE_EVENT = """
    CREATE TABLE usage_event (
        id bigint NOT NULL,
        time timestamptz NOT NULL,
        cost_nanos bigint,
        price_id bigint,
        input_tokens bigint NOT NULL,
        output_tokens bigint NOT NULL,
        cache_read_tokens bigint NOT NULL,
        cache_write_tokens bigint NOT NULL,
        reasoning_tokens bigint NOT NULL,
        tenant_id integer NOT NULL,
        operation smallint NOT NULL,
        status smallint NOT NULL,
        cost_source smallint NOT NULL,
        route smallint NOT NULL,
        is_void boolean NOT NULL DEFAULT false,
        team text NOT NULL,
        customer text NOT NULL,
        agent text NOT NULL,
        "user" text NOT NULL,
        feature text NOT NULL,
        model text NOT NULL,
        session text NOT NULL,
        task text NOT NULL,
        trace text NOT NULL,
        provider text NOT NULL,
        tool text NOT NULL,
        source text NOT NULL,
        sent_id text NOT NULL,
        span text,
        parent_span text,
        response_id text,
        requested_model text,
        service_tier text,
        error_type text,
        tool_arguments_hash text,
        task_type text,
        output_hash text,
        prefix_hash text,
        reservation_id uuid,
        extra_usage jsonb,
        tags jsonb,
        latency_ms bigint,
        time_to_first_token_ms bigint,
        max_output_tokens bigint,
        cache_write_1h_tokens bigint,
        input_audio_tokens bigint,
        output_audio_tokens bigint,
        web_searches bigint,
        saved_nanos bigint,
        step integer,
        complexity smallint
    ) PARTITION BY RANGE (time);
    CREATE INDEX usage_event_time ON usage_event (tenant_id, time, id);
    CREATE INDEX usage_event_id ON usage_event (tenant_id, id);
    CREATE INDEX usage_event_session ON usage_event (tenant_id, session) WHERE session <> '';
    CREATE INDEX usage_event_trace ON usage_event (tenant_id, trace) WHERE trace <> '';
    CREATE INDEX usage_event_unpriced ON usage_event (tenant_id, time) WHERE cost_source = 4;
"""

SEQUENCES = """
    CREATE SEQUENCE ingest_batch_id;
    CREATE SEQUENCE budget_window_id;
    CREATE SEQUENCE ledger_entry_id CACHE 100;
"""

APPEND_ONLY = """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of % are never changed or removed; write a correcting row', TG_TABLE_NAME;
    END $$;
    CREATE TRIGGER ledger_entry_append_only BEFORE UPDATE OR DELETE ON ledger_entry
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER ledger_entry_no_truncate BEFORE TRUNCATE ON ledger_entry
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

# Balances are updated all the time: room on the page keeps the new version beside the old one.
STORAGE = """
    ALTER TABLE budget_window SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
    ALTER TABLE usage_rollup SET (fillfactor = 80);
    -- These only grow: to look at all of them for every tenth row more is work for nothing.
    ALTER TABLE event_key SET (autovacuum_vacuum_insert_scale_factor = 1,
        autovacuum_vacuum_insert_threshold = 500000, autovacuum_analyze_scale_factor = 0.5);
    ALTER TABLE ledger_entry SET (autovacuum_vacuum_insert_scale_factor = 1,
        autovacuum_vacuum_insert_threshold = 500000, autovacuum_analyze_scale_factor = 0.5);
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0001_initial"), ("tenants", "0002_row_security")]

    operations = [
        migrations.RunSQL(CREATE_USAGE_EVENT, "DROP TABLE usage_event"),
        migrations.RunSQL(
            SEQUENCES,
            "DROP SEQUENCE ingest_batch_id; DROP SEQUENCE budget_window_id; DROP SEQUENCE ledger_entry_id",
        ),
        migrations.RunSQL(
            APPEND_ONLY,
            "DROP FUNCTION refuse_change() CASCADE",
        ),
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
        ForceRowSecurity(
            "usage_event",
            "ingest_batch",
            "event_key",
            "outcome",
            "correction",
            "budget",
            "budget_level",
            "budget_window",
            "ledger_entry",
            "crossing",
            "usage_rollup",
            "usage_histogram",
            "tenant_price",
            "tool_price",
        ),
    ]
