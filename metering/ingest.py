"""The transaction that takes usage in: dedupe, events, ledger. Acknowledged means committed.

One transaction serves one tenant and as many bodies as were waiting. In order: the configuration
lock (shared), the batch's number, the events by COPY into a temporary table (COPY straight into a
table with row security is refused by PostgreSQL), their keys, the events that turned out new, the
batch's row, and last the balances of the windows they count in.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, OperationalError, connection
from django.utils import timezone

from metering.budget_rules import Amounts, BudgetBook, WindowKey
from metering.calls.known import Absorber, Known, lock_merging
from metering.configuration import (
    Configuration,
    ConfigurationChanged,
    known_configuration,
    read_configuration,
)
from metering.decoders.native import Decoded, EventBody, PassedOver
from metering.decoders.otlp import Export, SpanCall, ToldSpan
from metering.enforcement.breakers import feed_breakers
from metering.enforcement.holds import (
    Held,
    Standing,
    are_known,
    find_held,
    lock_reservations,
    write_standings,
)
from metering.enforcement.settling import Stored, lock_named_reservations, settle_with_events
from metering.errors import EventRejected
from metering.events import (
    COPY_COLUMNS,
    PreparedEvent,
    is_reservation_id,
    prepare_event,
    reservation_of,
    rest_of_line,
)
from metering.ledger import Posting, open_windows, post
from metering.models import BATCH_ID_STRIDE, CostSource, EntryKind, Route, SourceOutcome
from metering.open_traces import fingerprint_of_call, take_spans
from metering.partitions import make_due_partitions
from metering.stored_events import added_up, movements
from tenants.scope import lock_configuration_shared, tenant_scope

ATTEMPTS_MAX: Final = 5
# The most events one transaction takes; below the number of ids a batch has.
TRANSACTION_EVENTS_MAX: Final = 10_000
assert TRANSACTION_EVENTS_MAX < BATCH_ID_STRIDE


@dataclass
class Job:
    """One body on its way: events that fit the contract, and what became of each."""

    tenant_id: int
    route: Route
    event_count: int
    events: list[PreparedEvent]
    # What the events were judged by; compared with what is in force by the transaction that writes.
    configuration: Configuration
    errors: list[tuple[int, EventRejected]] = field(default_factory=list)
    # Spans, whose calls are found among all that is known of their traces when they are written:
    # `traced` are the reports that follow, as far as they are events.
    spans: Sequence[ToldSpan] = ()
    traced: list[PreparedEvent] = field(default_factory=list)
    traced_errors: list[tuple[int, EventRejected]] = field(default_factory=list)
    # What was read and is no usage, such as a span of a database: not an error.
    passed_over: list[PassedOver] = field(default_factory=list)
    accepted: int = 0
    # Reports of calls that were known and that added something to them.
    merged: int = 0
    duplicates: int = 0
    unpriced: int = 0
    conflicts: int = 0
    # What became of events that were not simply accepted, by `id(event)`: bodies may hold the
    # events of several sources.
    fates: dict[int, SourceOutcome] = field(default_factory=dict)

    @property
    def weight(self) -> int:
        """How much of a transaction it makes up, in events."""
        return len(self.events) + len(self.spans)

    def judge(self, configuration: Configuration) -> None:
        """Judge the events by this configuration, where they were judged by another one."""
        if self.configuration.version == configuration.version:
            return
        self.configuration = configuration
        for event in list(self.events):
            try:
                event.judge(configuration)
            except EventRejected as error:
                error.event_id = event.body.id
                error.source = event.body.source
                self.errors.append((event.index, error))
                self.events.remove(event)

    def accept(self, event: PreparedEvent) -> None:
        """Count an event that was stored."""
        self.accepted += 1
        if event.cost_source is CostSource.UNPRICED:
            self.unpriced += 1

    def forget_outcome(self) -> None:
        """Before another attempt: what a transaction that was rolled back had found out."""
        self.accepted = self.merged = self.duplicates = self.unpriced = self.conflicts = 0
        self.fates.clear()
        self.errors = [one for one in self.errors if one[1].code != "id_conflict"]

    def keep_traced_errors(self) -> None:
        """Once it is committed: what was found out about spans counts like what was read."""
        self.errors += self.traced_errors
        self.traced_errors = []

    def answer(self) -> dict[str, Any]:
        """The counts and errors, as the contract has them."""
        self.errors.sort(key=lambda one: one[0])
        return {
            "accepted": self.accepted,
            "merged": self.merged,
            "duplicates": self.duplicates,
            "rejected": len(self.errors),
            "unpriced": self.unpriced,
            "errors": [error.as_error(index) for index, error in self.errors],
        }


def prepare_job(
    items: Sequence[Decoded], *, tenant_id: int, route: Route, now: datetime | None = None
) -> Job:
    """Judge every decoded item by itself; none can make another fail."""
    configuration = known_configuration(tenant_id)
    moment = now or timezone.now()
    job = Job(tenant_id, route, len(items), [], configuration)
    held = _held_by(items, tenant_id)
    max_age: timedelta = settings.EVENT_MAX_AGE
    for index, item in enumerate(items):
        event: PreparedEvent | EventRejected
        if isinstance(item, EventRejected):
            event = item
        else:
            event = prepare_event(
                item,
                index=index,
                now=moment,
                max_age=max_age,
                tenant_id=tenant_id,
                route=route,
                configuration=configuration,
                held=_named(item, held) if held else None,
            )
        if isinstance(event, EventRejected):
            if isinstance(item, EventBody):
                event.source = item.source
            job.errors.append((index, event))
        else:
            job.events.append(event)
    return job


def prepare_export(export: Export, *, tenant_id: int) -> Job:
    """The job that takes spans in."""
    return Job(
        tenant_id,
        Route.OTLP,
        len(export.spans) + len(export.rejected),
        [],
        known_configuration(tenant_id),
        errors=list(enumerate(export.rejected)),
        spans=export.spans,
        passed_over=export.passed_over,
    )


def _held_by(items: Sequence[Decoded], tenant_id: int) -> Mapping[UUID, Held]:
    """The reservations that events name, as far as they exist."""
    ids = {
        id_
        for item in items
        if isinstance(item, EventBody) and (id_ := reservation_of(item)) is not None
    }
    if not ids:
        return {}
    if are_known(tenant_id, ids):
        return find_held(tenant_id, ids)
    with tenant_scope(tenant_id):
        return find_held(tenant_id, ids)


def _named(item: EventBody, held: Mapping[UUID, Held]) -> Held | None:
    id_ = reservation_of(item)
    return None if id_ is None else held.get(id_)


def ingest(items: Sequence[Decoded], *, tenant_id: int, route: Route) -> Job:
    """Take decoded items in, in this thread. The web process combines callers instead
    (`committer`).
    """
    job = prepare_job(items, tenant_id=tenant_id, route=route)
    commit_jobs(tenant_id, [job])
    return job


def commit_jobs(tenant_id: int, jobs: Sequence[Job]) -> None:
    """Commit jobs of one tenant together; where that fails, apart, so that none spoils another's.

    Raises OperationalError when the database cannot be reached: nothing was acknowledged, and since
    every event carries its id, sending it again is safe.
    """
    try:
        _commit_with_retries(tenant_id, jobs)
        for job in jobs:
            job.keep_traced_errors()
    except DataError as error:
        if len(jobs) > 1:
            for job in jobs:
                commit_jobs(tenant_id, [job])
        else:
            _commit_in_halves(jobs[0], error)


def _commit_with_retries(tenant_id: int, jobs: Sequence[Job]) -> None:
    def commit() -> None:
        for job in jobs:
            job.forget_outcome()
        _commit_as_configured(tenant_id, jobs)

    with_retries(tenant_id, commit)


def with_retries(tenant_id: int, commit: Callable[[], None]) -> None:
    """Commit again where PostgreSQL gave up because of another transaction, where a month lacks its
    partition, and where the server had closed the connection.

    `commit` must be safe to repeat after a commit whose answer was lost.
    """
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            commit()
        except IntegrityError as error:
            if attempt == ATTEMPTS_MAX or not _lacks_partition(error):
                raise
            with tenant_scope(tenant_id):
                make_due_partitions(now=timezone.now(), max_age_days=settings.EVENT_MAX_AGE.days)
        except OperationalError as error:
            if attempt == ATTEMPTS_MAX or not (is_conflict(error) or _renew_connection(attempt)):
                raise
        else:
            return


def _renew_connection(attempt: int) -> bool:
    """Make the connection anew, once: the server may have closed it, which is not always known yet.

    Events that a broken commit did store will be found as duplicates.
    """
    if attempt > 1 or connection.in_atomic_block:
        return False
    connection.close()
    return True


def _commit_as_configured(tenant_id: int, jobs: Sequence[Job]) -> None:
    """Commit jobs judged by the configuration in force, however often it changes meanwhile.

    Each turn means that somebody else's change has been committed, so somebody always gets on.
    """
    configuration = known_configuration(tenant_id)
    while True:
        for job in jobs:
            job.judge(configuration)
        try:
            _commit(configuration, jobs)
        except ConfigurationChanged:
            configuration = read_configuration(tenant_id, known=configuration)
        else:
            return


def is_conflict(error: DatabaseError) -> bool:
    """Whether PostgreSQL gave up on a transaction because of another one: to be tried again."""
    return isinstance(
        error.__cause__, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure
    )


def _lacks_partition(error: IntegrityError) -> bool:
    return isinstance(error.__cause__, psycopg.errors.CheckViolation) and "partition" in str(error)


def _commit_in_halves(job: Job, error: DatabaseError) -> None:
    """Find the event that the database refuses, although the contract let it through, and refuse
    it alone.
    """
    if job.weight == 1:
        event_id = job.events[0].body.id if job.events else "-".join(job.spans[0].key)
        detail = f"The event cannot be stored: {str(error).splitlines()[0]}"
        rejected = EventRejected("invalid_value", detail, event_id=event_id)
        job.forget_outcome()
        job.errors.append((job.events[0].index if job.events else 0, rejected))
        return
    middle = -(-len(job.events) // 2), -(-len(job.spans) // 2)
    halves = [
        Job(job.tenant_id, job.route, 0, events, job.configuration, spans=spans)
        for events, spans in (
            (job.events[: middle[0]], job.spans[: middle[1]]),
            (job.events[middle[0] :], job.spans[middle[1] :]),
        )
    ]
    job.forget_outcome()
    for half in halves:
        commit_jobs(job.tenant_id, [half])
        job.accepted += half.accepted
        job.merged += half.merged
        job.conflicts += half.conflicts
        job.fates |= half.fates
        job.duplicates += half.duplicates
        job.unpriced += half.unpriced
        job.errors += half.errors


def _events(jobs: Iterable[Job]) -> list[PreparedEvent]:
    return [event for job in jobs for event in (*job.events, *job.traced)]


class _WindowsMissing(Exception):
    """Calls found in traces count in windows that are not open yet."""


def _commit(configuration: Configuration, jobs: Sequence[Job]) -> None:
    if not any(job.weight for job in jobs):
        return
    tenant_id, book = configuration.tenant_id, configuration.budgets
    is_done = False
    while not is_done:
        missing = _missing_windows(book, _events(jobs))
        if missing:
            opened = book.for_transaction()
            with tenant_scope(tenant_id):
                open_windows(book=opened, keys=missing)
            book.learn(opened)
        try:
            with tenant_scope(tenant_id):
                if lock_configuration_shared(tenant_id) != configuration.version:
                    raise ConfigurationChanged
                _write(configuration, jobs, _find_calls(configuration, jobs))
            is_done = True
        except _WindowsMissing:
            pass  # the windows of what was found are opened before the next attempt


def _missing_windows(book: BudgetBook, events: Iterable[PreparedEvent]) -> set[WindowKey]:
    return {key for event in events for key in event.windows if key not in book.window_ids}


def _find_calls(configuration: Configuration, jobs: Sequence[Job]) -> list[str]:
    """Find the calls that the jobs' spans tell of, with all that is known of their traces; answer
    the keys of reports that turned out to be none.
    """
    tracing = [job for job in jobs if job.spans]
    if not tracing:
        return []
    tenant_id = configuration.tenant_id
    for job in tracing:
        job.traced, job.traced_errors = [], []
    # Reservations before the merge lock, as everywhere.
    named = {span.facts.get("reservation") for job in tracing for span in job.spans}
    ids = [UUID(text) for text in named if text is not None and is_reservation_id(text)]
    lock_reservations(tenant_id, find_held(tenant_id, ids))
    lock_merging(tenant_id)
    now = timezone.now()
    traced = take_spans(tenant_id, (span for job in tracing for span in job.spans), now=now)
    owner = {span.key: job for job in tracing for span in job.spans}
    for call in traced.calls:
        job = owner.get(call.span.key, tracing[0])
        event = _prepare_call(call, configuration, now)
        if isinstance(event, EventRejected):
            job.traced_errors.append((0, event))
        else:
            job.traced.append(event)
    if _missing_windows(configuration.budgets, _events(tracing)):
        raise _WindowsMissing
    return traced.withdrawn


def _prepare_call(
    call: SpanCall, configuration: Configuration, now: datetime
) -> PreparedEvent | EventRejected:
    if isinstance(call.body, EventRejected):
        return call.body
    reservation_id = reservation_of(call.body)
    held = find_held(configuration.tenant_id, [reservation_id]) if reservation_id else {}
    event = prepare_event(
        call.body,
        index=0,
        now=now,
        max_age=settings.EVENT_MAX_AGE,
        tenant_id=configuration.tenant_id,
        route=Route.OTLP,
        configuration=configuration,
        held=held.get(reservation_id) if reservation_id else None,
        tokens=call.tokens,
    )
    if isinstance(event, EventRejected):
        event.source = call.span.source
        return event
    event.fingerprint = fingerprint_of_call(call)
    event.rest = rest_of_line(event, tenant_id=configuration.tenant_id)
    return event


def _write(configuration: Configuration, jobs: Sequence[Job], withdrawn: Collection[str]) -> None:
    standings = lock_named_reservations(configuration.tenant_id, _events(jobs))
    stored = store_events(configuration, jobs, standings, withdrawn)
    book = configuration.budgets
    moves = settle_with_events(configuration, stored, standings, _events(jobs))
    with connection.cursor() as cursor:
        write_standings(cursor, configuration.tenant_id, standings.values())
    feed_breakers(configuration=configuration, events=[*stored.fresh, *stored.inserted])
    post(
        book=book,
        sums=sums_of_stored(book, stored),
        kind=EntryKind.USAGE,
        batch_id=stored.batch_id,
        holds=moves,
    )


def sums_of_stored(book: BudgetBook, stored: Stored) -> dict[Posting, Amounts]:
    """What a transaction's new calls and merged ones add to each window."""
    sums = sums_by_posting(book, stored.fresh)
    return added_up([sums, *stored.moves]) if stored.moves else sums


