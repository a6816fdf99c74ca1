"""The transaction that enforces: one serves all callers of a tenant that wait in this process.

In order: the configuration lock (shared) and the halts in force, earlier answers to the same
requests, reservations, the events that settle them, breaker states, paces, and last the windows in
order of id. What ends gives back what it held before anybody asks for it, so nobody is refused for
a hold that is over.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import DataError, IntegrityError, connection
from django.utils import timezone

from metering.answers import KeptAnswer, claim_keys, free_keys, keep_answers
from metering.budget_rules import Amounts
from metering.configuration import Configuration, known_configuration, read_configuration
from metering.enforcement.breakers import feed_breakers, forget_trial, try_trial
from metering.enforcement.decisions import DecisionRow, insert_decisions
from metering.enforcement.halts import (
    HALTS_SQL,
    NO_HALTS,
    HaltsQuestion,
    StandingHalt,
    StandingHalts,
)
from metering.enforcement.holds import (
    EXPIRED,
    OPEN,
    RELEASED,
    SETTLED,
    Held,
    HeldWindow,
    HoldMoves,
    Standing,
    are_known,
    dimensions_of,
    find_held,
    lock_reservations,
    remember_held,
    write_standings,
)
from metering.enforcement.levels import Room
from metering.enforcement.pace import PaceKey, PaceState, lock_paces, write_paces
from metering.enforcement.rows import (
    ReservationRow,
    decision_row,
    insert_lockout,
    insert_reservations,
    reservation_row,
)
from metering.enforcement.settling import Stored, settle_with_events
from metering.enforcement.tightening import StandingTightening, read_tightenings
from metering.enforcement.verdicts import (
    Judge,
    Verdict,
    halt_detail,
    rate_key,
    refuse_by_halt,
    throttle_key,
)
from metering.enforcement.wishes import ask_at_level
from metering.enforcement.works import Extend, Release, Reserve, Settle, Work, finished
from metering.errors import (
    BudgetExceeded,
    Conflict,
    Halted,
    IdempotencyConflict,
    InvalidRequest,
    MeteringError,
    NotFound,
    ReservationFinished,
)
from metering.ingest import ConfigurationChanged, store_events, sums_by_posting, with_retries
from metering.ledger import HoldMove, Posting, lock_windows, move, open_windows
from metering.models import EntryKind
from tenants.scope import lock_configuration_shared, tenant_scope


class IdConflict(Conflict):
    """The event's id belongs to another event, which stays as it is."""

    code = "id_conflict"


def take_turn(tenant_id: int, works: Sequence[Work]) -> None:
    """Do what callers of one tenant want, in one transaction; an error of one fails no other.

    Raises OperationalError when the database cannot be reached: nothing was granted, and what was
    committed without an answer is recognised when it is sent again.
    """
    attempted: set[UUID] = set()

    def commit() -> None:
        pending = _not_committed(tenant_id, works, attempted)
        attempted.update(work.id for work in pending if isinstance(work, Reserve))
        _take_as_configured(tenant_id, pending)

    try:
        with_retries(tenant_id, commit)
    except (DataError, IntegrityError) as error:
        if len(works) > 1:
            for work in works:
                take_turn(tenant_id, [work])
        elif isinstance(error, DataError):
            detail = f"The request cannot be stored: {str(error).splitlines()[0]}."
            works[0].error = InvalidRequest(detail)
        else:
            raise


def expire_due(tenant_id: int) -> int:
    """Give back what reservations hold whose time is over; answers how many there were.

    Turns do the same for themselves: this is for tenants where nobody asks for anything.
    """
    configuration = known_configuration(tenant_id)
    moves = HoldMoves()
    with tenant_scope(tenant_id):
        lock_configuration_shared(tenant_id)
        standings = lock_reservations(tenant_id, {}, is_due_wanted=True)
        now = timezone.now()
        due = [standing for standing in standings.values() if standing.is_due(now)]
        for standing in due:
            standing.finish(EXPIRED, now)
            moves.add(standing.returned())
        write_standings(tenant_id, due)
        if moves:
            locked = lock_windows(book=configuration.budgets, window_ids=set(moves))
            move(
                book=configuration.budgets,
                locked=locked,
                sums={},
                holds=moves,
                kind=EntryKind.SETTLE,
                batch_id=None,
            )
    return len(due)


