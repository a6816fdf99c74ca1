"""The transaction that enforces: one serves all callers of a tenant that wait in this process.

In order: the configuration lock (shared) and the halts in force, earlier answers to the same
requests, reservations, the events that settle them, breaker states, paces, and last the windows in
order of id. What ends gives back what it held before anybody asks for it, so nobody is refused for
a hold that is over.

Most turns take three round trips: what is in force and the reservations; the events and the
windows; what was decided, and the commit.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import structlog
from django.db import DatabaseError, IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from common.database_errors import is_of_value, sqlstate_of
from common.errors import InvalidRequest, MeteringError, NotFound, without_frames
from metering.calls.retries import with_retries
from metering.calls.settlement import Stored
from metering.calls.storage import store_events
from metering.calls.storing import KnownBefore, send_events, stored_of
from metering.ledger.holds import (
    EXPIRED,
    LOCK_RESERVATIONS,
    OPEN,
    Held,
    HoldMoves,
    Standing,
    are_known,
    find_held,
    lock_due,
    remember_held,
    standings_of,
    write_standings,
)
from metering.ledger.opening import with_windows
from metering.ledger.posting import (
    LOCK_WINDOWS,
    Locked,
    finish_move,
    lock_parameters,
    lock_windows,
    locked_of,
    move,
    plan_move,
)
from metering.limits.breakers import feed_breakers
from metering.limits.decisions import insert_decisions
from metering.limits.halts import IN_FORCE, NO_HALTS, StandingHalts, halts_of_mark
from metering.limits.lockouts import follow_levels
from metering.limits.rate_counters import PaceKey, PaceState, lock_paces, write_paces
from metering.limits.throttles import StandingTightening, read_tightenings
from metering.models import EntryKind
from metering.reservations.admission import Asking
from metering.reservations.endings import Endings
from metering.reservations.repository import insert_reservations
from metering.reservations.works import Reserve, Work
from metering.snapshot import (
    CHANGES_MAX,
    Configuration,
    ConfigurationChanged,
    known_configuration,
    read_configuration,
)
from tenants.pipeline import Pipeline, pipelined
from tenants.scope import CONFIGURATION_LOCK, lock_configuration_shared, tenant_scope

log = structlog.get_logger(__name__)


def take_turn(tenant_id: int, works: Sequence[Work]) -> Sequence[Work]:
    """Do what callers of one tenant want, in one transaction; an error of one fails no other.

    Raises OperationalError when the database cannot be reached: nothing was granted, and what was
    committed without an answer is recognised when it is sent again. Raises DataError or
    IntegrityError where the database refuses a value of one of several works, which then are
    committed apart. Nothing is ever left to do: returns no works.
    """

    def commit() -> None:
        pending = _not_committed(tenant_id, works)
        for work in pending:
            work.was_attempted = isinstance(work, Reserve)
        _take_as_configured(tenant_id, pending)

    try:
        with_retries(tenant_id, commit)
    except DatabaseError as error:
        if len(works) > 1 or not is_of_value(error):
            raise
        if isinstance(error, IntegrityError):
            if _not_committed(tenant_id, works):
                raise
            return ()
        log.warning("values not stored", tenant_id=tenant_id, sqlstate=sqlstate_of(error))
        works[0].error = InvalidRequest("The request holds a value that cannot be stored.")
    return ()


def expire_due(tenant_id: int) -> int:
    """Give back what reservations hold whose time is over; return how many reservations ended.

    Turns do the same for themselves: this is for tenants where nobody asks for anything.
    """
    book = known_configuration(tenant_id).budgets
    moves = HoldMoves()
    ended = 0
    with tenant_scope(tenant_id):
        lock_configuration_shared(tenant_id)
        due = lock_due(tenant_id)
        now = timezone.now()
        for standing in due.values():
            standing.finish(EXPIRED, now)
            moves.add(standing.returned())
            ended += 1
        with connection.cursor() as cursor:
            write_standings(cursor, tenant_id, due.values())
        if moves:
            locked = lock_windows(book=book, window_ids=set(moves))
            changes = move(
                book=book,
                locked=locked,
                sums={},
                holds=moves,
                kind=EntryKind.SETTLE,
                batch_id=None,
            )
            follow_levels(book, changes)
    # Fewer than are due where this clock is behind the database's: not to be tried at once again.
    return ended


def _not_committed(tenant_id: int, works: Sequence[Work]) -> list[Work]:
    """The works that an earlier attempt, whose commit was not answered, did not commit after all.

    Only reservations need this: the others find by what is stored that they are done.
    """
    attempted = [work.id for work in works if isinstance(work, Reserve) and work.was_attempted]
    if not attempted:
        return list(works)
    with tenant_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM reservation WHERE tenant_id = %s AND id = ANY(%s)",
            [tenant_id, attempted],
        )
        committed = {row[0] for row in cursor.fetchall()}
    return [work for work in works if not (isinstance(work, Reserve) and work.id in committed)]


def _take_as_configured(tenant_id: int, works: Sequence[Work]) -> None:
    configuration = known_configuration(tenant_id)
    for _ in range(CHANGES_MAX if works else 0):
        try:
            _take(configuration, works)
        except ConfigurationChanged:
            configuration = read_configuration(tenant_id, known=configuration)
        else:
            return
    if works:
        raise OperationalError("what the calls count in changed again and again")


def _take(configuration: Configuration, works: Sequence[Work]) -> None:
    tenant_id = configuration.tenant_id
    for work in works:
        work.reset()
    held = _held_of(tenant_id, works)
    able = [work for work in works if _judge(work, configuration, held)]
    if not able:
        return
    try:
        made = _run(configuration, able, held, is_careful=False)
    except KnownBefore:
        for work in able:
            work.reset()
            work.judge(configuration, held.get(work.named_id) if work.named_id else None)
        made = _run(configuration, able, held, is_careful=True)
    for one in made:
        remember_held(tenant_id, one)


def _run(
    configuration: Configuration,
    works: Sequence[Work],
    held: dict[UUID, Held],
    *,
    is_careful: bool,
) -> list[Held]:
    keys = {key for work in works for key in work.window_keys()}
    own = configuration._replace(budgets=with_windows(configuration.budgets, keys))
    turn = _Turn(own, works, held, is_careful=is_careful)
    with transaction.atomic():
        turn.run()
    return turn.asking.made


def _held_of(tenant_id: int, works: Iterable[Work]) -> dict[UUID, Held]:
    ids = {id_ for work in works if (id_ := work.named_id) is not None}
    if are_known(tenant_id, ids):
        return find_held(tenant_id, ids)
    with tenant_scope(tenant_id):
        return find_held(tenant_id, ids)


def _judge(work: Work, configuration: Configuration, held: dict[UUID, Held]) -> bool:
    """Whether the work can go on; else it has its error."""
    id_ = work.named_id
    if id_ is not None and id_ not in held:
        work.error = NotFound(f"There is no reservation {id_}.")
        return False
    try:
        work.judge(configuration, held.get(id_) if id_ is not None else None)
    except MeteringError as error:
        work.error = without_frames(error)
        return False
    return True


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
_NEXT_BATCH: Final = "SELECT nextval('ingest_batch_id')"


class _Turn:
    """One transaction's work, in the order of its locks.

    With `is_careful` events are stored in the way that tells which of them were known before.
    """

    def __init__(
        self,
        configuration: Configuration,
        works: Sequence[Work],
        held: dict[UUID, Held],
        *,
        is_careful: bool,
    ) -> None:
        self.configuration = configuration
        self.tenant_id = configuration.tenant_id
        self.book = configuration.budgets
        self.works = works
        self.held = held
        self.is_careful = is_careful
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
        is_due = self._begin()
        with connection.cursor() as cursor:
            if self.asking.is_keyed:
                self.asking.answer_again(cursor)
            if is_due:
                self.standings |= lock_due(self.tenant_id, without=self.standings)
            # After the wait for locks: what has expired by now is over.
            self.now = timezone.now()
            self.endings = Endings(self.configuration, self.works, self.standings)
            if any(
                self.standings[work.reservation_id].event_id is not None
                for work in self.endings.booking
            ):
                # An event has settled it before: the settle is another report of that call.
                self.is_careful = True
            locked = self._store_and_lock(cursor)
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

    def _begin(self) -> bool:
        """Take the configuration lock, see what is in force, and lock the reservations that are
        named; answers whether the holds of others are due.
        """
        named = [id_ for work in self.works if (id_ := work.named_id) is not None]
        with pipelined() as pipeline:
            pipeline.enter_tenant(self.tenant_id)
            pipeline.send(_LOCK, [CONFIGURATION_LOCK, self.tenant_id])
            in_force = pipeline.send(_IN_FORCE, [self.tenant_id])
            locking = (
                pipeline.send(LOCK_RESERVATIONS, [self.tenant_id, sorted(set(named))])
                if named
                else None
            )
            batch = pipeline.send(_NEXT_BATCH) if named else None
            row = in_force.fetchone()
            assert row is not None, "a tenant's key is the tenant's"
            version, *mark, is_tightened, is_due = row
            if version != self.configuration.version:
                raise ConfigurationChanged
            if locking is not None:
                self.standings = standings_of(locking.fetchall(), self.held)
            if batch is not None:
                (self.batch_id,) = batch.fetchone() or (None,)
        self._read_what_stops(mark, is_tightened=is_tightened)
        return bool(is_due)

    def _read_what_stops(self, mark: Sequence[int], *, is_tightened: bool) -> None:
        if not mark[1] and not is_tightened:
            return
        with connection.cursor() as cursor:
            if mark[1]:
                self.halts = halts_of_mark(cursor, self.tenant_id, mark)
            if is_tightened:
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
        events = [work.event for work in self.endings.booking if work.event is not None]
        with pipelined() as pipeline:
            storing = self._send_events(pipeline) if events else None
            locking = (
                pipeline.send(LOCK_WINDOWS, lock_parameters(self.book, window_ids))
                if window_ids
                else None
            )
            if storing is not None:
                assert self.batch_id is not None
                self.endings.book_settled(stored_of(storing, events, batch_id=self.batch_id))
            rows = locking.fetchall() if locking is not None else []
        return locked_of(rows, window_ids)

    def _window_ids(self) -> set[int]:
        return self.asking.window_ids() | self.endings.window_ids()

    def _send_events(self, pipeline: Pipeline) -> Any:
        assert self.batch_id is not None
        events = [work.event for work in self.endings.booking if work.event is not None]
        return send_events(pipeline, events, tenant_id=self.tenant_id, batch_id=self.batch_id)

    def _store(self, cursor: Any) -> None:
        """Store the events in a round trip of their own, and let breakers see them."""
        booking = self.endings.booking
        if not booking:
            return
        if self.is_careful:
            jobs = [work.job for work in booking if work.job is not None]
            stored: Stored = store_events(self.configuration, jobs, self.standings)
            self.batch_id = stored.batch_id
        else:
            assert self.batch_id is not None
            events = [work.event for work in booking if work.event is not None]
            with pipelined() as pipeline:
                stored = stored_of(self._send_events(pipeline), events, batch_id=self.batch_id)
        self.endings.book_settled(stored)
        feed_breakers(
            tenant_id=self.configuration.tenant_id,
            rules=self.configuration.breakers,
            calls=[event.reported() for event in (*stored.fresh, *stored.inserted)],
        )

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
