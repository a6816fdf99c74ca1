"""Stores the events of a transaction, their keys and their batch's row; merges what is known.

`store_events` takes any number by COPY and tells which calls were reported before. `send_events`
stores the few that settle reservations in one statement, if all of them are new.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Final
from uuid import UUID

import msgspec
from django.db import IntegrityError, connection
from django.db.backends.utils import CursorWrapper
from psycopg import Cursor
from psycopg.errors import UniqueViolation
from psycopg.rows import TupleRow

from common.errors import without_frames
from metering.calls.ingest_job import BatchReports, IngestJob
from metering.calls.merge_transaction import NOTHING_MERGED, MergeResult, MergeTransaction
from metering.calls.movements import movements
from metering.calls.prepared_event import PreparedEvent
from metering.calls.settlement import Stored
from metering.ledger.holds import LockedReservation
from metering.models import BATCH_ID_STRIDE, SourceOutcome
from metering.snapshot import Configuration
from metering.usage.columns import COPIED, KEYS, WRITTEN, column_list, key_values
from tenants.pipeline import Pipeline

_COLUMNS: Final = column_list(WRITTEN)
_KEY_COLUMNS: Final = column_list(KEYS)
# One statement, so that every transaction may ask for the table; it lives as long as the
# connection.
_CREATE_INCOMING: Final = """
    CREATE TEMPORARY TABLE IF NOT EXISTS incoming (
        LIKE usage_event INCLUDING DEFAULTS, key uuid, response_key uuid, request_key uuid,
        span_key uuid, fingerprint uuid
    ) ON COMMIT DELETE ROWS
"""
_COPY: Final = f"COPY incoming ({column_list(COPIED)}) FROM STDIN"
_INSERT_KEYS: Final = f"""
    INSERT INTO event_key (tenant_id, {_KEY_COLUMNS}, event_id, event_at)
    SELECT tenant_id, {_KEY_COLUMNS}, id, time FROM incoming
    ORDER BY coalesce(response_key, key), id
"""
_CLAIM_KEYS: Final = f"{_INSERT_KEYS} ON CONFLICT DO NOTHING"
_INSERT: Final = f"INSERT INTO usage_event ({_COLUMNS}) SELECT {_COLUMNS} FROM"
_BATCH_COLUMNS: Final = "tenant_id, id, received_at, event_count, first_at, last_at"


def store_events(
    configuration: Configuration,
    jobs: Sequence[IngestJob],
    reservations: Mapping[UUID, LockedReservation],
    withdrawn: Collection[str] = (),
    *,
    are_new: bool = False,
) -> Stored:
    """Store the new events with their keys and their batch's row; merge reports of known calls.

    The caller posts what that adds to windows, in this transaction. Where all reports `are_new`
    their keys are not looked up first: raises KnownBefore, which ends the transaction, if one is.
    """
    tenant_id = configuration.tenant_id
    reports = BatchReports(jobs)
    with connection.cursor() as cursor:
        batch_id = next_batch_id(cursor)
        first_id = batch_id * BATCH_ID_STRIDE
        unique, linked = _apart_from_settled(reports.unique, first_id, reservations)
        copy_incoming(cursor, unique, first_id)
        claim = _insert_keys if are_new else _claim_keys
        fresh = claim(cursor, tenant_id, unique, first_id)
        if fresh:
            insert_incoming(cursor)
        event_ids = {id(event): id_ for id_, event in enumerate(unique, first_id)}
        is_fresh = {id(event) for event in fresh}
        late = [event for event in reports.unique if id(event) not in is_fresh]
        # Ids for calls that merging takes apart: those of events that are no new call, and those of
        # the batch beyond its events.
        free_ids = chain(
            [id_ for key, id_ in event_ids.items() if key not in is_fresh],
            range(first_id + len(reports.unique), first_id + BATCH_ID_STRIDE),
        )
        if late:
            late = _without_repeats(tenant_id, late, reports, event_ids)
        merged = NOTHING_MERGED
        if late or withdrawn:
            merging = MergeTransaction(configuration, free_ids=free_ids)
            merged = merging.merge(late, linked=linked, withdrawn=withdrawn)
        _write_batch(cursor, tenant_id, batch_id, fresh, merged)
    reports.settle(fresh, merged)
    return Stored(
        batch_id,
        fresh,
        event_ids | merged.event_ids,
        merged.calls,
        merged.inserted,
        merged.changes,
        movements(configuration.budgets, merged.changes) if merged.changes else [],
    )


def _write_batch(
    cursor: CursorWrapper,
    tenant_id: int,
    batch_id: int,
    fresh: Sequence[PreparedEvent],
    merged: MergeResult,
) -> None:
    """Write the batch's row, unless it stored no event."""
    times = [event.at for event in (*fresh, *merged.inserted)]
    if times:
        count = len(times)
        times += [change.after.time for change in merged.changes if change.after is not None]
        write_batch_row(cursor, tenant_id, batch_id, count, times)


