"""Compares what the database has at the end with what the clients were told. Pure."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from bench.soak.books import OPEN, SETTLED, Books, EventRow, ReservationRow, WindowRow
from bench.soak.model import Balance, Booking, expected_balances
from bench.soak.overseer import HaltSpan
from bench.soak.records import RETOLD, Event, Fate, Grant, Hold, Memory
from bench.soak.world import (
    EPOCH,
    NOTHING,
    PACED_AGENT,
    PACED_PER_MINUTE,
    ROUGH,
    Budget,
    Place,
    usd,
)

HALTED_WITHIN_SECONDS: Final = 1.0
CLOCK_TOLERANCE: Final = timedelta(seconds=1)


@dataclass
class Findings:
    """What deviates, by kind."""

    found: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, example: object) -> None:
        """Count a deviation, and keep the first of its kind to be shown."""
        self.found[kind] += 1
        self.examples.setdefault(kind, str(example))

    def require(self, holds: bool, kind: str, example: object) -> None:
        """Note a deviation where something does not hold."""
        if not holds:
            self.note(kind, example)


class Proof:
    """All comparisons of one run."""

    def __init__(self, *, books: Books, memory: Memory, budgets: Mapping[int, Budget]) -> None:
        self.books = books
        self.memory = memory
        self.budgets = budgets
        self.findings = Findings()
        self.bookings: dict[str, list[Booking]] = {}
        self.settled = 0

    def compare(self) -> Findings:
        """Compare everything that is stored."""
        self._holds()
        self._events()
        self._strangers()
        for budget in self.budgets.values():
            if not budget.is_per_request:
                self._windows(budget)
        self._nothing_held()
        return self.findings

    # Reservations and events.

    def _holds(self) -> None:
        for hold in self.memory.holds:
            if hold.granted is Fate.UNKNOWN:
                continue
            row = self.books.reservations.get(hold.id)
            if row is None:
                self.findings.note("reservations that are gone", hold)
                continue
            self._hold(hold, row)

    def _hold(self, hold: Hold, row: ReservationRow) -> None:
        require = self.findings.require
        require(row.amounts == hold.amounts, "reservations of other amounts", (hold, row))
        require(row.state != OPEN, "reservations still open", (hold, row))
        self._held_windows(hold, row)
        stored = [
            (event, found)
            for event, fate in hold.settles
            if (found := self._stored(event, fate, hold.id)) is not None
        ]
        settling = [event for event, found in stored if found.id == row.event_id]
        wanted = self._wanted_state(hold, has_settled=bool(stored))
        require(row.status in wanted, f"reservations not {' or '.join(wanted)}", (hold, row))
        require(len(settling) == (row.state == SETTLED), "settled by nothing known", (hold, row))
        for event in settling:
            self.settled += 1
            booked = row.cost_nanos, row.used_tokens
            require(booked == (event.nanos, sum(event.tokens)), "settled otherwise", (hold, row))
            is_told = hold.late in (None, row.is_late)
            require(is_told, "late and told not to be, or not", (hold, row))
        held = self.books.held_places(row)
        for event, found in stored:
            free_nanos = hold.amounts.nanos if event in settling and not row.is_late else 0
            overrun_nanos = max(0, event.nanos - free_nanos)
            self._book(hold.tenant, event, found, held, overrun_nanos)

    def _wanted_state(self, hold: Hold, *, has_settled: bool) -> Sequence[str]:
        """What may have become of a reservation, by what its client was told."""
        if has_settled:
            return ("settled",)
        if hold.released is Fate.DONE:
            return ("released",)
        return ("expired",)

    def _held_windows(self, hold: Hold, row: ReservationRow) -> None:
        """It held a window of every budget that counts it, of the period it was made in."""
        found = {
            window.budget_id: window.place
            for window in (self.books.windows[window_id] for window_id in row.window_ids)
        }
        times = (hold.asked_at, row.created_at, hold.answered_at)
        for budget in self.budgets.values():
            if budget.tenant != hold.tenant or budget.is_per_request:
                continue
            places = {budget.place(hold.values, at) for at in times}
            place = found.pop(budget.id, None)
            if budget.is_revised and place is not None:
                # Its periods were others then.
                places = {place._replace(group=one.group) for one in places if one is not None}
            self.findings.require(place in places, "held in another window", (hold, row, place))
        self.findings.require(not found, "held in windows of no concern", (hold, row))

    def _stored(self, event: Event, fate: Fate, reservation: str | None) -> EventRow | None:
        """The event's row; judged by what its client was told."""
        events = self.books.events
        # A call goes by the id of one of its reports.
        found = events.get(event.sent_id) or events.get(event.sent_id + RETOLD)
        if event.sent_id in self.memory.voided:
            self.findings.require(found is None, "voided events that still count", event)
            return None
        if fate is Fate.DONE:
            self.findings.require(found is not None, "acknowledged events that are gone", event)
        if fate is Fate.REFUSED:
            self.findings.require(found is None, "refused events that are stored", event)
        if found is not None:
            is_same = (found.at, found.amounts) == (event.at, event.amounts)
            self.findings.require(is_same, "events stored otherwise", (event, found))
            self.findings.require(
                found.reservation == reservation, "events of another reservation", (event, found)
            )
        return found

    def _events(self) -> None:
        for tenant, event, fate in self.memory.events:
            found = self._stored(event, fate, None)
            if found is not None:
                self._book(tenant, event, found, {}, 0)

    def _book(
        self,
        tenant: str,
        event: Event,
        found: EventRow,
        held: Mapping[int, Place],
        overrun_nanos: int,
    ) -> None:
        unheld_nanos = 0 if found.reservation is None else event.nanos
        booking = Booking(event.values, found.at, found.amounts, held, overrun_nanos, unheld_nanos)
        self.bookings.setdefault(tenant, []).append(booking)

    def _strangers(self) -> None:
        """What nobody was told of: only reservations whose client hung up, and none settled."""
        known = {hold.id for hold in self.memory.holds}
        strangers = [row for id_, row in self.books.reservations.items() if id_ not in known]
        hung_up = sum(hold.granted is Fate.UNKNOWN for hold in self.memory.holds)
        require = self.findings.require
        require(len(strangers) <= hung_up, "reservations that nobody asked for", len(strangers))
        for row in strangers:
            require(row.status == "expired", "reservations not expired", row)
        booked = sum(len(bookings) for bookings in self.bookings.values())
        require(booked == len(self.books.events), "events that nobody sent", len(self.books.events))
        require(self.books.repeated == 0, "events stored twice", self.books.repeated)

    # Windows.

    def _windows(self, budget: Budget) -> None:
        row = self.books.budgets[budget.id]
        found = {
            window.place: window
            for window in self.books.windows.values()
            if window.budget_id == budget.id and window.revision == row.revision
        }
        counted_from = {
            place.group: window.counted_from or EPOCH for place, window in found.items()
        }
        expected = expected_balances(
            budget,
            self.bookings.get(budget.tenant, []),
            counts_from=row.counts_from,
            counted_from=lambda group: counted_from.get(group, EPOCH),
        )
        for place in expected.keys() | found.keys():
            wanted = expected.get(place, Balance())
            have = _balance(found.get(place))
            example = (budget.name, place, wanted, have)
            self.findings.require(have.spent == wanted.spent, "windows that drift", example)
            # What was settled before a revision is no overrun of its windows.
            least = wanted.held_overrun_nanos if budget.is_revised else wanted.overrun_nanos
            is_told = least <= have.overrun_nanos <= wanted.overrun_nanos
            self.findings.require(is_told, "windows of another overrun", example)

    def _nothing_held(self) -> None:
        for window_id, window in self.books.windows.items():
            self.findings.require(
                window.reserved == NOTHING, "windows that hold something", (window_id, window)
            )

    def spent_usd(self) -> str:
        """What was booked in all, in dollars."""
        everything = (one for bookings in self.bookings.values() for one in bookings)
        return usd(sum(booking.amounts.nanos for booking in everything))


