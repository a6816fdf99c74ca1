"""The steps of a turn: one transaction that serves callers of a tenant, in the order of its locks.

In order: the configuration lock (shared) and the halts in force, earlier answers to the same
requests, reservations, the events that settle them, breaker states, paces, and last the windows in
order of id. What ends gives back what it held before anybody asks for it, so nobody is refused for
a hold that is over.

Most turns take two round trips: what is in force, the reservations, the events and the windows;
what was decided, and the commit.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import connection
from django.utils import timezone

from metering.calls.prepared_event import PreparedEvent
from metering.calls.settlement import Stored
from metering.calls.storage import send_events, store_events, stored_of
from metering.ledger.holds import (
    LOCK_RESERVATIONS,
    OPEN,
    Held,
    Standing,
    lock_due,
    standings_of,
    write_standings,
)
from metering.ledger.posting import (
    LOCK_WINDOWS,
    Locked,
    finish_move,
    lock_parameters,
    lock_windows,
    locked_of,
    plan_move,
)
from metering.limits.breakers import feed_breakers
from metering.limits.decisions import insert_decisions
from metering.limits.halts import (
    IN_FORCE,
    NO_HALTS,
    HaltMark,
    StandingHalts,
    halts_of_mark,
    remembered_halts,
)
from metering.limits.lockouts import follow_levels
from metering.limits.rate_counters import PaceKey, PaceState, lock_paces, write_paces
from metering.limits.throttles import StandingTightening, read_tightenings
from metering.models import EntryKind
from metering.reservations.admission import Asking
from metering.reservations.endings import Endings
from metering.reservations.repository import insert_reservations
from metering.reservations.works import Reserve, Settle, Work
from metering.snapshot import Configuration, ConfigurationChanged
from tenants.pipeline import Pipeline, pipelined
from tenants.scope import CONFIGURATION_LOCK


class Way(Enum):
    """How a turn goes about its work.

    AT_ONCE reads, stores and locks everything in one round trip, on the assumption that nothing is
    in force but what `fits_at_once` knew of, and that what is settled is open. STEPWISE stores once
    it has seen what is there. CAREFUL stores in the way that tells which calls were reported
    before.
    """

    AT_ONCE = "at once"
    STEPWISE = "stepwise"
    CAREFUL = "careful"


class NotAsExpected(Exception):
    """What a turn AT_ONCE went by does not hold: it is to be taken STEPWISE."""


def fits_at_once(configuration: Configuration, works: Sequence[Work]) -> bool:
    """Whether such a turn most likely needs no locks but those of reservations and windows."""
    if configuration.breakers or configuration.rate_limits:
        return False
    if configuration.budgets.has_rollover or configuration.budgets.has_throttles:
        return False
    if any(isinstance(work, Reserve) and work.request_key is not None for work in works):
        return False
    return not remembered_halts(configuration.tenant_id)


class _InForce(NamedTuple):
    halts: HaltMark
    is_tightened: bool
    # Whether reservations are over that nobody has given back.
    is_due: bool


_LOCK: Final = "SELECT pg_advisory_xact_lock_shared(%s::int, %s::int)"
# A statement of its own, so that its snapshot is younger than the lock.
_IN_FORCE: Final = f"""
    SELECT t.configuration_version,
        coalesce((SELECT max(version) FROM halt WHERE tenant_id = t.id), 0), h.count, h.sum,
        EXISTS (SELECT FROM tightening WHERE tenant_id = t.id AND ended_at IS NULL),
        EXISTS (SELECT FROM reservation
            WHERE tenant_id = t.id AND state = {OPEN} AND expires_at <= now())
    FROM tenant t, LATERAL (
        SELECT count(*), coalesce(sum(version), 0)::bigint AS sum FROM halt
        WHERE tenant_id = t.id AND {IN_FORCE}
    ) h WHERE t.id = %s
