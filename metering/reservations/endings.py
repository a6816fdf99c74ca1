"""How reservations end within a turn: settled, expired, released; and those that go on for longer.

Works on rows that the turn has locked. What ends gives back what it held before anybody asks.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from common.errors import BudgetExceeded, Conflict, ReservationFinished
from metering.budgets.index import BudgetBook
from metering.calls.settlement import Stored, settle_with_events
from metering.calls.storage import sums_of_stored
from metering.core.amounts import Amounts
from metering.core.match import Values
from metering.ledger.holds import (
    EXPIRED,
    OPEN,
    RELEASED,
    SETTLED,
    HoldMoves,
    LockedReservation,
    dimensions_of,
)
from metering.ledger.posting import Posting
from metering.limits.decisions import DecisionRow
from metering.limits.halts import ActiveHalt, ActiveHalts
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
        reservations: Mapping[UUID, LockedReservation],
    ) -> None:
        self.configuration = configuration
        self.book = configuration.budgets
        self.reservations = reservations
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
            for reservation in self.reservations.values()
            for window in reservation.held.windows
        }
        for work in self.booking:
            assert work.event is not None
            ids.update(self.book.window_ids[key] for key in work.event.windows)
        # Once the events are stored: also where calls that were known counted before.
        ids.update(posting.window_id for posting in self.sums)
        return ids

    def _sort_settles(self) -> None:
        for work in self.settles:
            reservation = self.reservations[work.reservation_id]
            if reservation.state == SETTLED and reservation.fingerprint is not None:
                _settle_again(work, reservation)
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
            if id(work.event) in fresh and not work.job.accepted:
                work.job.accept(work.event)
        events = [work.event for work in self.booking if work.event is not None]
        self.moves.add(settle_with_events(self.configuration, stored, self.reservations, events))
        self.sums = sums_of_stored(self.book, stored)
        for work in self.booking:
            _answer_settle(work, self.reservations[work.reservation_id])
        for work in self._repeated:
            first = self._settling[work.reservation_id]
            if first.error is not None:
                work.error = first.error
            else:
                _settle_again(work, self.reservations[work.reservation_id])

    def end(self, *, halts: ActiveHalts, now: datetime) -> None:
        """Expire what is due, release and extend."""
        for reservation in self.reservations.values():
            if reservation.is_due:
                reservation.finish(EXPIRED, now)
                self.moves.add(reservation.returned())
        for work in self.releases:
            self._release(work, self.reservations[work.reservation_id], now)
        for extend in self.extends:
            self._extend(extend, self.reservations[extend.reservation_id], halts, now)

    def _release(self, work: Release, reservation: LockedReservation, now: datetime) -> None:
        if reservation.state == SETTLED:
            work.error = finished(reservation)
            return
        if reservation.state == OPEN:
            reservation.finish(RELEASED, now)
            self.moves.add(reservation.returned())
        work.answer = work.released(reservation)

    def _extend(
        self, work: Extend, reservation: LockedReservation, halts: ActiveHalts, now: datetime
    ) -> None:
        if reservation.state != OPEN:
            work.error = finished(reservation)
            return
        if halted := halts.matching(reservation.held.values):
            halt = halted[0]
            work.error = halted_by(halt, now=now)
            self.decisions.append(_refused_extension(reservation, halt, now))
            return
        last = last_moment(self.book, reservation.held.values, reservation.held.created_at)
        if last is not None and last <= now:
            detail = "The call has lasted as long as a budget on single calls allows."
            work.error = BudgetExceeded(detail)
            return
        until = now + timedelta(seconds=work.ttl_seconds)
        reservation.extend(until if last is None else min(until, last))
        work.answer = work.extended(reservation)


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


def _settle_again(work: Settle, reservation: LockedReservation) -> None:
    assert work.event is not None
    if reservation.fingerprint == work.event.fingerprint:
        work.answer = work.settled(reservation)
        return
    work.error = ReservationFinished(
        "It was settled before, with another event; what was booked stays."
        " To change it, post a correction.",
        code="already_settled",
    )


def _answer_settle(work: Settle, reservation: LockedReservation) -> None:
    assert work.job is not None
    if reservation.state == SETTLED:
        work.answer = work.settled(reservation)
    elif work.job.errors:
        work.error = IdConflict(work.job.errors[0][1].detail)
    else:
        work.error = IdConflict("The event was reported before, and then taken back.")


def _refused_extension(
    reservation: LockedReservation, halt: ActiveHalt, now: datetime
) -> DecisionRow:
    return DecisionRow(
        decided_at=now,
        decision="refuse",
        code=halt.code,
        dimensions=dimensions_of(reservation.held.values),
        reasons=[{"halt": halt.id, "kind": halt.kind, "detail": halt.reason}],
        reservation_id=reservation.held.id,
        asked_nanos=0,
    )
