"""Reports of calls that are known: found by what they share, merged, and written.

Called within the transaction of ingest, after the keys of new reports were claimed. Whoever merges
holds the tenant's merge lock: two transactions that bring reports of one call come one after the
other, by whatever identity each of them found it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from django.db import connection

from metering.calls.merging import Call, Merged, calls_of, merge, order_of
from metering.calls.report import (
    Report,
    report_as_text,
    report_from_text,
    report_of_event,
    report_of_row,
)
from metering.configuration import Configuration, ConfigurationChanged
from metering.decoders.native import EventBody
from metering.enforcement.holds import Held, find_held
from metering.events import (
    COPY_COLUMNS,
    MISSING,
    PreparedEvent,
    inherit,
    key_of_id,
    reservation_of,
)
from metering.models import Route
from metering.rollups import lock_batches, post_deltas
from metering.stored_events import (
    Change,
    StoredEvent,
    lock_events_by_id,
    lock_events_of,
)

MERGE_LOCK: Final = 7304
# Reports of one group. A report beyond that is a call of its own, marked as a conflict.
GROUP_REPORTS_MAX: Final = 64

_encode: Final = msgspec.json.Encoder().encode
_KEYS: Final = ("response_key", "request_key", "key", "fingerprint", "span_key")
EVENT_COLUMNS: Final = ", ".join(
    [name for name in COPY_COLUMNS.split(", ") if name not in _KEYS] + ["is_conflict"]
)
# What a call is known by in the service; all else is content.
_NO_CONTENT: Final = frozenset({"id", "source", "sent_id", "route", "authority", "filled"})


class Known(NamedTuple):
    """What became of reports whose identities were known."""

    # Per report, by `id(event)`: merged, duplicate, conflict (of ids) or accepted.
    outcomes: dict[int, str]
    # The call that a report belongs to, by `id(event)`.
    event_ids: dict[int, int]
    # The call that a report became part of, by `id(event)`, as it is now.
    calls: dict[int, StoredEvent]
    changes: list[Change]
    # Calls that are new: contradictions of what was known.
    inserted: list[PreparedEvent]


class _KeyRow(NamedTuple):
    key: str
    response_key: str | None
    request_key: str | None
    span_key: str | None
    fingerprint: str
    group_id: int | None
    event_id: int
    event_at: datetime


_KEY_COLUMNS: Final = (
    ", ".join(f"replace(k.{name}::text, '-', '')" for name in _KeyRow._fields[:5])
    + ", r.group_id, k.event_id, k.event_at"
)


# PostgreSQL has no statistics of a new tenant, and takes any index that begins with the tenant for
# good enough. "+ 0" leaves it the index of the other column; LIMIT keeps it a look-up.
_LOOK_UP: Final = f"""
    SELECT {_KEY_COLUMNS} FROM unnest(%s::uuid[]) AS n (value)
    CROSS JOIN LATERAL (
        SELECT * FROM event_key k WHERE k.tenant_id{{unless_key}} = %s AND k.{{name}} = n.value
        LIMIT 1
    ) k LEFT JOIN LATERAL (
        SELECT group_id FROM call_report r WHERE r.tenant_id = %s AND r.key = k.key LIMIT 1
    ) r ON true
"""  # noqa: S608 - constant lists


class Member(NamedTuple):
    """A report of a group, and the call that it belongs to; None: to none yet."""

    report: Report
    event_id: int | None


def lock_merging(tenant_id: int) -> None:
    """Let no other transaction of the tenant merge reports until this one ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [MERGE_LOCK, tenant_id])


