"""Reads stored events, and keeps them from other changes: to rate, merge or take them back."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

from django.db import connection

from common.json_bodies import JsonObject
from common.queries import Parameter, Row
from metering.usage.columns import StoredEvent, column_list

STORED_COLUMNS: Final = column_list(StoredEvent._fields, "e.")
# What is sealed changes no more.
_NOT_FROZEN: Final = (
    "e.time >= coalesce((SELECT frozen_until FROM usage_seal WHERE tenant_id = %s), '-infinity')"
)


def lock_events(
    *, tenant_id: int, condition: str, parameters: Sequence[Parameter], limit: int
) -> list[StoredEvent]:
    """Return up to `limit` events that count and are not frozen, in order of time and id, kept from
    other changes until commit.

    `condition` is SQL of this package's own, never a caller's text.
    """
    return read_events(
        tenant_id=tenant_id,
        condition=f"NOT e.is_void AND {_NOT_FROZEN} AND {condition}",
        parameters=[tenant_id, *parameters],
        limit=limit,
        suffix="FOR UPDATE",
    )


def read_events(
    *,
    tenant_id: int,
    condition: str,
    parameters: Sequence[Parameter],
    limit: int | None,
    suffix: Literal["", "FOR UPDATE"] = "",
) -> list[StoredEvent]:
    """Return up to `limit` events, void ones included, in order of time and id."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {STORED_COLUMNS} FROM usage_event e WHERE e.tenant_id = %s"
            f" AND {condition} ORDER BY e.time, e.id LIMIT %s {suffix}",
            [tenant_id, *parameters, limit],
        )
        return [event_of(row) for row in cursor.fetchall()]


def lock_events_by_id(*, tenant_id: int, ids: Collection[int]) -> dict[int, StoredEvent]:
    """Return these events, void ones included, kept from other changes until commit."""
    if not ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {STORED_COLUMNS} FROM usage_event e WHERE e.tenant_id = %s AND e.id = ANY(%s)"
            " ORDER BY e.time, e.id FOR UPDATE",
            [tenant_id, list(ids)],
        )
        return {row[0]: event_of(row) for row in cursor.fetchall()}


def lock_events_of(*, tenant_id: int, times: Mapping[int, datetime]) -> dict[int, StoredEvent]:
    """Events whose times are known, by id, void ones included, kept from other changes until
    commit.
    """
    if not times:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {STORED_COLUMNS} FROM unnest(%s::bigint[], %s::timestamptz[]) AS n (id, time)"
            " JOIN usage_event e ON e.tenant_id = %s AND e.id = n.id AND e.time = n.time"
            f" AND {_NOT_FROZEN} ORDER BY e.time, e.id FOR UPDATE OF e",
            [list(times), list(times.values()), tenant_id, tenant_id],
        )
        return {row[0]: event_of(row) for row in cursor.fetchall()}


def event_of(row: Row) -> StoredEvent:
    """Return the event in a row of STORED_COLUMNS. Django's cursors leave jsonb as text."""
    event = StoredEvent(*row)
    if event.extra_usage is None and event.tags is None:
        return event
    return event._replace(extra_usage=_object(event.extra_usage), tags=_object(event.tags))


def _object(value: JsonObject | str | None) -> JsonObject | None:
    return json.loads(value) if isinstance(value, str) else value
