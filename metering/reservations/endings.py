"""How reservations end within a turn: settled, expired, released; and those that go on for longer.

Works on rows that the turn has locked. What ends gives back what it held before anybody asks.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from common.errors import BudgetExceeded, Conflict, ReservationFinished
from metering.budgets.index import BudgetBook
from metering.calls.settlement import Stored, settle_with_events
from metering.core.amounts import Amounts
from metering.core.match import Values
from metering.ledger.holds import (
    EXPIRED,
    OPEN,
    RELEASED,
    SETTLED,
    HoldMoves,
    Standing,
    dimensions_of,
)
from metering.ledger.posting import Posting
from metering.limits.decisions import DecisionRow
from metering.limits.halts import StandingHalt, StandingHalts
from metering.reservations.judge import halted_by
from metering.reservations.works import Extend, Release, Settle, Work, finished
from metering.snapshot import Configuration


class IdConflict(Conflict):
    """The event's id belongs to another event, which stays as it is."""

    code = "id_conflict"


class Endings:
    """What the works of a turn end, and what that moves."""

    def __init__(
        self,
        configuration: Configuration,
        works: Sequence[Work],
        standings: Mapping[UUID, Standing],
    ) -> None:
        self.configuration = configuration
        self.book = configuration.budgets
        self.standings = standings
        self.settles = [work for work in works if isinstance(work, Settle)]
        self.releases = [work for work in works if isinstance(work, Release)]
        self.extends = [work for work in works if isinstance(work, Extend)]
        self.moves = HoldMoves()
        self.sums: dict[Posting, Amounts] = {}
        self.decisions: list[DecisionRow] = []
        # The first settle of each reservation, whose event is to be stored; and those after it.
        self._settling: dict[UUID, Settle] = {}
        self._repeated: list[Settle] = []
        self._sort_settles()

    @property
    def booking(self) -> list[Settle]:
        """The settles whose events are to be stored."""
        return list(self._settling.values())

    def window_ids(self) -> set[int]:
        """Every window that may move."""
        ids = {
            window.window_id
            for standing in self.standings.values()
            for window in standing.held.windows
        }
        for work in self.booking:
            assert work.event is not None
            ids.update(self.book.window_ids[key] for key in work.event.windows)
        # Once the events are stored: also where calls that were known counted before.
        ids.update(posting.window_id for posting in self.sums)
        return ids

    def _sort_settles(self) -> None:
        for work in self.settles:
            standing = self.standings[work.reservation_id]
            if standing.state == SETTLED and standing.fingerprint is not None:
                _settle_again(work, standing)
            elif work.reservation_id in self._settling:
                self._repeated.append(work)
            else:
                self._settling[work.reservation_id] = work

    def book_settled(self, stored: Stored) -> None:
        """Settle with the events that were stored."""
        fresh = {id(event) for event in stored.fresh}
        for work in self.booking:
            assert work.event is not None, "a settle that books has an event"
            assert work.job is not None, "a settle that books has a job"
            if id(work.event) in fresh and not work.job.counts:
                work.job.accept(work.event)
        events = [work.event for work in self.booking if work.event is not None]
        self.moves.add(settle_with_events(self.configuration, stored, self.standings, events))
        self.sums = stored.sums(self.book)
        for work in self.booking:
            _answer_settle(work, self.standings[work.reservation_id])
        for work in self._repeated:
            first = self._settling[work.reservation_id]
            if first.error is not None:
                work.error = first.error
            else:
                _settle_again(work, self.standings[work.reservation_id])

    def end(self, *, halts: StandingHalts, now: datetime) -> None:
        """Expire what is due, release and extend."""
        for standing in self.standings.values():
            if standing.is_due:
                standing.finish(EXPIRED, now)
                self.moves.add(standing.returned())
        for work in self.releases:
            self._release(work, self.standings[work.reservation_id], now)
        for extend in self.extends:
            self._extend(extend, self.standings[extend.reservation_id], halts, now)

    def _release(self, work: Release, standing: Standing, now: datetime) -> None:
        if standing.state == SETTLED:
            work.error = finished(standing)
            return
        if standing.state == OPEN:
            standing.finish(RELEASED, now)
            self.moves.add(standing.returned())
        work.answer = work.released(standing)

    def _extend(
        self, work: Extend, standing: Standing, halts: StandingHalts, now: datetime
    ) -> None:
        if standing.state != OPEN:
            work.error = finished(standing)
            return
        if halted := halts.matching(standing.held.values):
            halt = halted[0]
            work.error = halted_by(halt, now=now)
            self.decisions.append(_refused_extension(standing, halt, now))
            return
        last = last_moment(self.book, standing.held.values, standing.held.created_at)
        if last is not None and last <= now:
            detail = "The call has lasted as long as a budget on single calls allows."
            work.error = BudgetExceeded(detail)
            return
        until = now + timedelta(seconds=work.ttl_seconds)
        standing.extend(until if last is None else min(until, last))
        work.answer = work.extended(standing)


def last_moment(book: BudgetBook, values: Values, began_at: datetime) -> datetime | None:
    """When a call that began then must be over, by budgets on single calls that refuse."""
    seconds = [
        rule.limit_seconds
        for rule in book.request_rules
        if rule.limit_seconds is not None
        and rule.refuses
        and rule.mode == "enforce"
        and rule.group(values) is not None
    ]
    return began_at + timedelta(seconds=min(seconds)) if seconds else None


def _settle_again(work: Settle, standing: Standing) -> None:
    assert work.event is not None
    if standing.fingerprint == work.event.fingerprint:
        work.answer = work.settled(standing)
        return
    work.error = ReservationFinished(
        "It was settled before, with another event; what was booked stays."
        " To change it, post a correction.",
        code="already_settled",
    )


def _answer_settle(work: Settle, standing: Standing) -> None:
    assert work.job is not None
    if standing.state == SETTLED:
        work.answer = work.settled(standing)
    elif work.job.errors:
        work.error = IdConflict(work.job.errors[0][1].detail)
    else:
        work.error = IdConflict("The event was reported before, and then taken back.")


def _refused_extension(standing: Standing, halt: StandingHalt, now: datetime) -> DecisionRow:
    return DecisionRow(
        decided_at=now,
        decision="refuse",
        code=halt.code,
        dimensions=dimensions_of(standing.held.values),
        reasons=[{"halt": halt.id, "kind": halt.kind, "detail": halt.reason}],
        reservation_id=standing.held.id,
        asked_nanos=0,
    )
