"""The table of event columns, the database and both ways of writing agree."""

import json

from django.db import connection
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.calls.ingest_job import IngestJob
from metering.calls.prepared_event import PreparedEvent
from metering.calls.storage import copy_incoming
from metering.intake.ingest import prepare_job
from metering.models import BATCH_ID_STRIDE, Route
from metering.usage.columns import WRITTEN, StoredEvent, column_list
from metering.usage.decoders.native import EventBody
from tests.factories import Account

AWKWARD = "a\tb\\c\nd"
TEXT_FIELDS = (
    *("team", "customer", "agent", "user", "feature", "session", "task", "trace", "model"),
    *("provider", "tool", "source", "span", "parent_span", "response_id", "request_id"),
    *("requested_model", "service_tier", "error_type", "tool_arguments_hash", "task_type"),
    *("output_hash", "prefix_hash"),
)
# Dimensions are normalized; what is left of the texts is stored as it was sent.
ESCAPED = TEXT_FIELDS[12:]


def full_event() -> EventBody:
    """An event with as many columns as one event can have."""
    usage = {
        "input_tokens": 900,
        "output_tokens": 50,
        "cache_read_input_tokens": 30,
        "cache_creation_input_tokens": 20,
        "cache_creation": {"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 0},
        "server_tool_use": {"web_search_requests": 2},
        "inference_geo": "us",
    }
    texts: JsonObject = {
        name: f"{name} {AWKWARD}" if name in ESCAPED else name for name in TEXT_FIELDS
    }
    return EventBody(
        **texts,
        latency_ms=7,
        time_to_first_token_ms=3,
        max_output_tokens=99,
        id=f"id {AWKWARD}",
        time=timezone.now(),
        usage=usage,
        operation="llm",
        status="error",
        step=2,
        complexity=0,
        saved_usd="0.25",
        tags={"tier": 5, "note": AWKWARD},
        reservation="01a22ae8-02dd-724b-872e-c9ecd6e4ef1f",
    )


def prepared(account: Account, body: EventBody) -> PreparedEvent:
    job: IngestJob = prepare_job([body], tenant_id=account.tenant.id, route=Route.NATIVE)
    assert not job.errors, job.errors
    return job.events[0]


def test_every_column_of_the_table_is_read_and_written(account: Account) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'usage_event'"
        )
        columns = {name for (name,) in cursor.fetchall()}
    assert columns == {*StoredEvent._fields, "tenant_id"}
    assert columns - set(WRITTEN) == {"is_void"}


def test_an_event_is_the_same_row_by_copy_and_as_json(account: Account) -> None:

    names = column_list(WRITTEN)
    for body in (full_event(), EventBody(id="least", cost_usd=1)):
        event = prepared(account, body)
        row = event.row(BATCH_ID_STRIDE, tenant_id=account.tenant.id)
        with account.scope(), connection.cursor() as cursor:
            copy_incoming(cursor, [event], BATCH_ID_STRIDE)
            cursor.execute(f"SELECT {names} FROM incoming")
            copied = cursor.fetchone()
            cursor.execute(
                f"SELECT {names} FROM json_populate_recordset(NULL::usage_event, %s::json)",
                [json.dumps([row], default=str)],
            )
            sent = cursor.fetchone()
        assert dict(zip(WRITTEN, copied, strict=True)) == dict(zip(WRITTEN, sent, strict=True))


def test_a_full_event_leaves_no_column_empty_that_a_report_can_fill(account: Account) -> None:
    row = prepared(account, full_event()).row(1, tenant_id=account.tenant.id)
    empty = {name for name, value in row.items() if value is None}
    assert empty == {"cost_nanos", "price_id", "input_audio_tokens", "output_audio_tokens"}
