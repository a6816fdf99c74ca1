"""Merges reports with what is known of their calls: found by what they share, and written.

Called within the transaction of ingest, after the keys of new reports were claimed. Merging holds
the tenant's merge lock: two transactions that bring reports of one call come one after the other,
by whatever identity each of them found it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from metering.calls.identities import (
    GROUP_REPORTS_MAX,
    IDENTITIES,
    KeyRow,
    kind_of_report,
    kind_of_stored,
    load_keys,
    load_reports,
    lock_merging,
    second_key,
)
from metering.calls.inheritance import held_of, inherit, reservation_of
from metering.calls.merge_writes import MergeWrites, stored_of_row
from metering.calls.merging import Call, Merged, calls_of, merge, order_of
from metering.calls.movements import Change
from metering.calls.prepared_event import MISSING, PreparedEvent
from metering.calls.reading import lock_events_by_id, lock_events_of
from metering.calls.report import Report, report_of_event, report_of_row
from metering.core.disjoint_sets import DisjointSets
from metering.models import Route, SourceOutcome
from metering.snapshot import Configuration
from metering.usage.columns import StoredEvent
from metering.usage.event_keys import key_of_id

# What a call is known by in the service; all else is content.
_NO_CONTENT: Final = frozenset({"id", "source", "sent_id", "route", "authority", "filled"})


class MergeResult(NamedTuple):
    """What became of reports whose identities were known."""

    # Per report, by `id(event)`; REJECTED: its id belongs to another event.
    outcomes: dict[int, SourceOutcome]
    # The call that a report belongs to, by `id(event)`.
    event_ids: dict[int, int]
    # The call that a report became part of, by `id(event)`, as it is now.
    calls: dict[int, StoredEvent]
    changes: list[Change]
    # Calls that are new: contradictions of what was known.
    inserted: list[PreparedEvent]


NOTHING_MERGED: Final = MergeResult({}, {}, {}, [], [])


class Member(NamedTuple):
    """A report of a group, and the call that it belongs to; None: to none yet."""

    report: Report
    event_id: int | None


class MergeTransaction:
    """Merges reports with what is known of their calls. One transaction uses it once."""

    def __init__(self, configuration: Configuration, *, free_ids: Iterator[int]) -> None:
        self.configuration = configuration
        self.tenant_id = configuration.tenant_id
        self.outcomes: dict[int, SourceOutcome] = {}
        self.event_ids: dict[int, int] = {}
        self.calls: dict[int, StoredEvent] = {}
        self.changes: list[Change] = []
        self.inserted: list[PreparedEvent] = []
        # For calls that are new: ids of this transaction's batch.
        self._free_ids = free_ids
        self._key_rows: dict[str, KeyRow] = {}
        self._members: dict[str, Member] = {}
        self._rows: dict[int, StoredEvent] = {}
        self._writes = MergeWrites(self.tenant_id, self._key_rows)

    def merge(
        self,
        events: Sequence[PreparedEvent],
        *,
        linked: Mapping[int, int],
        withdrawn: Collection[str] = (),
    ) -> MergeResult:
        """Merge `events` with the calls that they share an identity with.

        `linked` gives events (by `id(event)`) the call of the reservation that they name, and
        `withdrawn` are keys of reports that turned out to be none.
        """
        lock_merging(self.tenant_id)
        pending = self._find(events, linked, withdrawn)
        arrived = {self._key_of(event): event for event in pending}
        for group in self._groups(arrived, linked, withdrawn):
            self._resolve(group, arrived, set(withdrawn))
        self._writes.write()
        return MergeResult(self.outcomes, self.event_ids, self.calls, self.changes, self.inserted)

    # Finding

    def _find(
        self,
        events: Sequence[PreparedEvent],
        linked: Mapping[int, int],
        withdrawn: Collection[str],
    ) -> list[PreparedEvent]:
        """Load what the events' identities lead to; return the events that are reports to merge."""
        self._rows = lock_events_by_id(tenant_id=self.tenant_id, ids=set(linked.values()))
        keys = {event.key for event in events} | set(withdrawn)
        keys |= {second_key(event) for event in events}
        keys |= {key_of_id(row.source, row.sent_id) for row in self._rows.values()}
        self._load(
            key=keys,
            response_key=[event.response_key for event in events],
            request_key=[event.request_key for event in events],
            span_key=[event.span_key for event in events],
        )
        return [event for event in events if self._is_pending(event)]

    def _load(self, **wanted: Iterable[str | None]) -> None:
        """Load the reports with these keys and identities, and all that they lead to."""
        for _ in range(GROUP_REPORTS_MAX):
            keys = load_keys(self.tenant_id, **wanted)
            if keys.keys() <= self._key_rows.keys():
                return
            before = set(self._members)
            self._key_rows |= keys
            self._load_members()
            wanted = {name: self._held_elsewhere(name, before) for name in IDENTITIES}

    def _held_elsewhere(self, name: str, before: Collection[str]) -> list[str]:
        """Identities of reports just loaded that do not stand in their own rows: they may stand in
        the row of a report that came later.
        """
        return [
            value
            for key, member in self._members.items()
            if key not in before
            and (value := getattr(member.report, name)) is not None
            and (key not in self._key_rows or getattr(self._key_rows[key], name) != value)
        ]

    def _load_members(self) -> None:
        groups = {row.group_id for row in self._key_rows.values() if row.group_id is not None}
        if groups:
            for report, event_id in load_reports(self.tenant_id, groups):
                self._members[report.key] = Member(report, event_id)
            self._key_rows |= load_keys(self.tenant_id, key=list(self._members))
        times = {row.event_id: row.event_at for row in self._key_rows.values()}
        self._rows |= lock_events_of(
            tenant_id=self.tenant_id,
            times={id_: at for id_, at in times.items() if id_ not in self._rows},
        )
        for row in self._key_rows.values():
            if row.group_id is None and row.event_id in self._rows:
                report = report_of_row(self._rows[row.event_id], row._asdict())
                self._members[row.key] = Member(self._with_known_hold(report), row.event_id)

    def _with_known_hold(self, report: Report) -> Report:
        """Return the report without a reservation that does not exist, which connects nothing."""
        if report.body.reservation is None or held_of(self.tenant_id, report.body) is not None:
            return report
        return msgspec.structs.replace(
            report, body=msgspec.structs.replace(report.body, reservation=None)
        )

    def _is_pending(self, event: PreparedEvent) -> bool:
        """Return whether an event is a report to merge, not one that was sent before."""
        known = self._key_rows.get(self._key_of(event))
        if known is None:
            return True
        if known.fingerprint == event.fingerprint:
            self.outcomes[id(event)] = SourceOutcome.DUPLICATE
            self.event_ids[id(event)] = known.event_id
            return False
        if event.route is Route.OTLP:
            return True
        self.outcomes[id(event)] = SourceOutcome.REJECTED
        return False

    def _key_of(self, event: PreparedEvent) -> str:
        """Return the key that a report gets: its own, unless a report of another kind has it."""
        known = self._key_rows.get(event.key)
        if known is None or known.fingerprint == event.fingerprint:
            return event.key
        holder = self._members.get(event.key)
        is_other = holder is not None and kind_of_stored(holder.report) != kind_of_report(event)
        return second_key(event) if is_other else event.key

    # Merging

    def _groups(
        self,
        arrived: Mapping[str, PreparedEvent],
        linked: Mapping[int, int],
        withdrawn: Collection[str],
    ) -> list[dict[str, Member]]:
        """All reports that are connected by identities with those that arrived or are withdrawn."""
        reports = {key: member.report for key, member in self._members.items()}
        reports |= {key: self._report_of(key, event) for key, event in arrived.items()}
        sets = DisjointSets(reports)
        by_event = {member.event_id: key for key, member in self._members.items()}
        holders: dict[object, str] = {}
        for key, report in reports.items():
            for key_or_span in self._places(key, report):
                sets.join(key, holders.setdefault(key_or_span, key))
            event = arrived.get(key)
            if event is not None and (event_id := linked.get(id(event))) in by_event:
                sets.join(key, by_event[event_id])
        roots = {sets.root(key) for key in (*arrived, *withdrawn) if key in reports}
        return [
            {key: Member(reports[key], self._event_id(key)) for key in keys}
            for keys in sets.groups(reports)
            if sets.root(keys[0]) in roots
        ]

    def _report_of(self, key: str, event: PreparedEvent) -> Report:
        """Return the report of an event; sent again, it keeps the reservation that it settled."""
        report = msgspec.structs.replace(report_of_event(event), key=key)
        settled = self._members[key].report.body.reservation if key in self._members else None
        if settled is None:
            return report
        body = msgspec.structs.replace(report.body, reservation=settled)
        return msgspec.structs.replace(report, body=body)

    def _event_id(self, key: str) -> int | None:
        return self._members[key].event_id if key in self._members else None

    def _places(self, key: str, report: Report) -> list[object]:
        """Return where a report meets others: its identities, present and former, and its group."""
        places: list[object] = [*report.identities]
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
        # What settled a reservation stays, whatever its trace turns out to be.
        withdrawn = {key for key in withdrawn if not self._has_settled(group, key)}
        reports = self._first_of(group, withdrawn, arrived)
        calls = calls_of(reports)
        group_id = self._group_id(group, rows)
        corrected = {
            id_ for id_, row in rows.items() if row.is_void or row.route == Route.CORRECTION
        }
        free = {id_: row for id_, row in rows.items() if id_ not in corrected}
        for call in calls:
            ended = [report for report in call.reports if group[report.key].event_id in corrected]
            if ended:
                self._resolve_beside_corrected(call, ended, free, group_id, arrived, group)
                continue
            row = self._row_for(call, group, free)
            self._put(call, row, group_id if len(reports) > 1 else None, arrived, group)
        for row in free.values():
            self._writes.delete(row)
            self.changes.append(Change(row, None))
        self._move_holds(group)
        for key in group.keys() & withdrawn:
            self._writes.forget(key)

    def _has_settled(self, group: Mapping[str, Member], key: str) -> bool:
        return key in group and group[key].report.body.reservation is not None

    def _first_of(
        self,
        group: Mapping[str, Member],
        withdrawn: Collection[str],
        arrived: Mapping[str, PreparedEvent],
    ) -> list[Report]:
        """Return the reports of a group, as many as it takes: beyond that each is a call of its
        own.
        """
        staying = [key for key in group if key not in withdrawn]
        known = [key for key in staying if key in self._members]
        further = sorted(
            (key for key in staying if key not in self._members),
            key=lambda key: order_of(group[key].report),
        )
        room = max(0, GROUP_REPORTS_MAX - len(known))
        for key in further[room:]:
            self._put_apart(group[key].report, arrived, group)
        return [group[key].report for key in (*known, *further[:room])]

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
        """Return the stored call that this one continues: the one that settled a reservation, else
        the oldest.
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
        if row is not None and self._is_unchanged_by(call, row, group):
            self._keep_reports(call, row, group_id)
            self._note_outcomes(call, row, False, False, arrived)
            return
        event = self._prepare(call)
        event_id = self._take_id() if row is None else row.id
        event.is_conflict = call.is_conflict
        fields = event.row(event_id, tenant_id=self.tenant_id)
        after = stored_of_row(fields)
        is_changed = False
        if row is None:
            self._writes.insert(fields)
            self.inserted.append(event)
            self.changes.append(Change(None, after))
        elif after != row:
            is_changed = _content(after) != _content(row)
            self._writes.update(row, fields)
            self.changes.append(Change(row, after))
        self._keep_reports(call, after, group_id)
        self._note_outcomes(call, after, row is None, is_changed, arrived)

    def _is_unchanged_by(self, call: Call, row: StoredEvent, group: Mapping[str, Member]) -> bool:
        """Return whether a stored call is what it would be without the reports that arrived."""
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
        """Return the report with what it leaves out taken from the reservation that it names,
        believed as much as the report itself.
        """
        held = held_of(self.tenant_id, report.body)
        if held is None:
            return report
        used = report.tokens
        body = report.body
        if used.input_tokens or used.output_tokens:
            body = msgspec.structs.replace(
                body, input_tokens=used.input_tokens, output_tokens=used.output_tokens
            )
        body = inherit(body, held)
        # A reservation is of a model call unless it says otherwise; the report may know better.
        operation = "tool" if body.operation == "tool" else report.body.operation
        return msgspec.structs.replace(
            report, body=msgspec.structs.replace(body, operation=operation)
        )

    def _keep_reports(self, call: Call, row: StoredEvent, group_id: int | None) -> None:
        for report in call.reports:
            self._writes.keep(report, row, group_id)

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
            outcome = SourceOutcome.MERGED if is_changed else SourceOutcome.DUPLICATE
            self.outcomes[id(event)] = SourceOutcome.CONFLICT if is_new else outcome
            self.event_ids[id(event)] = after.id
            self.calls[id(event)] = after
            is_new, is_changed = False, is_changed or is_new

    def _move_holds(self, group: Mapping[str, Member]) -> None:
        """Reservations settled with a call that names them no more, or is part of another one, go
        on as settled with the call that the reports which name them are part of now.
        """
        moves = [
            (reservation_id, member.event_id, event_id)
            for key, member in group.items()
            if (reservation_id := reservation_of(member.report.body)) is not None
            and (event_id := self._writes.call_of(key)) is not None
        ]
        naming = {(reservation_id, event_id) for reservation_id, _, event_id in moves}
        for reservation_id, before_id, event_id in moves:
            if before_id is not None and (reservation_id, before_id) not in naming:
                self._writes.move_hold(reservation_id, before_id, event_id)

    def _prepare(self, call: Call) -> PreparedEvent:
        """Return the call, judged by the configuration in force."""
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
            held=held_of(self.tenant_id, body),
        )
        event.authority = merged.first.authority
        event.completeness = merged.completeness
        event.key = merged.first.key
        event.judge(self.configuration)
        event.note_saving(self.configuration)
        return event

    def _resolve_beside_corrected(
        self,
        call: Call,
        ended: Sequence[Report],
        free: dict[int, StoredEvent],
        group_id: int,
        arrived: Mapping[str, PreparedEvent],
        group: Mapping[str, Member],
    ) -> None:
        """Leave what a person corrected as it is, whatever later reports say; `ended` are its
        reports.

        What was counted beside it stays counted, and a reservation is settled whose call was not
        the corrected one. Other reports change nothing.
        """
        rows = [
            self._rows[id_] for report in ended if (id_ := group[report.key].event_id) is not None
        ]
        # Of a call that was replaced, what replaces it.
        rows.sort(key=lambda row: row.is_void)
        self._note_ended(ended, rows[0], arrived)
        for beside in calls_of(report for report in call.reports if report not in ended):
            row = self._row_for(beside, group, free)
            named = {report.body.reservation for report in beside.reports} - {None}
            # Two reservations are two calls.
            reservation = named.pop() if named else None
            of_reservation = [each for each in rows if str(each.reservation_id) == reservation]
            if row is not None or (reservation is not None and not of_reservation):
                self._put(beside._replace(is_conflict=True), row, group_id, arrived, group)
            else:
                self._note_ended(beside.reports, (of_reservation or rows)[0], arrived)

    def _note_ended(
        self, reports: Iterable[Report], row: StoredEvent, arrived: Mapping[str, PreparedEvent]
    ) -> None:
        """Note that reports of a corrected call changed nothing: what they settle is settled with
        the call as it was corrected.
        """
        for report in reports:
            if (event := arrived.get(report.key)) is not None:
                self.outcomes[id(event)] = SourceOutcome.DUPLICATE
                self.event_ids[id(event)] = row.id
                if not row.is_void:
                    self.calls[id(event)] = row

    def _put_apart(
        self,
        report: Report,
        arrived: Mapping[str, PreparedEvent],
        group: Mapping[str, Member],
    ) -> None:
        alone = msgspec.structs.replace(report, response_key=None, request_key=None, span_key=None)
        self._put(Call((alone,), is_conflict=True), None, None, arrived, group)


def _content(row: StoredEvent) -> tuple[object, ...]:
    return tuple(
        value for name, value in zip(row._fields, row, strict=True) if name not in _NO_CONTENT
    )
