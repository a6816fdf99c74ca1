"""Stores the few events that settle, in one statement, where all of them are new.

`metering.calls.storage` does it for any number, and tells what was known before; it takes as many
round trips as a transaction has otherwise.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from metering.calls.events import PreparedEvent
from metering.calls.settlement import Stored
from metering.calls.storage import EVENT_COLUMNS
from metering.models import BATCH_ID_STRIDE
from tenants.pipeline import Pipeline


class KnownBefore(Exception):
    """Some event, or its provider's response, has been reported before."""


_encode: Final = msgspec.json.Encoder().encode
_SENT_COLUMNS: Final = ", ".join(
    f"b.id * {BATCH_ID_STRIDE} + n.id AS id" if name == "id" else f"n.{name}"
    for name in EVENT_COLUMNS.split(", ")
)
# Rows come with their places in the batch as ids. Where any key was there, no event is stored, and
# the caller starts anew with the other way.
_STORE: Final = f"""
    WITH b AS MATERIALIZED (
        SELECT nextval('ingest_batch_id') AS id
    ), sent AS MATERIALIZED (
        SELECT {_SENT_COLUMNS} FROM json_populate_recordset(NULL::usage_event, %s::json) n, b
    ), keys AS (
        INSERT INTO event_key (tenant_id, key, response_key, request_key, span_key, fingerprint,
            event_id, event_at)
        SELECT %s, n.key, n.response_key, n.request_key, n.span_key, n.fingerprint,
            b.id * {BATCH_ID_STRIDE} + n.event_id, n.event_at
        FROM json_populate_recordset(NULL::event_key, %s::json) n, b
        ON CONFLICT DO NOTHING RETURNING event_id
    ), batch AS (
        INSERT INTO ingest_batch (tenant_id, id, received_at, event_count, first_at, last_at)
        SELECT %s, min(b.id), now(), count(*), min(time), max(time) FROM sent, b
    )
    INSERT INTO usage_event ({EVENT_COLUMNS}) SELECT {EVENT_COLUMNS} FROM sent
    WHERE (SELECT count(*) FROM keys) = (SELECT count(*) FROM sent) RETURNING id
"""  # noqa: S608 - constant lists


def send_events(pipeline: Pipeline, events: Sequence[PreparedEvent], *, tenant_id: int) -> Any:
    """Send the statement that stores these events as a batch; its cursor goes to `stored_of`."""
    rows = [event.row(place, tenant_id=tenant_id) for place, event in enumerate(events)]
    keys: list[dict[str, Any]] = [
        {
            "key": event.key,
            "response_key": event.response_key,
            "request_key": event.request_key,
            "span_key": event.span_key,
            "fingerprint": event.fingerprint,
            "event_id": place,
            "event_at": event.at,
        }
        for place, event in enumerate(events)
    ]
    # In their own order, so that transactions with events in common wait one way only.
    keys.sort(key=lambda row: str(row["response_key"] or row["key"]))
    return pipeline.send(
        _STORE, [_encode(rows).decode(), tenant_id, _encode(keys).decode(), tenant_id]
    )


def stored_of(cursor: Any, events: Sequence[PreparedEvent]) -> Stored:
    """What was stored. Raises KnownBefore where nothing was, since not all were new."""
    rows = cursor.fetchall()
    if len(rows) != len(events):
        raise KnownBefore
    batch_id = rows[0][0] // BATCH_ID_STRIDE
    first_id = batch_id * BATCH_ID_STRIDE
    places = {id(event): first_id + place for place, event in enumerate(events)}
    return Stored(batch_id, list(events), places, {}, [], [], [])