def _apart_from_settled(
    events: Sequence[PreparedEvent], first_id: int, reservations: Mapping[UUID, LockedReservation]
) -> tuple[list[PreparedEvent], dict[int, int]]:
    """Return the events that may be new calls, and the call of each other event.

    The others name a reservation that a call has settled, or that another of these events does.
    """
    unique: list[PreparedEvent] = []
    linked: dict[int, int] = {}
    settling: dict[UUID, int] = {}
    for event in events:
        reservation = reservations.get(event.held.id) if event.held is not None else None
        if reservation is None:
            unique.append(event)
        elif reservation.event_id is not None:
            linked[id(event)] = reservation.event_id
        elif reservation.held.id in settling:
            linked[id(event)] = settling[reservation.held.id]
        else:
            settling[reservation.held.id] = first_id + len(unique)
            unique.append(event)
    return unique, linked


def _without_repeats(
    tenant_id: int,
    events: Sequence[PreparedEvent],
    reports: BatchReports,
    event_ids: dict[int, int],
) -> list[PreparedEvent]:
    """Return the events that were not sent before just as they are; others need no locks."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT replace(key::text, '-', ''), replace(fingerprint::text, '-', ''), event_id"
            " FROM event_key WHERE tenant_id = %s AND key = ANY(%s::uuid[])",
            [tenant_id, [event.key for event in events]],
        )
        known = {key: (fingerprint, event_id) for key, fingerprint, event_id in cursor.fetchall()}
    others = []
    for event in events:
        fingerprint, event_id = known.get(event.key, ("", 0))
        if fingerprint == event.fingerprint:
            event_ids[id(event)] = event_id
            reports.count(event, SourceOutcome.DUPLICATE)
        else:
            others.append(event)
    return others


def next_batch_id(cursor: CursorWrapper) -> int:
    """Return a number for the batch. It rises with every transaction that begins to write."""
    cursor.execute("SELECT nextval('ingest_batch_id')")
    return int(cursor.fetchone()[0])


def copy_incoming(cursor: CursorWrapper, events: Sequence[PreparedEvent], first_id: int) -> None:
    """Put events into the connection's temporary table, under the ids they would get."""
    cursor.execute(_CREATE_INCOMING)
    if connection.savepoint_ids:
        # Within a larger transaction the table may hold what an earlier call left.
        cursor.execute("DELETE FROM incoming")
    lines = "".join([event.line(id_) for id_, event in enumerate(events, first_id)])
    # This goes straight to psycopg: Django has to be told of its errors, that the connection broke
    # as well as that PostgreSQL refuses a value.
    with connection.wrap_database_errors, cursor.cursor.copy(_COPY) as copy:
        copy.write(lines)


def _insert_keys(
    cursor: CursorWrapper, tenant_id: int, events: Sequence[PreparedEvent], first_id: int
) -> list[PreparedEvent]:
    """Write the keys of events, all of which must be new. Raises KnownBefore."""
    try:
        cursor.execute(_INSERT_KEYS)
    except IntegrityError as error:
        if not isinstance(error.__cause__, UniqueViolation):
            raise
        without_frames(error)
    else:
        return list(events)
    raise KnownBefore