def _not_committed(tenant_id: int, works: Sequence[Work], attempted: set[UUID]) -> list[Work]:
    """The works that an earlier attempt, whose commit was not answered, did not commit after all.

    Only reservations need this: the others find by what is stored that they are done.
    """
    if not attempted:
        return list(works)
    with tenant_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM reservation WHERE tenant_id = %s AND id = ANY(%s)",
            [tenant_id, list(attempted)],
        )
        committed = {row[0] for row in cursor.fetchall()}
    return [work for work in works if not (isinstance(work, Reserve) and work.id in committed)]


def _take_as_configured(tenant_id: int, works: Sequence[Work]) -> None:
    configuration = known_configuration(tenant_id)
    while works:
        try:
            _take(configuration, works)
        except ConfigurationChanged:
            configuration = read_configuration(tenant_id, known=configuration)
        else:
            return


def _take(configuration: Configuration, works: Sequence[Work]) -> None:
    tenant_id = configuration.tenant_id
    for work in works:
        work.reset()
    held = _held_of(tenant_id, works)
    able = [work for work in works if _judge(work, configuration, held)]
    book = configuration.budgets
    missing = {key for work in able for key in work.window_keys() if key not in book.window_ids}
    if missing:
        opened = book.for_transaction()
        with tenant_scope(tenant_id):
            open_windows(book=opened, keys=missing)
        book.learn(opened)
    if not able:
        return
    turn = _Turn(configuration, able, held)
    with tenant_scope(tenant_id):
        turn.run()
    for made in turn.made:
        remember_held(tenant_id, made)


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
        work.error = error
        return False
    return True


