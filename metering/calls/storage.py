"""What a transaction of ingest stores: events, their keys, their batch's row, and merged calls."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final
from uuid import UUID

from django.db import connection

from common.errors import EventRejected
from metering.budgets.index import BudgetBook, WindowKey
from metering.calls.events import COPY_COLUMNS, PreparedEvent
from metering.calls.job import Job
from metering.calls.known import Absorber, Known
from metering.calls.settlement import Stored
from metering.calls.stored import added_up, movements
from metering.core.amounts import Amounts
from metering.ledger.holds import LockedReservation
from metering.ledger.posting import Posting
from metering.models import BATCH_ID_STRIDE, SourceOutcome
from metering.snapshot import Configuration


def sums_of_stored(book: BudgetBook, stored: Stored) -> dict[Posting, Amounts]:
    """What a transaction's new calls and merged ones add to each window."""
    sums = sums_by_posting(book, stored.fresh)
    return added_up([sums, *stored.moves]) if stored.moves else sums


def store_events(
    configuration: Configuration,
    jobs: Sequence[Job],
    reservations: Mapping[UUID, LockedReservation],
    withdrawn: Collection[str] = (),
) -> Stored:
    """Store the events that are new, with their keys and their batch's row; merge the reports of
    calls that are known.

    What that adds to windows is for the caller to post, in this transaction.
    """
    tenant_id = configuration.tenant_id
    outcome = _Outcome(jobs)
    with connection.cursor() as cursor:
        batch_id = next_batch_id(cursor)
        first_id = batch_id * BATCH_ID_STRIDE
        unique, linked = _apart_from_settled(outcome.unique, first_id, reservations)
        copy_incoming(cursor, unique, first_id)
        fresh = _claim_keys(cursor, tenant_id, unique, first_id)
        if fresh:
            insert_events(cursor)
        event_ids = {id(event): first_id + place for place, event in enumerate(unique)}
        is_fresh = {id(event) for event in fresh}
        late = [event for event in outcome.unique if id(event) not in is_fresh]
        # Ids for calls that reports bring apart: of those that are no new call, and what a batch
        # has beyond its events.
        free_ids = chain(
            [id_ for key, id_ in event_ids.items() if key not in is_fresh],
            range(first_id + len(outcome.unique), first_id + BATCH_ID_STRIDE),
        )
        if late:
            late = _without_repeats(tenant_id, late, outcome, event_ids)
        known = NOTHING_KNOWN
        if late or withdrawn:
            absorber = Absorber(configuration, free_ids=free_ids)
            known = absorber.absorb(late, linked=linked, withdrawn=withdrawn)
        times = [event.at for event in (*fresh, *known.inserted)]
        if times:
            times += [change.after.time for change in known.changes if change.after is not None]
            write_batch_row(cursor, tenant_id, batch_id, len(fresh) + len(known.inserted), times)
    outcome.settle(fresh, known)
    return Stored(
        batch_id,
        fresh,
        event_ids | known.event_ids,
        known.calls,
        known.inserted,
        known.changes,
        movements(configuration.budgets, known.changes) if known.changes else [],
    )


NOTHING_KNOWN: Final = Known({}, {}, {}, [], [])


def _apart_from_settled(
    events: Sequence[PreparedEvent], first_id: int, reservations: Mapping[UUID, LockedReservation]
) -> tuple[list[PreparedEvent], dict[int, int]]:
    """The events that may be new calls; and those whose reservation was settled with a call, or is
    by another of these events, with that call's id.
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
    outcome: "_Outcome",
    event_ids: dict[int, int],
) -> list[PreparedEvent]:
    """The events that were not sent before just as they are; nothing is locked for those."""
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
            outcome.duplicate(event)
        else:
            others.append(event)
    return others


class _Outcome:
    """What becomes of the events of a transaction."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.job_of = {id(event): job for job in jobs for event in (*job.events, *job.traced)}
        self.unique: list[PreparedEvent] = []
        first: dict[str, PreparedEvent] = {}
        # The same id twice in one transaction: the first counts, as if they had come one by one.
        self.repeats: list[tuple[PreparedEvent, PreparedEvent]] = []
        for job in jobs:
            for event in (*job.events, *job.traced):
                earlier = first.setdefault(event.key, event)
                if earlier is event:
                    self.unique.append(event)
                else:
                    self.repeats.append((event, earlier))

    def duplicate(self, event: PreparedEvent) -> None:
        """The event was reported before."""
        job = self.job_of[id(event)]
        job.duplicates += 1
        job.fates[id(event)] = SourceOutcome.DUPLICATE

    def conflict(self, event: PreparedEvent) -> None:
        """The event's id belongs to another event."""
        job = self.job_of[id(event)]
        job.fates[id(event)] = SourceOutcome.REJECTED
        job.errors.append(
            (
                event.index,
                EventRejected(
                    "id_conflict",
                    f"The id {event.body.id!r} of this source was used for an event with other"
                    " content; what is stored stays. To change it, post a correction.",
                    event_id=event.body.id,
                    source=event.body.source,
                ),
            )
        )

    def settle(self, fresh: Iterable[PreparedEvent], known: Known) -> None:
        """Count what was taken, and judge repeats against the first of their kind."""
        for event in fresh:
            self._accept(event)
        if known.outcomes:
            for event in self.unique:
                self._count_known(event, known.outcomes.get(id(event)))
        for event, earlier in self.repeats:
            if event.fingerprint == earlier.fingerprint:
                self.duplicate(event)
            else:
                self.conflict(event)

    def _accept(self, event: PreparedEvent) -> None:
        self.job_of[id(event)].accept(event)

    def _count_known(self, event: PreparedEvent, outcome: str | None) -> None:
        if outcome == "accepted":
            self._accept(event)
            job = self.job_of[id(event)]
            job.conflicts += 1
            job.fates[id(event)] = SourceOutcome.CONFLICT
        elif outcome == "merged":
            job = self.job_of[id(event)]
            job.merged += 1
            job.fates[id(event)] = SourceOutcome.MERGED
        elif outcome == "duplicate":
            self.duplicate(event)
        elif outcome == "conflict":
            self.conflict(event)


