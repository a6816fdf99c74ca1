"""How reservations of a batch end: settled, expired, released; and those that are extended.

Works on rows that the transaction has locked. What ends gives back what it held before any request
is admitted.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from uuid import UUID

from common.errors import BudgetExceeded, Conflict, ReservationFinished
from metering.budgets.index import BudgetIndex
from metering.calls.settlement import Stored, settle_with_events
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
from metering.limits.halts import ActiveHalts
from metering.reservations.commands import Command, Extend, Release, Settle
from metering.reservations.verdicts import halted_by
from metering.snapshot import Configuration


class IdConflict(Conflict):
    """The event's id belongs to another event, which stays as it is."""

    code = "id_conflict"


class Settlement:
    """What the commands of a batch end, and what that moves."""

    def __init__(
        self,
        configuration: Configuration,
        commands: Sequence[Command],
        reservations: Mapping[UUID, LockedReservation],
    ) -> None:
        self.configuration = configuration
        self.book = configuration.budgets
        self.reservations = reservations
        self.commands = commands
        self.moves = HoldMoves()
        self.sums: dict[Posting, Amounts] = {}
        self.decisions: list[DecisionRow] = []
        # The first settle of each reservation, whose event is to be stored; and those after it.
        self._first: dict[UUID, Settle] = {}
        self._repeated: list[Settle] = []
        for command in commands:
            if not isinstance(command, Settle):
                continue
            reservation = reservations[command.reservation_id]
            if reservation.state == SETTLED and reservation.fingerprint is not None:
                _settle_again(command, reservation)
            elif command.reservation_id in self._first:
                self._repeated.append(command)
            else:
                self._first[command.reservation_id] = command

    @property
    def booking(self) -> list[Settle]:
        """The settles whose events are to be stored."""
        return list(self._first.values())

    def window_ids(self) -> set[int]:
        """Return every window that may move."""
        sets = {reservation.held.windows.ids for reservation in self.reservations.values()}
        sets |= {self.book.ids_of(command.event.windows) for command in self.booking}
        ids = set(chain.from_iterable(sets))
        # Once the events are stored: also where calls that were known counted before.
        ids.update(posting.window_id for posting in self.sums)
        return ids

    def book_settled(self, stored: Stored) -> None:
        """Settle with the events that were stored."""
        fresh = {id(event) for event in stored.fresh}
        for command in self.booking:
            job = command.job
            assert job is not None, "a settle that is prepared has a job"
            if id(command.event) in fresh and not job.counts:
                job.accept(command.event)
        events = [command.event for command in self.booking]
        self.moves.add_all(
            settle_with_events(self.configuration, stored, self.reservations, events)
        )
        self.sums = stored.sums(self.book)
        for command in self.booking:
            _answer_settle(command, self.reservations[command.reservation_id])
        for command in self._repeated:
            first = self._first[command.reservation_id]
            if first.error is not None:
                command.error = first.error
            else:
                _settle_again(command, self.reservations[command.reservation_id])

    def end(self, *, halts: ActiveHalts, now: datetime) -> None:
        """Expire what is due, then release and extend."""
        for reservation in self.reservations.values():
            if reservation.is_due:
                self._finish(reservation, EXPIRED, now)
        for command in self.commands:
            if isinstance(command, Release):
                self._release(command, self.reservations[command.reservation_id], now)
        for command in self.commands:
            if isinstance(command, Extend):
                self._extend(command, self.reservations[command.reservation_id], halts, now)

    def _finish(self, reservation: LockedReservation, state: int, now: datetime) -> None:
        reservation.finish(state, now)
        reservation.give_back(self.moves)

    def _release(self, command: Release, reservation: LockedReservation, now: datetime) -> None:
        if reservation.state == SETTLED:
            command.refuse_finished(reservation)
            return
        if reservation.state == OPEN:
            self._finish(reservation, RELEASED, now)
        command.confirm(reservation)

    def _extend(
        self, command: Extend, reservation: LockedReservation, halts: ActiveHalts, now: datetime
    ) -> None:
        if reservation.state != OPEN:
            command.refuse_finished(reservation)
            return
        held = reservation.held
        if halted := halts.matching(held.values):
            halt = halted[0]
            command.error = halted_by(halt, now=now)
            self.decisions.append(
                DecisionRow(
                    decided_at=now,
                    decision="refuse",
                    code=halt.code,
                    dimensions=dimensions_of(held.values),
                    reasons=[{"halt": halt.id, "kind": halt.kind, "detail": halt.reason}],
                    reservation_id=held.id,
                    asked_nanos=0,
                )
            )
            return
        latest = latest_end(self.book, held.values, held.created_at)
        if latest is not None and latest <= now:
            detail = "The call has lasted as long as a budget on single calls allows."
            command.error = BudgetExceeded(detail)
            return
        until = now + timedelta(seconds=command.ttl_seconds)
        reservation.extend(until if latest is None else min(until, latest))
        command.confirm(reservation)


def latest_end(book: BudgetIndex, values: Values, began_at: datetime) -> datetime | None:
    """Return when a call that began then must be over, by budgets on single calls that refuse."""
    seconds = [
        rule.limit_seconds
        for rule in book.request_rules
        if rule.limit_seconds is not None
        and rule.refuses
        and rule.mode == "enforce"
        and rule.group(values) is not None
    ]
    return began_at + timedelta(seconds=min(seconds)) if seconds else None


def _settle_again(command: Settle, reservation: LockedReservation) -> None:
    if reservation.fingerprint == command.event.fingerprint:
        command.confirm(reservation)
        return
    command.error = ReservationFinished(
        "It was settled before, with another event; what was booked stays."
        " To change it, post a correction.",
        code="already_settled",
    )


def _answer_settle(command: Settle, reservation: LockedReservation) -> None:
    assert command.job is not None, "a settle that is prepared has a job"
    if reservation.state == SETTLED:
        command.confirm(reservation)
    elif command.job.errors:
        command.error = IdConflict(command.job.errors[0][1].detail)
    else:
        command.error = IdConflict("The event was reported before, and then taken back.")