def _balance(window: WindowRow | None) -> Balance:
    if window is None:
        return Balance()
    return Balance(window.spent, window.overrun_nanos, window.overrun_nanos)


def grants_while_halted(grants: Sequence[Grant], halts: Sequence[HaltSpan]) -> Iterator[Grant]:
    """What a halted agent was given although its halt had been in force for long enough."""
    by_agent: dict[str, list[Grant]] = {}
    for grant in sorted(grants, key=lambda one: one.began):
        by_agent.setdefault(grant.agent, []).append(grant)
    for halt in halts:
        given = by_agent.get(halt.agent, [])
        first = bisect_left(given, halt.since + HALTED_WITHIN_SECONDS, key=lambda one: one.began)
        for grant in given[first:]:
            if grant.began > halt.until:
                break
            if grant.ended < halt.until:
                yield grant


def paced_too_fast(memory: Memory, books: Books) -> int:
    """How often the paced agent was given more within a minute than its rate limit lets through."""
    times = sorted(
        books.reservations[hold.id].created_at
        for hold in memory.holds
        if hold.id in books.reservations and _is_paced(hold)
    )
    minute = timedelta(minutes=1) - CLOCK_TOLERANCE
    later = times[PACED_PER_MINUTE:]
    return sum(after - before < minute for before, after in zip(times, later, strict=False))


def _is_paced(hold: Hold) -> bool:
    return hold.tenant == ROUGH and hold.values.get("agent") == PACED_AGENT


def revised_as_told(
    budget: Budget, counts_from: datetime, between: tuple[datetime, datetime]
) -> bool:
    """Whether a revision counts from the begin of the period that it was made in."""
    return counts_from in {budget.counted_from(moment) for moment in between}


__all__ = ["Findings", "Proof", "grants_while_halted", "paced_too_fast", "revised_as_told"]
