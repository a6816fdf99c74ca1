"""One transaction that serves callers of a tenant, in the order of its locks.

In order: the configuration lock (shared) and the halts in force, earlier answers to the same
requests, reservations, the events that settle them, breaker states, paces, and last the windows in
order of id. What ends gives back what it held before any request is admitted, so no one is refused
for a hold that is over.

Most batches take two round trips: what is in force, the reservations, the events and the windows;
what was decided, and the commit.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.utils import timezone
from psycopg import Cursor
from psycopg.rows import TupleRow

from metering.calls.settlement import Stored
from metering.calls.storage import send_events, store_events, stored_of
from metering.ledger.holds import (
    LOCK_RESERVATIONS,
    OPEN,
    Held,
    LockedReservation,
    lock_due,
    locked_reservations_of,
    write_reservations,
)
from metering.ledger.posting import (
    LOCK_WINDOWS,
    Locked,
    Planned,
    finish_move,
    lock_parameters,
    lock_windows,
    locked_of,
    plan_move,
)
from metering.ledger.windows import WindowState
from metering.limits.breakers import feed_breakers
from metering.limits.decisions import insert_decisions
from metering.limits.halts import (
    IN_FORCE,
    NO_HALTS,
    ActiveHalts,
    HaltMark,
    halts_of_mark,
    remembered_halts,
)
from metering.limits.limit_reductions import ActiveLimitReduction, read_limit_reductions
from metering.limits.lockouts import follow_levels
from metering.limits.rate_counters import (
    RateCounterKey,
    RateCounterState,
    lock_rate_counters,
    write_rate_counters,
)
from metering.models import EntryKind
from metering.reservations.admission import Admission, NotAsExpected
from metering.reservations.commands import Command, ReservationCommand, Reserve, Settle
from metering.reservations.repository import insert_reservations
from metering.reservations.settlement import Settlement
from metering.snapshot import Configuration, ConfigurationChanged
from tenants.pipeline import Pipeline, pipelined
from tenants.scope import CONFIGURATION_LOCK


class Strategy(Enum):
    """How a batch takes its locks.

    COMBINED reads, stores and locks everything in one round trip, on the assumption that nothing is
    in force but what `may_combine` knew of, and that what is settled is open. SHARED does so in a
    transaction with other tenants' batches (`shared_transaction`), on the assumption that nothing
    is to be read or done besides. STEPWISE stores once it has seen what is there. CAREFUL stores in
    the way that tells which calls were reported before.
    """

    COMBINED = "combined"
    SHARED = "shared"
    STEPWISE = "stepwise"
    CAREFUL = "careful"


def may_combine(configuration: Configuration, commands: Sequence[Command]) -> bool:
    """Whether the batch most likely needs no locks but those of reservations and windows."""
    if configuration.breakers or configuration.rate_limits:
        return False
    if configuration.budgets.has_rollover or configuration.budgets.has_throttles:
        return False
    if any(isinstance(command, Reserve) and command.request_key for command in commands):
        return False
    return not remembered_halts(configuration.tenant_id)


class Sent(NamedTuple):
    """What takes a batch's locks and stores its events, on its way to PostgreSQL."""

    settles: Sequence[Settle]
    window_ids: set[int]
    in_force: Cursor[TupleRow]
    reservations: Cursor[TupleRow] | None
    events: Cursor[TupleRow] | None
    windows: Cursor[TupleRow] | None


class _InForce(NamedTuple):
    halts: HaltMark
    is_tightened: bool
    # Whether there are reservations that are over and still hold.
    is_due: bool


_LOCK: Final = "SELECT pg_advisory_xact_lock_shared(%s::int, %s::int)"
# A statement of its own, so that its snapshot is younger than the lock.
_IN_FORCE: Final = f"""
    SELECT t.configuration_version,
        coalesce((SELECT max(version) FROM halt WHERE tenant_id = t.id), 0), h.count, h.sum,
        EXISTS (SELECT FROM limit_reduction WHERE tenant_id = t.id AND ended_at IS NULL),
        EXISTS (SELECT FROM reservation
            WHERE tenant_id = t.id AND state = {OPEN} AND expires_at <= now())
    FROM tenant t, LATERAL (
        SELECT count(*), coalesce(sum(version), 0)::bigint AS sum FROM halt
        WHERE tenant_id = t.id AND {IN_FORCE}
    ) h WHERE t.id = %s
"""