"""  # noqa: S608 - this package's own condition and number


class Turn:
    """One transaction's work. Raises KnownBefore where a call was reported before, unless it is
    CAREFUL.
    """

    def __init__(
        self,
        configuration: Configuration,
        works: Sequence[Work],
        held: dict[UUID, Held],
        *,
        way: Way,
    ) -> None:
        self.configuration = configuration
        self.tenant_id = configuration.tenant_id
        self.book = configuration.budgets
        self.works = works
        self.held = held
        self.is_at_once = way is Way.AT_ONCE
        self.is_careful = way is Way.CAREFUL
        self.asking = Asking(configuration, works)
        self.endings: Endings
        self.halts: StandingHalts = NO_HALTS
        self.tightenings: Sequence[StandingTightening] = ()
        self.standings: dict[UUID, Standing] = {}
        self.batch_id: int | None = None
        self.paces: dict[PaceKey, PaceState] = {}
        self.now = timezone.now()

    def run(self) -> None:
        """Everything, last the windows."""
        with connection.cursor() as cursor:
            locked = self._begin_at_once() if self.is_at_once else self._begin_stepwise(cursor)
            self.endings.end(halts=self.halts, now=self.now)
            self.asking.decide(
                cursor,
                windows=locked.windows,
                endings=self.endings,
                paces=self.paces,
                tightenings=self.tightenings,
                now=self.now,
            )
        self._write(locked)

    def _begin_at_once(self) -> Locked:
        """Take all locks and store the events in one round trip."""
        settling: dict[UUID, Settle] = {}
        for work in self.works:
            if isinstance(work, Settle):
                settling.setdefault(work.reservation_id, work)
        events = [work.event for work in settling.values() if work.event is not None]
        window_ids = self._expected_window_ids(events)
        with pipelined() as pipeline:
            asked = self._send_begin(pipeline)
            storing = send_events(pipeline, events, tenant_id=self.tenant_id) if events else None
            locking = self._send_lock(pipeline, window_ids)
            in_force = self._take_begin(*asked)
        if in_force.halts.halts or in_force.is_due:
            raise NotAsExpected
        self._sort_endings()
        if self.is_careful or self.endings.booking != list(settling.values()):
            raise NotAsExpected
        self._read_what_stops(in_force)
        if storing is not None:
            self._book(stored_of(storing, events))
        return locked_of(locking.fetchall() if locking is not None else (), window_ids)

    def _expected_window_ids(self, events: Sequence[PreparedEvent]) -> set[int]:
        ids = self.asking.window_ids()
        ids.update(self.book.window_ids[key] for event in events for key in event.windows)
        for held in self.held.values():
            ids.update(window.window_id for window in held.windows)
        return ids

    def _begin_stepwise(self, cursor: Any) -> Locked:
        """See what is in force and the reservations before what depends on them is stored."""
        with pipelined() as pipeline:
            in_force = self._take_begin(*self._send_begin(pipeline))
        self._read_what_stops(in_force)
        if self.asking.is_keyed:
            self.asking.answer_again(cursor)
        if in_force.is_due:
            self.standings |= lock_due(self.tenant_id, without=self.standings)
        self._sort_endings()
        return self._store_and_lock(cursor)

    def _send_begin(self, pipeline: Pipeline) -> tuple[Any, Any]:
        """Send what takes the configuration lock, asks what is in force, and locks the reservations
        that are named.
        """
        named = {id_ for work in self.works if (id_ := work.named_id) is not None}
        pipeline.enter_tenant(self.tenant_id)
        pipeline.send(_LOCK, [CONFIGURATION_LOCK, self.tenant_id])
        in_force = pipeline.send(_IN_FORCE, [self.tenant_id])
        if not named:
            return in_force, None
        return in_force, pipeline.send(LOCK_RESERVATIONS, [self.tenant_id, sorted(named)])

    def _take_begin(self, in_force: Any, locking: Any) -> _InForce:
        row = in_force.fetchone()
        assert row is not None, "a tenant's key is the tenant's"
        version, max_version, halts, version_sum, is_tightened, is_due = row
        if version != self.configuration.version:
            raise ConfigurationChanged
        if locking is not None:
            self.standings = standings_of(locking.fetchall(), self.held)
        return _InForce(HaltMark(max_version, halts, version_sum), is_tightened, is_due)

    def _sort_endings(self) -> None:
        # After the wait for locks: what has expired by now is over.
        self.now = timezone.now()
        self.endings = Endings(self.configuration, self.works, self.standings)
        if any(
            self.standings[work.reservation_id].event_id is not None
            for work in self.endings.booking
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
                self.tightenings = read_tightenings(cursor, self.tenant_id)

    def _store_and_lock(self, cursor: Any) -> Locked:
        """Store the events that settle, and lock every window that may move."""
        keys = self.asking.pace_keys()
        has_more_locks = self.configuration.breakers or self.halts or keys
        if self.is_careful or has_more_locks or self.book.has_rollover:
            self._store(cursor)
            if self.halts:
                self.asking.stop_halted(cursor, self.halts, now=self.now)
                keys = self.asking.pace_keys()
            self.paces = lock_paces(cursor, self.tenant_id, keys)
            return lock_windows(book=self.book, window_ids=self._window_ids())
        window_ids = self._window_ids()
        events = self._events()
        with pipelined() as pipeline:
            storing = send_events(pipeline, events, tenant_id=self.tenant_id) if events else None
            locking = self._send_lock(pipeline, window_ids)
            if storing is not None:
                self._book(stored_of(storing, events))
            rows = locking.fetchall() if locking is not None else ()
        return locked_of(rows, window_ids)

    def _window_ids(self) -> set[int]:
        return self.asking.window_ids() | self.endings.window_ids()

    def _events(self) -> list[PreparedEvent]:
        return [work.event for work in self.endings.booking if work.event is not None]

    def _send_lock(self, pipeline: Pipeline, window_ids: set[int]) -> Any:
        if not window_ids:
            return None
        return pipeline.send(LOCK_WINDOWS, lock_parameters(self.book, window_ids))

    def _store(self, cursor: Any) -> None:
        """Store the events in a round trip of their own, and let breakers see them."""
        booking = self.endings.booking
        if not booking:
            return
        if self.is_careful:
            jobs = [work.job for work in booking if work.job is not None]
            stored: Stored = store_events(self.configuration, jobs, self.standings)
        else:
            events = self._events()
            with pipelined() as pipeline:
                stored = stored_of(send_events(pipeline, events, tenant_id=self.tenant_id), events)
        self._book(stored)
        feed_breakers(
            tenant_id=self.configuration.tenant_id,
            rules=self.configuration.breakers,
            calls=[event.breaker_call() for event in (*stored.fresh, *stored.inserted)],
        )

    def _book(self, stored: Stored) -> None:
        self.batch_id = stored.batch_id
        self.endings.book_settled(stored)

    def _write(self, locked: Locked) -> None:
        """Write what was decided, and commit where that is all."""
        planned = plan_move(
            book=self.book,
            locked=locked,
            sums=self.endings.sums,
            holds=self.endings.moves,
            kind=EntryKind.SETTLE,
            batch_id=self.batch_id,
        )
        with pipelined() as pipeline:
            cursor = pipeline.cursor()
            insert_reservations(cursor, self.tenant_id, self.asking.rows)
            write_standings(cursor, self.tenant_id, self.standings.values())
            write_paces(cursor, self.tenant_id, self.paces.values())
            self.asking.end_trials(cursor)
            decisions = [*self.endings.decisions, *self.asking.decisions]
            insert_decisions(cursor, self.tenant_id, decisions)
            self.asking.keep_answers(cursor)
            if planned is not None:
                pipeline.send(planned.statement, planned.parameters)
            if planned is None or planned.is_all:
                pipeline.commit()
        if planned is not None:
            changes = finish_move(book=self.book, locked=locked, planned=planned)
            follow_levels(self.book, changes)