def store_events(
    configuration: Configuration,
    jobs: Sequence[Job],
    standings: Mapping[UUID, Standing],
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
        unique, linked = _apart_from_settled(outcome.unique, first_id, standings)
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
    events: Sequence[PreparedEvent], first_id: int, standings: Mapping[UUID, Standing]
) -> tuple[list[PreparedEvent], dict[int, int]]:
    """The events that may be new calls; and those whose reservation was settled with a call, or is
    by another of these events, with that call's id.
    """
    unique: list[PreparedEvent] = []
    linked: dict[int, int] = {}
    settling: dict[UUID, int] = {}
    for event in events:
        standing = standings.get(event.held.id) if event.held is not None else None
        if standing is None:
            unique.append(event)
        elif standing.event_id is not None:
            linked[id(event)] = standing.event_id
        elif standing.held.id in settling:
            linked[id(event)] = settling[standing.held.id]
        else:
            settling[standing.held.id] = first_id + len(unique)
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
    """Write the keys of events none of whose identities is known; answer these events.

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
    try:
        return {
            Posting(window_ids[key], grain_at): Amounts(*sum_)
            for (key, grain_at), sum_ in sums.items()
        }
    except KeyError as error:
        # The book's memory was full and began anew; the next turn looks the window up again.
        raise ConfigurationChanged from error