class Absorber:
    """Merges reports with what is known of their calls. One transaction uses it once."""

    def __init__(self, configuration: Configuration, *, free_ids: Iterator[int]) -> None:
        self.configuration = configuration
        self.tenant_id = configuration.tenant_id
        self.outcomes: dict[int, str] = {}
        self.event_ids: dict[int, int] = {}
        self.calls: dict[int, StoredEvent] = {}
        self.changes: list[Change] = []
        self.inserted: list[PreparedEvent] = []
        # For calls that are new: ids of this transaction's batch.
        self._free_ids = free_ids
        self._key_rows: dict[str, _KeyRow] = {}
        self._members: dict[str, Member] = {}
        self._rows: dict[int, StoredEvent] = {}
        # What is to be written.
        self._wanted_keys: dict[str, dict[str, Any]] = {}
        self._wanted_reports: dict[str, dict[str, Any]] = {}
        self._updated: list[tuple[StoredEvent, dict[str, Any]]] = []
        self._new_rows: list[dict[str, Any]] = []
        self._deleted: list[StoredEvent] = []
        self._moved_holds: list[tuple[UUID, int]] = []

    def absorb(
        self,
        events: Sequence[PreparedEvent],
        *,
        linked: Mapping[int, int],
        withdrawn: Collection[str] = (),
    ) -> Known:
        """Merge `events` with the calls that they share an identity with.

        `linked` gives events (by `id(event)`) the call of the reservation that they name, and
        `withdrawn` are keys of reports that turned out to be none.
        """
        lock_merging(self.tenant_id)
        pending = self._find(events, linked, withdrawn)
        arrived = {self._key_of(event): event for event in pending}
        for group in self._groups(arrived, linked, withdrawn):
            self._resolve(group, arrived, set(withdrawn))
        self._write()
        return Known(self.outcomes, self.event_ids, self.calls, self.changes, self.inserted)

    # Finding

    def _find(
        self,
        events: Sequence[PreparedEvent],
        linked: Mapping[int, int],
        withdrawn: Collection[str],
    ) -> list[PreparedEvent]:
        """Load what the events' identities lead to; answer the events that are reports to merge."""
        keys = {event.key for event in events} | set(withdrawn)
        keys |= {_settle_key(event) for event in events if event.route is Route.SETTLE}
        self._load_keys(
            key=keys,
            response_key=[event.response_key for event in events],
            request_key=[event.request_key for event in events],
            span_key=[event.span_key for event in events],
        )
        pending = [event for event in events if self._is_pending(event)]
        self._rows = lock_events_by_id(tenant_id=self.tenant_id, ids=set(linked.values()))
        self._load_keys(key=[key_of_id(row.source, row.sent_id) for row in self._rows.values()])
        groups = {row.group_id for row in self._key_rows.values() if row.group_id is not None}
        if groups:
            self._load_reports(groups)
        times = {row.event_id: row.event_at for row in self._key_rows.values()}
        self._rows |= lock_events_of(
            tenant_id=self.tenant_id,
            times={id_: at for id_, at in times.items() if id_ not in self._rows},
        )
        for row in self._key_rows.values():
            if row.group_id is None and row.event_id in self._rows:
                report = report_of_row(self._rows[row.event_id], row._asdict())
                self._members[row.key] = Member(report, row.event_id)
        return pending

    def _load_keys(self, **wanted: Iterable[str | None]) -> None:
        """Load the rows of `event_key` with these values, by column."""
        branches: list[str] = []
        parameters: list[Any] = []
        for name, values in wanted.items():
            if present := sorted({value for value in values if value is not None}):
                unless_key = "" if name == "key" else " + 0"
                branches.append(_LOOK_UP.format(name=name, unless_key=unless_key))
                parameters += [present, self.tenant_id, self.tenant_id]
        if not branches:
            return
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(branches), parameters)
            for row in cursor.fetchall():
                self._key_rows[row[0]] = _KeyRow(*row)

    def _load_reports(self, groups: Iterable[int]) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT r.event_id, r.report FROM unnest(%s::bigint[]) AS n (id)"
                " JOIN LATERAL (SELECT event_id, report FROM call_report r"
                " WHERE r.tenant_id + 0 = %s AND r.group_id = n.id LIMIT %s) r ON true",
                [list(groups), self.tenant_id, 2 * GROUP_REPORTS_MAX],
            )
            for event_id, text in cursor.fetchall():
                report = report_from_text(text)
                self._members[report.key] = Member(report, event_id)
        self._load_keys(key=list(self._members))

    def _is_pending(self, event: PreparedEvent) -> bool:
        """Whether an event is a report to merge, not one that was sent before."""
        known = self._key_rows.get(event.key)
        if known is None:
            return True
        if known.fingerprint == event.fingerprint:
            self.outcomes[id(event)] = "duplicate"
            self.event_ids[id(event)] = known.event_id
            return False
        if event.route is Route.OTLP:
            return True
        if event.route is Route.SETTLE and _settle_key(event) not in self._key_rows:
            return True
        self.outcomes[id(event)] = "conflict"
        return False

    def _key_of(self, event: PreparedEvent) -> str:
        """The key that a report gets. A client may name its call alike in its event and in its
        settle: these are two reports all the same.
        """
        known = self._key_rows.get(event.key)
        is_second = known is not None and known.fingerprint != event.fingerprint
        return _settle_key(event) if is_second and event.route is Route.SETTLE else event.key

    # Merging

    def _groups(
        self,
        arrived: Mapping[str, PreparedEvent],
        linked: Mapping[int, int],
        withdrawn: Collection[str],
    ) -> list[dict[str, Member]]:
        """All reports that are connected by identities with those that arrived or are withdrawn."""
        reports = {key: member.report for key, member in self._members.items()}
        reports |= {
            key: msgspec.structs.replace(report_of_event(event), key=key)
            for key, event in arrived.items()
        }
        sets = _DisjointSets(reports)
        by_event = {member.event_id: key for key, member in self._members.items()}
        holders: dict[Any, str] = {}
        for key, report in reports.items():
            for place in self._places(key, report):
                sets.join(key, holders.setdefault(place, key))
            event = arrived.get(key)
            if event is not None and (event_id := linked.get(id(event))) in by_event:
                sets.join(key, by_event[event_id])
        roots = {sets.root(key) for key in (*arrived, *withdrawn) if key in reports}
        groups: dict[str, dict[str, Member]] = {root: {} for root in roots}
        for key, report in reports.items():
            if (root := sets.root(key)) in groups:
                known = self._members.get(key)
                groups[root][key] = Member(report, known.event_id if known else None)
        return list(groups.values())

    def _places(self, key: str, report: Report) -> list[Any]:
        """Where a report meets others: its identities, those it had before, and its group."""
        places: list[Any] = [*report.identities]
        if key in self._members:
            places += self._members[key].report.identities
        row = self._key_rows.get(key)
        return places if row is None or row.group_id is None else [*places, row.group_id]

    def _resolve(
        self,
        group: dict[str, Member],
        arrived: Mapping[str, PreparedEvent],
        withdrawn: set[str],
    ) -> None:
        known_ids = {member.event_id for member in group.values() if member.event_id is not None}
        rows = {id_: self._rows[id_] for id_ in known_ids if id_ in self._rows}
        if any(row.is_void or row.route == Route.CORRECTION for row in rows.values()):
            self._keep_corrected(group, arrived)
            return
        reports = [member.report for key, member in group.items() if key not in withdrawn]
        if len(reports) > GROUP_REPORTS_MAX:
            self._keep_apart(group, arrived)
            return
        calls = calls_of(reports)
        group_id = self._group_id(group, rows)
        free = dict(rows)
        for call in calls:
            row = self._row_for(call, group, free)
            self._put(call, row, group_id if len(reports) > 1 else None, arrived, group)
        for row in free.values():
            self._deleted.append(row)
            self.changes.append(Change(row, None))
        for key in group.keys() & withdrawn:
            self._wanted_keys.setdefault(key, {})
            self._wanted_reports.setdefault(key, {})

    def _group_id(self, group: Mapping[str, Member], rows: Mapping[int, StoredEvent]) -> int:
        known = [
            row.group_id
            for key in group
            if (row := self._key_rows.get(key)) is not None and row.group_id is not None
        ]
        if known:
            return min(known)
        return min(rows) if rows else self._take_id()

    def _take_id(self) -> int:
        return next(self._free_ids)

    def _row_for(
        self, call: Call, group: Mapping[str, Member], free: dict[int, StoredEvent]
    ) -> StoredEvent | None:
        """The stored call that this one goes on as: the one that settled a reservation, else the
        oldest.
        """
        ids = {
            id_
            for report in call.reports
            if (id_ := group[report.key].event_id) is not None and id_ in free
        }
        if not ids:
            return None
        return free.pop(min(ids, key=lambda id_: (free[id_].reservation_id is None, id_)))

    def _put(
        self,
        call: Call,
        row: StoredEvent | None,
        group_id: int | None,
        arrived: Mapping[str, PreparedEvent],
        group: Mapping[str, Member],
    ) -> None:
        """Write down what a call is now, and what became of the reports that arrived."""
        if row is not None and self._is_told_already(call, row, group):
            self._note_members(call, row, group_id)
            self._note_outcomes(call, row, False, False, arrived)
            return
        event = self._prepare(call)
        event_id = self._take_id() if row is None else row.id
        fields = event.row(event_id, tenant_id=self.tenant_id) | {"is_conflict": call.is_conflict}
        after = stored_of_row(fields)
        is_changed = False
        if row is None:
            self._new_rows.append(fields)
            self.inserted.append(event)
            self.changes.append(Change(None, after))
        elif after != row:
            is_changed = _content(after) != _content(row)
            self._updated.append((row, fields))
            self.changes.append(Change(row, after))
        self._note_members(call, after, group_id)
        self._note_outcomes(call, after, row is None, is_changed, arrived)
        self._move_holds(call, event_id, group)

    def _is_told_already(self, call: Call, row: StoredEvent, group: Mapping[str, Member]) -> bool:
        """Whether a stored call is what it would be without the reports that arrived."""
        known = [
            self._members[report.key].report
            for report in call.reports
            if report.key in self._members and group[report.key].event_id == row.id
        ]
        members = sum(member.event_id == row.id for member in group.values())
        if len(known) != members or row.is_conflict != call.is_conflict:
            return False
        before, after = (
            merge([self._with_its_reservation(report) for report in reports])
            for reports in (sorted(known, key=order_of), call.reports)
        )
        return before == after

    def _with_its_reservation(self, report: Report) -> Report:
        """The report with what it leaves out taken from the reservation that it names, which is
        then told by whoever is believed as much as the report.
        """
        held = self._held(report.told)
        if held is None:
            return report
        used = report.tokens
        counts = (used.input_tokens, used.output_tokens)
        told = report.told
        if any(counts):
            told = msgspec.structs.replace(told, input_tokens=counts[0], output_tokens=counts[1])
        told = inherit(told, held)
        # A reservation is of a model call unless it says otherwise; the report may know better.
        operation = "tool" if told.operation == "tool" else report.told.operation
        return msgspec.structs.replace(
            report, told=msgspec.structs.replace(told, operation=operation)
        )

    def _note_members(self, call: Call, after: StoredEvent, group_id: int | None) -> None:
        for report in call.reports:
            self._wanted_keys[report.key] = {
                "key": report.key,
                "response_key": report.response_key,
                "request_key": report.request_key,
                "span_key": report.span_key,
                "fingerprint": report.fingerprint,
                "event_id": after.id,
                "event_at": after.time,
            }
            self._wanted_reports[report.key] = (
                {
                    "key": report.key,
                    "group_id": group_id,
                    "event_id": after.id,
                    "event_at": after.time,
                    "report": report_as_text(report),
                }
                if group_id is not None
                else {}
            )

    def _note_outcomes(
        self,
        call: Call,
        after: StoredEvent,
        is_new: bool,
        is_changed: bool,
        arrived: Mapping[str, PreparedEvent],
    ) -> None:
        for report in call.reports:
            event = arrived.get(report.key)
            if event is None:
                continue
            outcome = "merged" if is_changed else "duplicate"
            self.outcomes[id(event)] = "accepted" if is_new else outcome
            self.event_ids[id(event)] = after.id
            self.calls[id(event)] = after
            is_new, is_changed = False, is_changed or is_new

    def _move_holds(self, call: Call, event_id: int, group: Mapping[str, Member]) -> None:
        """A reservation that was settled with a call which is now part of another one."""
        for report in call.reports:
            known = group[report.key].event_id
            reservation_id = reservation_of(report.told)
            if known is not None and known != event_id and reservation_id is not None:
                self._moved_holds.append((reservation_id, event_id))

    def _prepare(self, call: Call) -> PreparedEvent:
        """The call, judged by the configuration in force."""
        merged = merge([self._with_its_reservation(report) for report in call.reports])
        event = self._prepare_merged(merged)
        if merged.has_floor:
            used = self._prepare_merged(
                merged._replace(body=msgspec.structs.replace(merged.body, cost_usd=None))
            )
            if (used.cost_nanos or 0) > (event.cost_nanos or 0):
                return used
        return event

    def _prepare_merged(self, merged: Merged) -> PreparedEvent:
        event = self._judged(merged, merged.body)
        for provider, model in merged.other_models:
            if event.price_id is not None or event.completeness == MISSING:
                break
            # An alias has no price, and another report names the model behind it.
            other = msgspec.structs.replace(
                merged.body, provider=provider or merged.body.provider, model=model
            )
            candidate = self._judged(merged, other)
            if candidate.price_id is not None:
                event = candidate
        return event

    def _judged(self, merged: Merged, body: Any) -> PreparedEvent:
        event = PreparedEvent(
            body,
            index=-1,
            at=merged.at,
            tokens=merged.tokens,
            route=Route(merged.first.route),
            held=self._held(body),
        )
        event.authority = merged.first.authority
        event.completeness = merged.completeness
        event.key = merged.first.key
        event.judge(self.configuration)
        event.note_saving(self.configuration)
        return event

    def _held(self, body: EventBody) -> Held | None:
        id_ = reservation_of(body)
        return None if id_ is None else find_held(self.tenant_id, [id_]).get(id_)

    def _keep_corrected(
        self, group: Mapping[str, Member], arrived: Mapping[str, PreparedEvent]
    ) -> None:
        """A person corrected a call of this group: what is told of it later changes nothing.

        Except for a settle, which books what it says where its reservation holds.
        """
        for key, member in group.items():
            event = arrived.get(key)
            if event is None:
                continue
            if event.held is not None and key not in self._members:
                self._put_apart(member.report, arrived, group)
            else:
                self.outcomes[id(event)] = "duplicate"

    def _keep_apart(
        self, group: Mapping[str, Member], arrived: Mapping[str, PreparedEvent]
    ) -> None:
        """The group is full: each further report is a call of its own."""
        for key, member in group.items():
            event = arrived.get(key)
            if event is None or key in self._members:
                continue
            self._put_apart(member.report, arrived, group)

    def _put_apart(
        self,
        report: Report,
        arrived: Mapping[str, PreparedEvent],
        group: Mapping[str, Member],
    ) -> None:
        alone = msgspec.structs.replace(report, response_key=None, request_key=None, span_key=None)
        self._put(Call((alone,), is_conflict=True), None, None, arrived, group)

    # Writing

    def _write(self) -> None:
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
            _insert_events(cursor, self._new_rows)
            _move_holds(cursor, self.tenant_id, self._moved_holds)
            _note_in_batches(cursor, self.tenant_id, self._updated)
        post_deltas(tenant_id=self.tenant_id, event_ids=summed, sign=1)

    def _write_keys(self, cursor: Any) -> None:
        """The rows of `event_key` as they should be; an identity stands in one of them."""
        wanted = self._with_each_identity_once()
        gone = [
            key
            for key, row in self._key_rows.items()
            if key in wanted and _identities(row) != _identities_of(wanted[key])
        ]
        if gone:
            cursor.execute(
                "DELETE FROM event_key WHERE tenant_id = %s AND key = ANY(%s::uuid[])",
                [self.tenant_id, gone],
            )
        lacking = [
            row
            for key, row in sorted(wanted.items())
            if row and (key not in self._key_rows or key in gone)
        ]
        if lacking:
            cursor.execute(_INSERT_KEYS, [self.tenant_id, _encode(lacking).decode()])
            if cursor.rowcount != len(lacking):
                # Another transaction wrote one of them meanwhile: look again.
                raise ConfigurationChanged
        kept = [
            row
            for key, row in wanted.items()
            if row and key in self._key_rows and key not in gone and self._is_moved(row)
        ]
        if kept:
            cursor.execute(_UPDATE_KEYS, [_encode(kept).decode(), self.tenant_id])

    def _with_each_identity_once(self) -> dict[str, dict[str, Any]]:
        taken = {
            (name, value)
            for key, row in self._key_rows.items()
            if key not in self._wanted_keys
            for name in _IDENTITIES
            if (value := getattr(row, name)) is not None
        }
        wanted: dict[str, dict[str, Any]] = {}
        # Rows that hold an identity keep it, so that few rows change.
        for key, row in sorted(
            self._wanted_keys.items(), key=lambda item: item[0] not in self._key_rows
        ):
            wanted[key] = dict(row)
            for name in _IDENTITIES:
                value = row.get(name)
                if value is not None and (name, value) in taken:
                    wanted[key][name] = None
                taken.add((name, value))
        return wanted

    def _is_moved(self, row: Mapping[str, Any]) -> bool:
        known = self._key_rows[row["key"]]
        return (known.event_id, known.event_at, known.fingerprint) != (
            row["event_id"],
            row["event_at"],
            row["fingerprint"],
        )

    def _write_reports(self, cursor: Any) -> None:
        rows = [row for row in self._wanted_reports.values() if row]
        gone = [key for key, row in self._wanted_reports.items() if not row]
        if gone:
            cursor.execute(
                "DELETE FROM call_report WHERE tenant_id = %s AND key = ANY(%s::uuid[])",
                [self.tenant_id, gone],
            )
        if rows:
            cursor.execute(_PUT_REPORTS, [self.tenant_id, _encode(rows).decode()])


