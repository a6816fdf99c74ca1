"""Writes what merging decided: keys, reports and changed calls, with their roll-ups."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db import connection
from django.db.backends.utils import CursorWrapper

from metering.calls.identities import IDENTITIES, KeyRow
from metering.calls.report import Report, report_as_text
from metering.rollups import lock_batches, post_deltas
from metering.snapshot import ConfigurationChanged
from metering.usage.columns import KEYS, WRITTEN, StoredEvent, column_list, key_values

_encode: Final = msgspec.json.Encoder().encode


class MergeWrites:
    """What a transaction of merging is to write, collected call by call."""

    def __init__(self, tenant_id: int, known: Mapping[str, KeyRow]) -> None:
        self.tenant_id = tenant_id
        # The rows of `event_key` as they are.
        self._known = known
        self._keys: dict[str, dict[str, Any]] = {}
        self._reports: dict[str, dict[str, Any]] = {}
        self._updated: list[tuple[StoredEvent, dict[str, Any]]] = []
        self._inserted: list[dict[str, Any]] = []
        self._deleted: list[StoredEvent] = []
        self._moved_holds: list[tuple[UUID, int, int]] = []

    def insert(self, fields: dict[str, object]) -> None:
        """Note a new call, by column."""
        self._inserted.append(fields)

    def update(self, row: StoredEvent, fields: dict[str, Any]) -> None:
        """Note a call that changed."""
        self._updated.append((row, fields))

    def delete(self, row: StoredEvent) -> None:
        """Note a call that is part of another one, or turned out to be none."""
        self._deleted.append(row)

    def move_hold(self, reservation_id: UUID, before_id: int, event_id: int) -> None:
        """Move a reservation that was settled with `before_id` to another call."""
        self._moved_holds.append((reservation_id, before_id, event_id))

    def call_of(self, key: str) -> int | None:
        """Return the call that a report becomes part of; None if that does not change."""
        kept = self._keys.get(key)
        return kept["event_id"] if kept else None

    def forget(self, key: str) -> None:
        """Note that a report is withdrawn."""
        self._keys.setdefault(key, {})
        self._reports.setdefault(key, {})

    def keep(self, report: Report, call: StoredEvent, group_id: int | None) -> None:
        """Note a report of a call; without a group it is stored as the call's row."""
        call_of_key = {"key": report.key, "event_id": call.id, "event_at": call.time}
        self._keys[report.key] = {**call_of_key, **dict(zip(KEYS, key_values(report), strict=True))}
        is_grouped = group_id is not None
        grouped = {**call_of_key, "group_id": group_id, "report": report_as_text(report)}
        self._reports[report.key] = grouped if is_grouped else {}

    def write(self) -> None:
        """Write everything noted. Raises ConfigurationChanged if another transaction was faster."""
        changed = [*self._deleted, *(row for row, _ in self._updated)]
        rolled_up = lock_batches(
            tenant_id=self.tenant_id, batch_ids={row.batch_id for row in changed}
        )
        summed = [row.id for row in changed if row.batch_id in rolled_up]
        post_deltas(tenant_id=self.tenant_id, event_ids=summed, sign=-1)
        with connection.cursor() as cursor:
            self._write_keys(cursor)
            self._write_reports(cursor)
            _delete_events(cursor, self.tenant_id, self._deleted)
            _update_events(cursor, self.tenant_id, self._updated)
            _insert_events(cursor, self._inserted)
            _move_holds(cursor, self.tenant_id, self._moved_holds)
            _note_in_batches(cursor, self.tenant_id, self._updated)
        post_deltas(tenant_id=self.tenant_id, event_ids=summed, sign=1)

    def _write_keys(self, cursor: CursorWrapper) -> None:
        """Bring the rows of `event_key` up to date; each identity stands in one of them."""
        wanted = self._with_each_identity_once()
        gone = [
            key
            for key, row in self._known.items()
            if key in wanted
            and (
                not wanted[key]
                or any(getattr(row, name) != wanted[key][name] for name in IDENTITIES)
            )
        ]
        if gone:
            cursor.execute(
                "DELETE FROM event_key WHERE tenant_id = %s AND key = ANY(%s::uuid[])",
                [self.tenant_id, gone],
            )
        lacking = [
            row
            for key, row in sorted(wanted.items())
            if row and (key not in self._known or key in gone)
        ]
        if lacking:
            cursor.execute(_INSERT_KEYS, [self.tenant_id, _encode(lacking).decode()])
            if cursor.rowcount != len(lacking):
                # Another transaction wrote one of them meanwhile: look again.
                raise ConfigurationChanged
        kept = [
            row
            for key, row in wanted.items()
            if row and key in self._known and key not in gone and self._is_moved(row)
        ]
        if kept:
            cursor.execute(_UPDATE_KEYS, [_encode(kept).decode(), self.tenant_id])

    def _with_each_identity_once(self) -> dict[str, dict[str, object]]:
        taken = {
            (name, value)
            for key, row in self._known.items()
            if key not in self._keys
            for name in IDENTITIES
            if (value := getattr(row, name)) is not None
        }
        wanted: dict[str, dict[str, Any]] = {}
        # Rows that hold an identity keep it, so that few rows change.
        for key, row in sorted(self._keys.items(), key=lambda item: item[0] not in self._known):
            wanted[key] = dict(row)
            for name in IDENTITIES:
                value = row.get(name)
                if value is not None and (name, value) in taken:
                    wanted[key][name] = None
                taken.add((name, value))
        return wanted

    def _is_moved(self, row: Mapping[str, Any]) -> bool:
        known = self._known[row["key"]]
        return (known.event_id, known.event_at, known.fingerprint) != (
            row["event_id"],
            row["event_at"],
            row["fingerprint"],
        )

    def _write_reports(self, cursor: CursorWrapper) -> None:
        rows = [row for row in self._reports.values() if row]
        gone = [key for key, row in self._reports.items() if not row]
        if gone:
            cursor.execute(
                "DELETE FROM call_report WHERE tenant_id = %s AND key = ANY(%s::uuid[])",
                [self.tenant_id, gone],
            )
        if rows:
            cursor.execute(_PUT_REPORTS, [self.tenant_id, _encode(rows).decode()])


