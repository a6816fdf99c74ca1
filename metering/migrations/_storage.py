"""What models cannot say: the table of events and its first partitions, sequences, storage, the
ledger that only grows, and row-level security.
"""

from django.conf import settings
from django.db import migrations
from django.utils import timezone

from metering.rollups.sets import OTHER
from metering.usage.partitions import make_due_partitions
from tenants.row_security import ForceRowSecurity

# Columns of fixed width come first: reading sums over millions of rows skips nothing to get at them.
# What many events lack comes last.
USAGE_EVENT = """
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
        authority smallint NOT NULL DEFAULT 1,
        completeness smallint NOT NULL DEFAULT 1,
        filled smallint NOT NULL DEFAULT 0,
        is_void boolean NOT NULL DEFAULT false,
        is_conflict boolean NOT NULL DEFAULT false,
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
        request_id text,
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
    CREATE INDEX usage_event_task ON usage_event (tenant_id, task) WHERE task <> '';
    CREATE INDEX usage_event_trace ON usage_event (tenant_id, trace) WHERE trace <> '';
    -- Cost source 4 is "unpriced".
    CREATE INDEX usage_event_unpriced ON usage_event (tenant_id, time) WHERE cost_source = 4;
    CREATE INDEX usage_event_conflict ON usage_event (tenant_id, time) WHERE is_conflict;
    -- Lists of sessions read calls by time; in many tenants most calls belong to no session.
    CREATE INDEX usage_event_session_time ON usage_event (tenant_id, time, id) WHERE session <> '';
    -- What savings are made of: few calls of many. Status 2 is "error".
    CREATE INDEX usage_event_saved ON usage_event (tenant_id, time) WHERE saved_nanos IS NOT NULL;
    CREATE INDEX usage_event_failed ON usage_event (tenant_id, time) WHERE status = 2;
    -- Bills read the calls of a customer by dimensions that no roll-up has.
    CREATE INDEX usage_event_customer ON usage_event (tenant_id, customer, time)
        WHERE customer <> '';
"""

# Finds holds whose outcome was never reported; state 4 is "expired".
UNKNOWN_HOLDS = """
    CREATE INDEX reservation_unknown ON reservation (tenant_id, expires_at, id)
        WHERE state = 4 AND event_id IS NULL;
"""

DECISION_OF_SESSION = """
    CREATE INDEX decision_of_session ON decision (tenant_id, (dimensions -> 'session'))
        WHERE dimensions -> 'session' IS NOT NULL;
"""

# Finds the buckets with a long tail, of which there are few: every answer asks whether there are any.
LONG_TAILS = f"""
    CREATE INDEX usage_rollup_long_tail ON usage_rollup (tenant_id, dimension_set, starts_at)
        WHERE value_1 = '{OTHER}';
"""

SEQUENCES = """
    CREATE SEQUENCE ingest_batch_id;
    CREATE SEQUENCE budget_window_id;
    CREATE SEQUENCE ledger_entry_id CACHE 100;
    CREATE SEQUENCE decision_id CACHE 100;
    CREATE SEQUENCE rate_counter_id;
    CREATE SEQUENCE breaker_state_id;
    CREATE SEQUENCE halt_version;
"""
DROP_SEQUENCES = """
    DROP SEQUENCE ingest_batch_id, budget_window_id, ledger_entry_id, decision_id, rate_counter_id,
        breaker_state_id, halt_version
"""

# Retention alone removes entries: it says so in the transaction in which it seals their sums.
APPEND_ONLY = """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND current_setting('spendgate.retention', true) = 'on' THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'rows of % are never changed or removed; write a correcting row', TG_TABLE_NAME;
    END $$;
    CREATE TRIGGER ledger_entry_append_only BEFORE UPDATE OR DELETE ON ledger_entry
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    CREATE TRIGGER ledger_entry_no_truncate BEFORE TRUNCATE ON ledger_entry
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

TABLE_OPTIONS = """
    -- Rows that are updated all the time: room on the page keeps the new version beside the old one.
    ALTER TABLE budget_window SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
    ALTER TABLE usage_rollup SET (fillfactor = 80);
    ALTER TABLE usage_histogram SET (fillfactor = 80);
    ALTER TABLE usage_combination SET (fillfactor = 80);
    ALTER TABLE reservation SET (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_insert_scale_factor = 1);
    ALTER TABLE rate_counter SET (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05);
    ALTER TABLE breaker_state SET (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05);
    ALTER TABLE call_size SET (fillfactor = 70);
    ALTER TABLE source_count SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
    -- These only grow: to look at all of them for every tenth row more is work for nothing.
    ALTER TABLE event_key SET (autovacuum_vacuum_insert_scale_factor = 1,
        autovacuum_vacuum_insert_threshold = 500000, autovacuum_analyze_scale_factor = 0.5);
    ALTER TABLE ledger_entry SET (autovacuum_vacuum_insert_scale_factor = 1,
        autovacuum_vacuum_insert_threshold = 500000, autovacuum_analyze_scale_factor = 0.5);
    ALTER TABLE decision SET (autovacuum_vacuum_insert_scale_factor = 1);
"""


def make_first_partitions(apps: object, schema_editor: object) -> None:
    """Make partitions for the events that may arrive from today on."""
    make_due_partitions(now=timezone.now(), max_age_days=settings.EVENT_MAX_AGE.days)


STORAGE = [
    migrations.RunSQL(USAGE_EVENT, "DROP TABLE usage_event"),
    migrations.RunSQL(UNKNOWN_HOLDS, "DROP INDEX reservation_unknown"),
    migrations.RunSQL(DECISION_OF_SESSION, "DROP INDEX decision_of_session"),
    migrations.RunSQL(LONG_TAILS, "DROP INDEX usage_rollup_long_tail"),
    migrations.RunSQL(SEQUENCES, DROP_SEQUENCES),
    migrations.RunSQL(APPEND_ONLY, "DROP FUNCTION refuse_change() CASCADE"),
    migrations.RunSQL(TABLE_OPTIONS, migrations.RunSQL.noop),
    ForceRowSecurity(
        "usage_event",
        "ingest_batch",
        "event_key",
        "call_report",
        "trace_span",
        "source_count",
        "outcome",
        "correction",
        "budget",
        "budget_level",
        "budget_window",
        "limit_increase",
        "ledger_entry",
        "crossing",
        "usage_rollup",
        "usage_histogram",
        "usage_combination",
        "usage_seal",
        "window_seal",
        "tenant_price",
        "tool_price",
        "reservation",
        "decision",
        "halt",
        "model_route",
        "attribute_mappings",
        "rate_limit",
        "rate_counter",
        "breaker",
        "breaker_state",
        "limit_reduction",
        "call_size",
        "simulation",
        "background_job",
        "annotation",
        "unit_count",
    ),
    migrations.RunPython(make_first_partitions, migrations.RunPython.noop),
]