class _Turn:
    """One transaction's work, in the order of its locks."""

    def __init__(
        self, configuration: Configuration, works: Sequence[Work], held: dict[UUID, Held]
    ) -> None:
        self.configuration = configuration
        self.tenant_id = configuration.tenant_id
        self.book = configuration.budgets
        self.held = held
        self.reserves = [work for work in works if isinstance(work, Reserve)]
        self.settles = [work for work in works if isinstance(work, Settle)]
        self.releases = [work for work in works if isinstance(work, Release)]
        self.extends = [work for work in works if isinstance(work, Extend)]
        self.standings: dict[UUID, Standing] = {}
        self.halts: StandingHalts = NO_HALTS
        self.lockouts: list[StandingHalt] = []
        self.tightenings: Sequence[StandingTightening] = ()
        self.moves = HoldMoves()
        self.sums: dict[Posting, Amounts] = {}
        self.batch_id: int | None = None
        self.decisions: list[DecisionRow] = []
        self.made: list[Held] = []
        self.rows: list[ReservationRow] = []
        # Asks that went past a halt: some of them are trials of its breaker.
        self.trials: set[UUID] = set()
        # Requests with the key of another one in this turn, which is answered first.
        self.repeats: list[tuple[Reserve, Reserve]] = []
        self.now = timezone.now()

    def run(self) -> None:
        """Everything, last the windows."""
        is_due = self._read_state()
        with connection.cursor() as cursor:
            self._answer_again(cursor)
            # After the wait for locks: what has expired by now is over.
            self.standings = lock_reservations(
                self.tenant_id,
                {id_: self.held[id_] for id_ in self._named_ids()},
                is_due_wanted=is_due,
            )
            self.now = timezone.now()
            self._settle()
            self._expire()
            self._release()
            self._extend()
            asking = self._stop_halted(cursor)
            paces = lock_paces(cursor, self.tenant_id, self._pace_keys(asking))
            self._hold(cursor, asking, paces)
            self._keep_answers(cursor)

    def _named_ids(self) -> set[UUID]:
        works: list[Settle | Release | Extend] = [*self.settles, *self.releases, *self.extends]
        return {work.reservation_id for work in works}

    def _read_state(self) -> bool:
        """Take the configuration lock and see what is in force; answers whether holds are due."""
        if lock_configuration_shared(self.tenant_id) != self.configuration.version:
            raise ConfigurationChanged
        if not self.reserves and not self.extends:
            return False
        question = HaltsQuestion([self.tenant_id])
        with connection.cursor() as cursor:
            cursor.execute(HALTS_SQL, question.parameters)
            self.halts = question.take(cursor.fetchall())[self.tenant_id]
            self.tightenings = read_tightenings(cursor, self.tenant_id)
            cursor.execute(
                "SELECT EXISTS (SELECT FROM reservation WHERE tenant_id = %s"  # noqa: S608
                f" AND state = {OPEN} AND expires_at <= now())",
                [self.tenant_id],
            )
            (is_due,) = cursor.fetchone()
        return bool(is_due)

    def _answer_again(self, cursor: Any) -> None:
        """Answer requests that were answered before; the others go on."""
        keyed = [work for work in self.reserves if work.request_key is not None]
        if not keyed:
            return
        first: dict[str, Reserve] = {}
        for work in keyed:
            assert work.request_key is not None
            first.setdefault(work.request_key.key, work)
        known = claim_keys(
            cursor, self.tenant_id, [one.request_key for one in first.values() if one.request_key]
        )
        for work in keyed:
            assert work.request_key is not None
            answer = known.get(work.request_key.key)
            if isinstance(answer, KeptAnswer):
                work.answer = answer.data
            elif answer is not None:
                work.error = answer
            elif (earlier := first[work.request_key.key]) is not work:
                self.repeats.append((work, earlier))
            else:
                continue
            self.reserves.remove(work)

    def _settle(self) -> None:
        """Store the events that settle, and book what they cost."""
        settling: dict[UUID, Settle] = {}
        repeated: list[Settle] = []
        for work in self.settles:
            standing = self.standings[work.reservation_id]
            assert work.event is not None
            if standing.state == SETTLED:
                self._settle_again(work, standing)
            elif work.reservation_id in settling:
                repeated.append(work)
            else:
                settling[work.reservation_id] = work
        works = list(settling.values())
        if works:
            self._book(works)
        for work in repeated:
            first = settling[work.reservation_id]
            if first.error is not None:
                work.error = first.error
            else:
                self._settle_again(work, self.standings[work.reservation_id])

    def _settle_again(self, work: Settle, standing: Standing) -> None:
        assert work.event is not None
        if standing.fingerprint == work.event.fingerprint:
            work.answer = work.settled(standing)
        else:
            work.error = ReservationFinished(
                "It was settled before, with another event; what was booked stays."
                " To change it, post a correction.",
                code="already_settled",
            )

    def _book(self, works: Sequence[Settle]) -> None:
        jobs = [work.job for work in works if work.job is not None]
        stored = store_events(self.configuration, jobs)
        self._finish_settled(stored)
        feed_breakers(configuration=self.configuration, events=stored.fresh)
        if stored.fresh:
            self.batch_id = stored.batch_id
            self.sums = sums_by_posting(self.book, stored.fresh)
        for work in works:
            assert work.job is not None
            standing = self.standings[work.reservation_id]
            if standing.state == SETTLED:
                work.answer = work.settled(standing)
            elif work.job.errors:
                error = work.job.errors[0][1]
                work.error = IdConflict(error.detail)
            else:
                work.error = IdConflict("The event was reported before and then taken back.")

    def _finish_settled(self, stored: Stored) -> None:
        self.moves = settle_with_events(self.configuration, stored, self.standings)

    def _expire(self) -> None:
        for standing in self.standings.values():
            if standing.is_due(self.now):
                standing.finish(EXPIRED, self.now)
                self.moves.add(standing.returned())

    def _release(self) -> None:
        for work in self.releases:
            standing = self.standings[work.reservation_id]
            if standing.state == SETTLED:
                work.error = finished(standing)
                continue
            if standing.state == OPEN:
                standing.finish(RELEASED, self.now)
                self.moves.add(standing.returned())
            work.answer = work.released(standing)

    def _extend(self) -> None:
        for work in self.extends:
            standing = self.standings[work.reservation_id]
            halted = self.halts.matching(standing.held.values)
            if standing.state != OPEN:
                work.error = finished(standing)
            elif halted:
                verdict_detail = halt_detail(halted[0])
                work.error = Halted(verdict_detail, code=halted[0].code, halt=halted[0].id)
                self.decisions.append(self._refused_extension(standing, halted[0]))
            else:
                self._extend_one(work, standing)

    def _extend_one(self, work: Extend, standing: Standing) -> None:
        until = work.wanted(self.now)
        last = self._last_moment(standing.held.values, standing.held.created_at)
        if last is not None and last <= self.now:
            work.error = BudgetExceeded(
                "The call has lasted as long as a budget on single calls allows."
            )
            return
        standing.extend(until if last is None else min(until, last))
        work.answer = work.extended(standing)

    def _last_moment(self, values: tuple[str, ...], began_at: datetime) -> datetime | None:
        """When a call that began then must be over, by budgets on single calls that refuse."""
        seconds = [
            rule.limit_seconds
            for rule in self.book.request_rules
            if rule.limit_seconds is not None
            and rule.refuses
            and rule.mode == "enforce"
            and rule.group(values) is not None
        ]
        return began_at + timedelta(seconds=min(seconds)) if seconds else None

    def _refused_extension(self, standing: Standing, halt: Any) -> DecisionRow:
        return DecisionRow(
            decided_at=self.now,
            decision="refuse",
            code=halt.code,
            dimensions=dimensions_of(standing.held.values),
            reasons=[{"halt": halt.id, "kind": halt.kind, "detail": halt.reason}],
            reservation_id=standing.held.id,
            asked_nanos=0,
        )

    def _stop_halted(self, cursor: Any) -> list[Reserve]:
        """Refuse what a halt stops; answers who goes on to ask."""
        if not self.halts:
            return self.reserves
        asking = []
        for work in self.reserves:
            stopping = [
                halt
                for halt in self.halts.matching(work.ask.offer.values)
                if halt.is_certain(self.now)
                or not try_trial(cursor, self.tenant_id, halt.id, work.id, self.now)
            ]
            if stopping:
                self._refuse(work, refuse_by_halt(work.ask, stopping[0]))
            else:
                asking.append(work)
                self.trials |= {work.id}
        return asking

    def _pace_keys(self, asking: Iterable[Reserve]) -> set[PaceKey]:
        """The paces that any of the asks may go by."""
        keys: set[PaceKey] = set()
        rules = self.book.rules
        for work in asking:
            ask = work.ask
            for offer in (ask.offer, ask.cheaper):
                if offer is None:
                    continue
                for rate_rule in self.configuration.rate_limits:
                    if (key := rate_key(rate_rule, ask, offer)) is not None:
                        keys.add(key)
                for window in offer.windows:
                    keys.update(
                        throttle_key(self._window_id(window), level.percent)
                        for level in rules[window.budget_id].throttles
                    )
        return keys

    def _window_id(self, key: Any) -> int:
        try:
            return self.book.window_ids[key]
        except KeyError as error:
            # The book's memory was full and began anew; the next attempt looks the window up.
            raise ConfigurationChanged from error

    def _hold(
        self, cursor: Any, asking: Sequence[Reserve], paces: dict[PaceKey, PaceState]
    ) -> None:
        """Lock the windows, decide, and write what was decided."""
        wanted = {self._window_id(key) for work in asking for key in work.ask.window_keys()}
        ids = {*wanted, *self.moves, *(posting.window_id for posting in self.sums)}
        locked = lock_windows(book=self.book, window_ids=ids) if ids else None
        if asking:
            windows = locked.windows if locked is not None else {}
            judge = Judge(
                configuration=self.configuration,
                windows=windows,
                rooms=self._rooms(windows, wanted),
                paces=paces,
                tightenings=self.tightenings,
                now=self.now,
            )
            for work in asking:
                self._decide(cursor, judge, work)
        insert_reservations(cursor, self.tenant_id, self.rows)
        if unused := self.trials - {row.id for row in self.rows}:
            forget_trial(cursor, self.tenant_id, unused)
        write_standings(self.tenant_id, self.standings.values())
        write_paces(cursor, self.tenant_id, paces.values())
        insert_decisions(cursor, self.tenant_id, self.decisions)
        if locked is not None:
            move(
                book=self.book,
                locked=locked,
                sums=self.sums,
                holds=self.moves,
                kind=EntryKind.SETTLE,
                batch_id=self.batch_id,
            )

    def _rooms(self, windows: Any, wanted: set[int]) -> dict[int, Room]:
        """The windows as they will be once what ends in this transaction has ended."""
        rooms = {}
        for window_id in wanted:
            window = windows[window_id]
            rooms[window_id] = Room(
                spent=window.spent,
                reserved=window.reserved,
                carried_nanos=window.carried_nanos,
                first_used_at=window.first_used_at,
                raised=self.book.rules[window.budget_id].raised(window.group_key, self.now),
            )
        for posting, amounts in self.sums.items():
            if posting.window_id in rooms:
                rooms[posting.window_id].spend(amounts)
        for window_id, hold in self.moves.items():
            if window_id in rooms:
                rooms[window_id].hold(hold.reserved)
        return rooms

    def _decide(self, cursor: Any, judge: Judge, work: Reserve) -> None:
        stopping = [halt for halt in self.lockouts if halt.matches(work.ask.offer.values)]
        if stopping:
            self._refuse(work, refuse_by_halt(work.ask, stopping[0]))
            return
        verdict = judge.decide(work.ask)
        if verdict.error is not None:
            self._act(cursor, verdict)
            self._refuse(work, verdict)
            return
        assert verdict.offer is not None
        offer = verdict.offer
        expires_at = self.now + timedelta(seconds=work.ttl_seconds)
        last = self._last_moment(offer.values, self.now)
        if last is not None:
            expires_at = min(expires_at, last)
        work.verdict = verdict
        work.answer = work.granted(verdict, expires_at)
        window_ids = [self.book.window_ids[key] for key in offer.windows]
        self.moves.add({id_: HoldMove(offer.amounts) for id_ in window_ids})
        self.rows.append(
            reservation_row(work.id, verdict, window_ids, now=self.now, expires_at=expires_at)
        )
        self.made.append(self._held(work, verdict, window_ids))
        if not verdict.is_plain:
            self.decisions.append(decision_row(work.id, verdict, now=self.now))

    def _held(self, work: Reserve, verdict: Verdict, window_ids: Sequence[int]) -> Held:
        assert verdict.offer is not None
        return Held(
            id=work.id,
            values=verdict.offer.values,
            amounts=verdict.offer.amounts,
            windows=tuple(
                [
                    HeldWindow(
                        window_id,
                        key.budget_id,
                        self.book.rules[key.budget_id].revision,
                        key.group,
                        key.starts_at,
                    )
                    for window_id, key in zip(window_ids, verdict.offer.windows, strict=True)
                ]
            ),
            created_at=self.now,
            top=work.ask.top,
        )

    def _act(self, cursor: Any, verdict: Verdict) -> None:
        """What a refusal sets off: a halt by a level that locks out, or a wish for a raise."""
        lockout = verdict.lockout
        if lockout is not None:
            assert verdict.error is not None
            made = insert_lockout(cursor, self.tenant_id, lockout)
            if made is not None:
                self.lockouts.append(made)
                verdict.error = Halted(
                    halt_detail(made), code=made.code, halt=made.id, **verdict.error.facts
                )
        if verdict.wish is not None:
            ask_at_level(tenant_id=self.tenant_id, wish=verdict.wish, now=self.now)

    def _refuse(self, work: Reserve, verdict: Verdict) -> None:
        work.verdict = verdict
        work.error = verdict.error
        self.decisions.append(decision_row(work.id, verdict, now=self.now))

    def _keep_answers(self, cursor: Any) -> None:
        keyed = [work for work in self.reserves if work.request_key is not None]
        if not keyed:
            return
        keep_answers(
            cursor,
            self.tenant_id,
            {
                work.request_key.key: KeptAnswer(201, work.answer)
                for work in keyed
                if work.request_key is not None and work.answer is not None
            },
        )
        refused = [work.request_key.key for work in keyed if work.request_key and work.error]
        free_keys(cursor, self.tenant_id, refused)
        for work, earlier in self.repeats:
            work.answer, work.error = earlier.answer, earlier.error
            if work.request_key and earlier.request_key and work.request_key != earlier.request_key:
                work.answer = None
                work.error = IdempotencyConflict("This key was used for another request.")