_KEY_COLUMNS: Final = column_list(KEYS)
_INSERT_KEYS: Final = f"""
    INSERT INTO event_key (tenant_id, {_KEY_COLUMNS}, event_id, event_at)
    SELECT %s, {_KEY_COLUMNS}, event_id, event_at
    FROM json_populate_recordset(NULL::event_key, %s::json) ON CONFLICT DO NOTHING
"""
_UPDATE_KEYS: Final = """
    UPDATE event_key k SET event_id = n.event_id, event_at = n.event_at,
        fingerprint = n.fingerprint
    FROM json_populate_recordset(NULL::event_key, %s::json) n
    WHERE k.tenant_id = %s AND k.key = n.key
"""
_PUT_REPORTS: Final = """
    INSERT INTO call_report (tenant_id, key, group_id, event_id, event_at, report)
    SELECT %s, key, group_id, event_id, event_at, report
    FROM json_populate_recordset(NULL::call_report, %s::json)
    ON CONFLICT (tenant_id, key) DO UPDATE SET group_id = excluded.group_id,
        event_id = excluded.event_id, event_at = excluded.event_at, report = excluded.report
"""
_COLUMNS: Final = column_list(WRITTEN)
_CHANGEABLE: Final = [name for name in WRITTEN if name not in ("tenant_id", "id")]
_UPDATE_EVENTS: Final = f"""
    UPDATE usage_event e SET {", ".join(f'"{name}" = n."{name}"' for name in _CHANGEABLE)}
    FROM json_populate_recordset(NULL::usage_event, %s::json) n
    JOIN unnest(%s::bigint[], %s::timestamptz[]) AS o (id, time) ON o.id = n.id
    WHERE e.tenant_id = %s AND e.id = o.id AND e.time = o.time
"""
_INSERT_EVENTS: Final = f"""
    INSERT INTO usage_event ({_COLUMNS})
    SELECT {_COLUMNS} FROM json_populate_recordset(NULL::usage_event, %s::json)
"""


def _delete_events(cursor: CursorWrapper, tenant_id: int, rows: Sequence[StoredEvent]) -> None:
    if rows:
        cursor.execute(
            "DELETE FROM usage_event e USING unnest(%s::bigint[], %s::timestamptz[])"
            " AS o (id, time) WHERE e.tenant_id = %s AND e.id = o.id AND e.time = o.time",
            [[row.id for row in rows], [row.time for row in rows], tenant_id],
        )


def _update_events(
    cursor: CursorWrapper, tenant_id: int, updated: Sequence[tuple[StoredEvent, dict[str, object]]]
) -> None:
    if updated:
        cursor.execute(
            _UPDATE_EVENTS,
            [
                _encode([fields for _, fields in updated]).decode(),
                [row.id for row, _ in updated],
                [row.time for row, _ in updated],
                tenant_id,
            ],
        )


def _insert_events(cursor: CursorWrapper, rows: Sequence[dict[str, object]]) -> None:
    if rows:
        cursor.execute(_INSERT_EVENTS, [_encode(rows).decode()])


def _note_in_batches(
    cursor: CursorWrapper, tenant_id: int, updated: Sequence[tuple[StoredEvent, dict[str, Any]]]
) -> None:
    """Batches span their events' times, and sessions that a call joined are looked at again."""
    times: dict[int, list[datetime]] = {}
    for row, fields in updated:
        if fields["time"] != row.time or fields["session"] != row.session:
            times.setdefault(row.batch_id, []).append(fields["time"])
    if times:
        cursor.execute(
            "UPDATE ingest_batch b SET first_at = least(b.first_at, n.first_at),"
            " last_at = greatest(b.last_at, n.last_at), sessions_checked_at = NULL"
            " FROM unnest(%s::bigint[], %s::timestamptz[], %s::timestamptz[])"
            " AS n (id, first_at, last_at) WHERE b.tenant_id = %s AND b.id = n.id",
            [
                list(times),
                [min(each) for each in times.values()],
                [max(each) for each in times.values()],
                tenant_id,
            ],
        )


def _move_holds(
    cursor: CursorWrapper, tenant_id: int, moved: Sequence[tuple[UUID, int, int]]
) -> None:
    if moved:
        cursor.execute(
            "UPDATE reservation r SET event_id = n.event_id"
            " FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[]) AS n (id, before_id, event_id)"
            " WHERE r.tenant_id = %s AND r.id = n.id AND r.event_id = n.before_id",
            [*map(list, zip(*moved, strict=True)), tenant_id],
        )


def stored_of_row(fields: Mapping[str, Any]) -> StoredEvent:
    """Return a call's row as it would be read again."""
    read = dict(fields, is_void=False)
    if read["reservation_id"] is not None:
        read["reservation_id"] = UUID(read["reservation_id"])
    return StoredEvent(*(read[name] for name in StoredEvent._fields))