# One statement, so that every transaction may ask for the table; it lives as long as the
# connection.
CREATE_INCOMING: Final = """
    CREATE TEMPORARY TABLE IF NOT EXISTS incoming (
        LIKE usage_event INCLUDING DEFAULTS, key uuid, fingerprint uuid, response_key uuid,
        request_key uuid, span_key uuid
    ) ON COMMIT DELETE ROWS
"""
KEY_COLUMNS: Final = ("key", "response_key", "request_key", "span_key", "fingerprint")
EVENT_COLUMNS: Final = ", ".join(
    name for name in COPY_COLUMNS.split(", ") if name not in KEY_COLUMNS
)


def next_batch_id(cursor: Any) -> int:
    """A number for the batch. Rises with every transaction that begins to write."""
    cursor.execute("SELECT nextval('ingest_batch_id')")
    return int(cursor.fetchone()[0])


def copy_incoming(cursor: Any, events: Sequence[PreparedEvent], first_id: int) -> None:
    """Put events into the connection's temporary table, under the ids they would get."""
    cursor.execute(CREATE_INCOMING)
    if connection.savepoint_ids:
        # Within a larger transaction the table may hold what an earlier call left.
        cursor.execute("DELETE FROM incoming")
    lines = "".join([event.line(first_id + place) for place, event in enumerate(events)])
    # Straight to psycopg, whose errors nobody would know otherwise: neither that the connection
    # broke nor that PostgreSQL refuses a value.
    with (
        connection.wrap_database_errors,
        cursor.cursor.copy(f"COPY incoming ({COPY_COLUMNS}) FROM STDIN") as copy,
    ):
        copy.write(lines)


def _claim_keys(
    cursor: Any, tenant_id: int, events: Sequence[PreparedEvent], first_id: int
) -> list[PreparedEvent]:
    """Write the keys of events none of whose identities is known; return these events.

    Keys are inserted in their own order, so that transactions with events in common wait for each
    other in one direction only.
    """
    if not events:
        return []
    cursor.execute(
        "INSERT INTO event_key (tenant_id, key, response_key, request_key, span_key, fingerprint,"
        " event_id, event_at)"
        " SELECT %s, key, response_key, request_key, span_key, fingerprint, id, time FROM incoming"
        " ORDER BY coalesce(response_key, key), id ON CONFLICT DO NOTHING",
        [tenant_id],
    )
    if cursor.rowcount == len(events):
        return list(events)
    cursor.execute(
        # LIMIT keeps this a look-up by index, whatever the planner thinks of a new table.
        "SELECT i.id FROM incoming i LEFT JOIN LATERAL (SELECT event_id FROM event_key k"
        " WHERE k.tenant_id = %s AND k.key = i.key LIMIT 1) k ON true"
        " WHERE k.event_id IS DISTINCT FROM i.id",
        [tenant_id],
    )
    gone = {row[0] for row in cursor.fetchall()}
    cursor.execute("DELETE FROM incoming WHERE id = ANY(%s)", [list(gone)])
    return [event for place, event in enumerate(events) if first_id + place not in gone]


def insert_events(cursor: Any) -> None:
    cursor.execute(
        f"INSERT INTO usage_event ({EVENT_COLUMNS}) SELECT {EVENT_COLUMNS} FROM incoming"  # noqa: S608
    )


def write_batch_row(
    cursor: Any, tenant_id: int, batch_id: int, count: int, times: Sequence[datetime]
) -> None:
    """The row that roll-ups and everything else derived from these events will claim."""
    cursor.execute(
        "INSERT INTO ingest_batch (tenant_id, id, received_at, event_count, first_at, last_at)"
        " VALUES (%s, %s, now(), %s, %s, %s)",
        [tenant_id, batch_id, count, min(times), max(times)],
    )


def sums_by_posting(book: BudgetBook, events: Iterable[PreparedEvent]) -> dict[Posting, Amounts]:
    """What these events add to each window (and grain of a rolling one)."""
    # Added up in place: this runs once for every event and budget.
    sums: dict[tuple[WindowKey, datetime | None], list[int]] = {}
    rules = book.rules
    rolling = {rule.id for rule in rules.values() if rule.is_rolling}
    for event in events:
        cost_nanos, tokens, requests, tool_calls = event.amounts
        for key in event.windows:
            is_rolling = key[0] in rolling
            place = (key, rules[key[0]].grain_at(event.at) if is_rolling else None)
            sum_ = sums.get(place)
            if sum_ is None:
                sums[place] = [cost_nanos, tokens, requests, tool_calls]
            else:
                sum_[0] += cost_nanos
                sum_[1] += tokens
                sum_[2] += requests
                sum_[3] += tool_calls
    window_ids = book.window_ids
    return {
        Posting(window_ids[key], grain_at): Amounts(*sum_) for (key, grain_at), sum_ in sums.items()
    }