def _settle_key(event: PreparedEvent) -> str:
    return key_of_id(f"{event.body.source or ''}\x00settle", event.body.id)


_IDENTITIES: Final = ("response_key", "request_key", "span_key")


def _identities(row: _KeyRow) -> tuple[str | None, ...]:
    return tuple(getattr(row, name) for name in _IDENTITIES)


def _identities_of(row: Mapping[str, Any]) -> tuple[str | None, ...] | None:
    return tuple(row[name] for name in _IDENTITIES) if row else None


_INSERT_KEYS: Final = """
    INSERT INTO event_key (tenant_id, key, response_key, request_key, span_key, fingerprint,
        event_id, event_at)
    SELECT %s, key, response_key, request_key, span_key, fingerprint, event_id, event_at
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
_CHANGEABLE: Final = [name for name in EVENT_COLUMNS.split(", ") if name not in ("tenant_id", "id")]
_UPDATE_EVENTS: Final = f"""
    UPDATE usage_event e SET {", ".join(f"{name} = n.{name}" for name in _CHANGEABLE)}
    FROM json_populate_recordset(NULL::usage_event, %s::json) n
    JOIN unnest(%s::bigint[], %s::timestamptz[]) AS o (id, time) ON o.id = n.id
    WHERE e.tenant_id = %s AND e.id = o.id AND e.time = o.time