def _claim_keys(
    cursor: CursorWrapper, tenant_id: int, events: Sequence[PreparedEvent], first_id: int
) -> list[PreparedEvent]:
    """Write the keys of events none of whose identities is known; return these events.

    Keys are inserted in their own order, so that transactions with events in common wait for each
    other in one direction only.
    """
    if not events:
        return []
    cursor.execute(_CLAIM_KEYS)
    if cursor.rowcount == len(events):
        return list(events)
    cursor.execute(
        # LIMIT keeps this a look-up by index, whatever the planner thinks of a new table.
        "SELECT i.id FROM incoming i LEFT JOIN LATERAL (SELECT event_id FROM event_key k"
        " WHERE k.tenant_id = %s AND k.key = i.key LIMIT 1) k ON true"
        " WHERE k.event_id IS DISTINCT FROM i.id",
        [tenant_id],
    )
    known = {row[0] for row in cursor.fetchall()}
    cursor.execute("DELETE FROM incoming WHERE id = ANY(%s)", [list(known)])
    return [event for id_, event in enumerate(events, first_id) if id_ not in known]


def insert_incoming(cursor: CursorWrapper) -> None:
    """Store the events of the temporary table."""
    cursor.execute(f"{_INSERT} incoming")


def write_batch_row(
    cursor: CursorWrapper, tenant_id: int, batch_id: int, count: int, times: Sequence[datetime]
) -> None:
    """Write the row that roll-ups and everything else derived from these events will claim."""
    cursor.execute(
        f"INSERT INTO ingest_batch ({_BATCH_COLUMNS}) VALUES (%s, %s, now(), %s, %s, %s)",
        [tenant_id, batch_id, count, min(times), max(times)],
    )


class KnownBefore(Exception):
    """An event, or its provider's response, has been reported before."""


_encode: Final = msgspec.json.Encoder().encode
_SENT_COLUMNS: Final = f"b.id * {BATCH_ID_STRIDE} + n.id, {column_list(WRITTEN[1:], 'n.')}"
# A batch of calls without sessions has none that could be checked for loops.
# Rows come with their positions in the batch as ids. If any key is known no event is stored, and
# the caller begins again with `store_events`.
_STORE: Final = f"""
    WITH b AS MATERIALIZED (
        SELECT nextval('ingest_batch_id') AS id
    ), sent ({_COLUMNS}) AS MATERIALIZED (
        SELECT {_SENT_COLUMNS} FROM json_populate_recordset(NULL::usage_event, %s::json) n, b
    ), keys AS (
        INSERT INTO event_key (tenant_id, {_KEY_COLUMNS}, event_id, event_at)
        SELECT %s, {column_list(KEYS, "n.")}, b.id * {BATCH_ID_STRIDE} + n.event_id, n.event_at
        FROM json_populate_recordset(NULL::event_key, %s::json) n, b
        ON CONFLICT DO NOTHING RETURNING event_id
    ), batch AS (
        INSERT INTO ingest_batch ({_BATCH_COLUMNS}, sessions_checked_at)
        SELECT %s, min(b.id), now(), count(*), min(time), max(time),
            CASE WHEN bool_or(session <> '') THEN NULL ELSE now() END FROM sent, b
    )
    {_INSERT} sent
    WHERE (SELECT count(*) FROM keys) = (SELECT count(*) FROM sent) RETURNING id
"""


def send_events(
    pipeline: Pipeline, events: Sequence[PreparedEvent], *, tenant_id: int
) -> Cursor[TupleRow]:
    """Send the statement that stores these events as a batch; pass its cursor to `stored_of`."""
    rows = [event.row(index, tenant_id=tenant_id) for index, event in enumerate(events)]
    keys = [
        dict(zip(KEYS, key_values(event), strict=True), event_id=index, event_at=event.at)
        for index, event in enumerate(events)
    ]
    # In their own order, so that transactions with events in common wait one way only.
    keys.sort(key=lambda row: str(row["response_key"] or row["key"]))
    return pipeline.send(
        _STORE, [_encode(rows).decode(), tenant_id, _encode(keys).decode(), tenant_id]
    )


def stored_of(cursor: CursorWrapper | Cursor[TupleRow], events: Sequence[PreparedEvent]) -> Stored:
    """Return what was stored. Raises KnownBefore if nothing was because not all were new."""
    rows = cursor.fetchall()
    if len(rows) != len(events):
        raise KnownBefore
    batch_id = rows[0][0] // BATCH_ID_STRIDE
    event_ids = {id(event): id_ for id_, event in enumerate(events, batch_id * BATCH_ID_STRIDE)}
    return Stored(batch_id, list(events), event_ids, {}, [], [], [])