class Batch:
    """The commands of one transaction. Raises KnownBefore if a call was reported before, unless it
    is CAREFUL.
    """

    def __init__(
        self,
        configuration: Configuration,
        commands: Sequence[Command],
        held: dict[UUID, Held],
        *,
        strategy: Strategy,
    ) -> None:
        self.configuration = configuration
        self.tenant_id = configuration.tenant_id
        self.book = configuration.budgets
        self.commands = commands
        self.held = held
        self.is_combined = strategy is Strategy.COMBINED
        self.is_shared = strategy is Strategy.SHARED
        self.is_careful = strategy is Strategy.CAREFUL
        self.admission = Admission(configuration, commands)
        self.settlement: Settlement
        self.halts: ActiveHalts = NO_HALTS
        self.limit_reductions: Sequence[ActiveLimitReduction] = ()
        self.reservations: dict[UUID, LockedReservation] = {}
        self.batch_id: int | None = None
        self.rate_counters: dict[RateCounterKey, RateCounterState] = {}
        self.now = timezone.now()

    def run(self) -> None:
        """Lock and store, end, admit, write."""
        with connection.cursor() as cursor:
            locked = self._lock_combined() if self.is_combined else self._lock_stepwise(cursor)
            planned = self.decide(cursor, locked)
        with pipelined() as pipeline:
            self.send_writes(pipeline, planned)
            if planned is None or planned.is_all:
                pipeline.commit()
        if planned is not None:
            changes = finish_move(book=self.book, locked=locked, planned=planned)
            follow_levels(self.book, changes)

    def _lock_combined(self) -> Locked[WindowState]:
        with pipelined() as pipeline:
            sent = self.send_locks(pipeline)
        return self.take_locks(sent)

    def send_locks(self, pipeline: Pipeline) -> Sent:
        """Send what takes all locks and stores the events. For a batch that combines."""
        first: dict[UUID, Settle] = {}
        for command in self.commands:
            if isinstance(command, Settle):
                first.setdefault(command.reservation_id, command)
        settles = list(first.values())
        sets = {self.book.ids_of(settle.event.windows) for settle in settles}
        sets |= {held.windows.ids for held in self.held.values()}
        window_ids = self.admission.window_ids().union(*sets)
        in_force, reservations = self._send_begin(pipeline)
        events = self._send_events(pipeline, settles)
        windows = self._send_lock(pipeline, window_ids)
        return Sent(settles, window_ids, in_force, reservations, events, windows)

    def take_locks(self, sent: Sent) -> Locked[WindowState]:
        """Read what `send_locks` was answered."""
        in_force = self._take_begin(sent.in_force, sent.reservations)
        if in_force.halts.halts or in_force.is_due:
            raise NotAsExpected
        if self.is_shared and in_force.is_tightened:
            raise NotAsExpected
        self._sort_settles()
        if self.is_careful or self.settlement.booking != sent.settles:
            raise NotAsExpected
        self._read_what_stops(in_force)
        if sent.events is not None:
            self._book(stored_of(sent.events, [each.event for each in sent.settles]))
        rows = sent.windows.fetchall() if sent.windows is not None else ()
        return locked_of(rows, sent.window_ids)

    def decide(self, cursor: CursorWrapper | None, locked: Locked[WindowState]) -> Planned | None:
        """End what ends, and admit; return what that moves. A SHARED batch has no cursor."""
        self.settlement.end(halts=self.halts, now=self.now)
        self.admission.decide(
            cursor,
            windows=locked.windows,
            settlement=self.settlement,
            rate_counters=self.rate_counters,
            limit_reductions=self.limit_reductions,
            now=self.now,
        )
        planned = plan_move(
            book=self.book,
            locked=locked,
            sums=self.settlement.sums,
            holds=self.settlement.moves.by_window(),
            kind=EntryKind.SETTLE,
            batch_id=self.batch_id,
        )
        if self.is_shared and planned is not None and not planned.is_all:
            raise NotAsExpected
        return planned

    def _lock_stepwise(self, cursor: CursorWrapper) -> Locked[WindowState]:
        """See what is in force and the reservations before storing what depends on them."""
        with pipelined() as pipeline:
            in_force = self._take_begin(*self._send_begin(pipeline))
        self._read_what_stops(in_force)
        if self.admission.is_keyed:
            self.admission.answer_again(cursor)
        if in_force.is_due:
            self.reservations |= lock_due(self.tenant_id, without=self.reservations)
        self._sort_settles()
        return self._store_and_lock(cursor)

    def _send_begin(self, pipeline: Pipeline) -> tuple[Cursor[TupleRow], Cursor[TupleRow] | None]:
        """Send what takes the configuration lock, asks what is in force, and locks the named
        reservations.
        """
        named = {
            command.reservation_id
            for command in self.commands
            if isinstance(command, ReservationCommand)
        }
        pipeline.enter_tenant(self.tenant_id)
        pipeline.send(_LOCK, [CONFIGURATION_LOCK, self.tenant_id])
        in_force = pipeline.send(_IN_FORCE, [self.tenant_id])
        if not named:
            return in_force, None
        return in_force, pipeline.send(LOCK_RESERVATIONS, [self.tenant_id, sorted(named)])

    def _take_begin(self, in_force: Cursor[TupleRow], locking: Cursor[TupleRow] | None) -> _InForce:
        row = in_force.fetchone()
        assert row is not None, "a tenant's key is the tenant's"
        version, max_version, halts, version_sum, is_tightened, is_due = row
        if version != self.configuration.version:
            raise ConfigurationChanged
        if locking is not None:
            self.reservations = locked_reservations_of(locking.fetchall(), self.held)
        return _InForce(HaltMark(max_version, halts, version_sum), is_tightened, is_due)

    def _sort_settles(self) -> None:
        # After the wait for locks: what has expired by now is over.
        self.now = timezone.now()
        self.settlement = Settlement(self.configuration, self.commands, self.reservations)
        if any(
            self.reservations[settle.reservation_id].event_id is not None
            for settle in self.settlement.booking
        ):
            # An event has settled it before: the settle is another report of that call.
            self.is_careful = True

    def _read_what_stops(self, in_force: _InForce) -> None:
        if not in_force.halts.halts and not in_force.is_tightened:
            return
        with connection.cursor() as cursor:
            if in_force.halts.halts:
                self.halts = halts_of_mark(cursor, self.tenant_id, in_force.halts)
            if in_force.is_tightened:
                self.limit_reductions = read_limit_reductions(cursor, self.tenant_id)

    def _store_and_lock(self, cursor: CursorWrapper) -> Locked[WindowState]:
        """Store the events that settle, and lock every window that may move."""
        keys = self.admission.rate_counter_keys()
        has_more_locks = self.configuration.breakers or self.halts or keys
        if self.is_careful or has_more_locks or self.book.has_rollover:
            self._store()
            if self.halts:
                self.admission.stop_halted(cursor, self.halts, now=self.now)
                keys = self.admission.rate_counter_keys()
            self.rate_counters = lock_rate_counters(cursor, self.tenant_id, keys)
            return lock_windows(book=self.book, window_ids=self._window_ids())
        window_ids = self._window_ids()
        settles = self.settlement.booking
        with pipelined() as pipeline:
            storing = self._send_events(pipeline, settles)
            locking = self._send_lock(pipeline, window_ids)
            if storing is not None:
                self._book(stored_of(storing, [each.event for each in settles]))
            rows = locking.fetchall() if locking is not None else ()
        return locked_of(rows, window_ids)

    def _window_ids(self) -> set[int]:
        return self.admission.window_ids() | self.settlement.window_ids()

    def _send_events(
        self, pipeline: Pipeline, settles: Sequence[Settle]
    ) -> Cursor[TupleRow] | None:
        if not settles:
            return None
        events = [settle.event for settle in settles]
        return send_events(pipeline, events, tenant_id=self.tenant_id)

    def _send_lock(self, pipeline: Pipeline, window_ids: set[int]) -> Cursor[TupleRow] | None:
        if not window_ids:
            return None
        return pipeline.send(LOCK_WINDOWS, lock_parameters(self.book, window_ids))

    def _store(self) -> None:
        """Store the events in a round trip of their own, and feed them to breakers."""
        settles = self.settlement.booking
        if not settles:
            return
        if self.is_careful:
            jobs = [settle.job for settle in settles if settle.job is not None]
            stored: Stored = store_events(self.configuration, jobs, self.reservations)
        else:
            with pipelined() as pipeline:
                storing = self._send_events(pipeline, settles)
                assert storing is not None, "there are events to store"
                stored = stored_of(storing, [settle.event for settle in settles])
        self._book(stored)
        feed_breakers(
            tenant_id=self.tenant_id,
            rules=self.configuration.breakers,
            calls=[event.breaker_call() for event in (*stored.fresh, *stored.inserted)],
        )

    def _book(self, stored: Stored) -> None:
        self.batch_id = stored.batch_id
        self.settlement.book_settled(stored)

    def send_writes(self, pipeline: Pipeline, planned: Planned | None) -> None:
        """Send what writes what was decided."""
        cursor = pipeline.cursor()
        insert_reservations(cursor, self.tenant_id, self.admission.rows)
        write_reservations(cursor, self.tenant_id, self.reservations.values())
        write_rate_counters(cursor, self.tenant_id, self.rate_counters.values())
        self.admission.end_probes(cursor)
        decisions = [*self.settlement.decisions, *self.admission.decisions]
        insert_decisions(cursor, self.tenant_id, decisions)
        self.admission.keep_answers(cursor)
        if planned is not None:
            pipeline.send(planned.statement, planned.parameters)