"""  # noqa: S608 - constant lists
_INSERT_EVENTS: Final = f"""
    INSERT INTO usage_event ({EVENT_COLUMNS})
    SELECT {EVENT_COLUMNS} FROM json_populate_recordset(NULL::usage_event, %s::json)
"""  # noqa: S608 - constant lists


def _delete_events(cursor: Any, tenant_id: int, rows: Sequence[StoredEvent]) -> None:
    if rows:
        cursor.execute(
            "DELETE FROM usage_event e USING unnest(%s::bigint[], %s::timestamptz[])"
            " AS o (id, time) WHERE e.tenant_id = %s AND e.id = o.id AND e.time = o.time",
            [[row.id for row in rows], [row.time for row in rows], tenant_id],
        )


def _update_events(
    cursor: Any, tenant_id: int, updated: Sequence[tuple[StoredEvent, dict[str, Any]]]
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


def _insert_events(cursor: Any, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        cursor.execute(_INSERT_EVENTS, [_encode(rows).decode()])


def _note_in_batches(
    cursor: Any, tenant_id: int, updated: Sequence[tuple[StoredEvent, dict[str, Any]]]
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


def _move_holds(cursor: Any, tenant_id: int, moved: Sequence[tuple[UUID, int]]) -> None:
    if moved:
        cursor.execute(
            "UPDATE reservation r SET event_id = n.event_id"
            " FROM unnest(%s::uuid[], %s::bigint[]) AS n (id, event_id)"
            " WHERE r.tenant_id = %s AND r.id = n.id",
            [[id_ for id_, _ in moved], [event_id for _, event_id in moved], tenant_id],
        )


def stored_of_row(fields: Mapping[str, Any]) -> StoredEvent:
    """A call's row as it would be read again."""
    read = dict(fields, is_void=False)
    if read["reservation_id"] is not None:
        read["reservation_id"] = UUID(read["reservation_id"])
    return StoredEvent(*(read[name] for name in StoredEvent._fields))


def _content(row: StoredEvent) -> tuple[Any, ...]:
    return tuple(
        value for name, value in zip(row._fields, row, strict=True) if name not in _NO_CONTENT
    )


class _DisjointSets:
    """Which of many things belong together."""

    def __init__(self, things: Iterable[str]) -> None:
        self._parents = {thing: thing for thing in things}

    def root(self, thing: str) -> str:
        while (parent := self._parents[thing]) != thing:
            self._parents[thing] = self._parents[parent]
            thing = parent
        return thing

    def join(self, one: str, two: str) -> None:
        self._parents[self.root(one)] = self.root(two)
