"""Compares what the database has at the end with what the clients were told. Pure."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

from bench.soak.books import OPEN, SETTLED, Books, EventRow, ReservationRow, Rows, WindowRow
from bench.soak.faults import WEB_SKEW_SECONDS
from bench.soak.model import Balance, Booking, book
from bench.soak.overseer import HaltSpan
from bench.soak.records import RETOLD, Event, Fate, Frame, Grant, Hold
from bench.soak.world import (
    EPOCH,
    NOTHING,
    PACED_AGENT,
    PACED_PER_MINUTE,
    ROUGH,
    Amounts,
    Budget,
    WindowKey,
)

HALTED_WITHIN_SECONDS: Final = 1.0
# Reservations carry the time of the web process that made them.
CLOCK_TOLERANCE: Final = timedelta(seconds=2 * WEB_SKEW_SECONDS + 1)


@dataclass
class Findings:
    """What deviates, by kind."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, example: object) -> None:
        """Count a deviation, and keep the first of its kind to be shown."""
        self.counts[kind] += 1
        self.examples.setdefault(kind, str(example))

    def require(self, holds: bool, kind: str, example: object) -> None:
        """Note a deviation where something does not hold."""
        if not holds:
            self.note(kind, example)


class Proof:
    """All comparisons of one run, a frame of the clients' records at a time."""

    def __init__(
        self, *, books: Books, budgets: Mapping[int, Budget], voided: Collection[str]
    ) -> None:
        self.books = books
        self.budgets = budgets
        self.findings = Findings()
        # What was booked, by tenant and agent: what the service's usage must say.
        self.usage: dict[str, dict[str, Amounts]] = {}
        self._voided = voided
        self._balances: dict[int, dict[WindowKey, Balance]] = {id_: {} for id_ in budgets}
        self._known: Counter[str] = Counter()
        self._hung_up = 0
        self._booked = 0
        self._paced: list[datetime] = []
        self._rows = Rows({}, {})
        self._bookings: dict[str, list[Booking]] = {}

    def add(self, frame: Frame, rows: Rows) -> None:
        """Compare what clients know of reservations and events, and add it to the balances."""
        self._rows, self._bookings = rows, {}
        for hold in frame.holds:
            if hold.granted is Fate.UNKNOWN:
                self._hung_up += 1
            elif row := rows.reservations.get(hold.id):
                self._known[row.status] += 1
                self._hold(hold, row)
            else:
                self.findings.note("reservations that are gone", hold)
        for tenant, event, fate in frame.events:
            stored = self._stored(event, fate, None)
            if stored is not None:
                self._book(tenant, event, stored, {}, 0)
        for budget in self.budgets.values():
            self._add_to_windows(budget)

    def close(self) -> Findings:
        """Compare windows and totals, once all frames were added."""
        self._strangers()
        for budget in self.budgets.values():
            if not budget.is_per_request:
                self._windows(budget)
        for window_id, window in self.books.windows.items():
            holds_nothing = window.reserved == NOTHING
            self.findings.require(holds_nothing, "windows that hold something", (window_id, window))
        early = paced_too_fast(self._paced)
        self.findings.require(not early, "reservations beyond a rate limit", early)
        return self.findings

    # Reservations and events.

    def _hold(self, hold: Hold, row: ReservationRow) -> None:
        require = self.findings.require
        require(row.amounts == hold.ask.amounts, "reservations of other amounts", (hold, row))
        require(row.state != OPEN, "reservations still open", (hold, row))
        if hold.tenant == ROUGH and hold.ask.values.get("agent") == PACED_AGENT:
            self._paced.append(row.created_at)
        self._held_windows(hold, row)
        stored = [
            (event, event_row)
            for event, fate in hold.settles
            if (event_row := self._stored(event, fate, hold.id)) is not None
        ]
        settling = [event for event, event_row in stored if event_row.id == row.event_id]
        unsettled = "released" if hold.released is Fate.DONE else "expired"
        wanted = "settled" if stored else unsettled
        require(row.status == wanted, f"reservations not {wanted}", (hold, row))
        require(len(settling) == (row.state == SETTLED), "settled by nothing known", (hold, row))
        for event in settling:
            booked = row.cost_nanos, row.used_tokens
            require(booked == (event.nanos, sum(event.tokens)), "settled otherwise", (hold, row))
            is_told = hold.late in (None, row.is_late)
            require(is_told, "late and told not to be, or not", (hold, row))
        held = self.books.held_keys(row)
        for event, event_row in stored:
            free_nanos = hold.ask.amounts.nanos if event in settling and not row.is_late else 0
            overrun_nanos = max(0, event.nanos - free_nanos)
            self._book(hold.tenant, event, event_row, held, overrun_nanos)

    def _held_windows(self, hold: Hold, row: ReservationRow) -> None:
        """Check that it held a window of every budget that counts it, of its own period."""
        held = {
            window.budget_id: window.key
            for window in (self.books.windows[window_id] for window_id in row.window_ids)
        }
        # A web process with another clock finds the period by that clock, before it waits for its
        # turn.
        skew = timedelta(seconds=WEB_SKEW_SECONDS)
        begun, ended = hold.asked_at, hold.answered_at
        times = (begun - skew, begun, row.created_at, ended, ended + skew)
        for budget in self.budgets.values():
            if budget.tenant != hold.tenant or budget.is_per_request:
                continue
            keys = {budget.window_key(hold.ask.values, at) for at in times}
            key = held.pop(budget.id, None)
            if budget.is_revised and key is not None:
                # Its periods were others then.
                keys = {key._replace(group=other.group) for other in keys if other is not None}
            self.findings.require(key in keys, "held in another window", (hold, row, key))
        self.findings.require(not held, "held in windows of no concern", (hold, row))

    def _stored(self, event: Event, fate: Fate, reservation: str | None) -> EventRow | None:
        """Return the event's row; judged by what its client was told."""
        events = self._rows.events
        # A call goes by the id of one of its reports.
        stored = events.get(event.sent_id) or events.get(event.sent_id + RETOLD)
        if event.sent_id in self._voided:
            self.findings.require(stored is None, "voided events that still count", event)
            return None
        if fate is Fate.DONE:
            self.findings.require(stored is not None, "acknowledged events that are gone", event)
        if fate is Fate.REFUSED:
            self.findings.require(stored is None, "refused events that are stored", event)
        if stored is not None:
            named = tuple(event.values.get(name, "") for name in ("team", "customer", "agent"))
            is_same = (stored.at, stored.amounts, stored.named) == (event.at, event.amounts, named)
            self.findings.require(is_same, "events stored otherwise", (event, stored))
            self.findings.require(
                stored.reservation == reservation, "events of another reservation", (event, stored)
            )
        return stored

    def _book(
        self,
        tenant: str,
        event: Event,
        stored: EventRow,
        held: Mapping[int, WindowKey],
        overrun_nanos: int,
    ) -> None:
        unheld_nanos = 0 if stored.reservation is None else event.nanos
        booking = Booking(
            event.values, stored.at, stored.amounts, held, overrun_nanos, unheld_nanos
        )
        self._bookings.setdefault(tenant, []).append(booking)
        self._booked += 1
        agents = self.usage.setdefault(tenant, {})
        agent = event.values.get("agent", "")
        agents[agent] = agents.get(agent, NOTHING).plus(stored.amounts)

    def _strangers(self) -> None:
        """Check what no one was told of: only reservations whose client hung up, none settled."""
        require, books = self.findings.require, self.books
        strangers = books.reservations - self._known
        told = strangers.total() <= self._hung_up
        require(told, "reservations that no client requested", strangers)
        require(set(strangers) <= {"expired"}, "reservations not expired", strangers)
        events = self._booked, books.events
        require(self._booked == books.events, "events that no client sent", events)
        require(books.repeated == 0, "events stored twice", books.repeated)

    # Windows.

    def _add_to_windows(self, budget: Budget) -> None:
        row = self.books.budgets[budget.id]
        counted_from = self._counted_from[budget.id]
        book(
            self._balances[budget.id],
            budget,
            self._bookings.get(budget.tenant, []),
            counts_from=row.counts_from,
            counted_from=lambda group: counted_from.get(group, EPOCH),
        )

    @cached_property
    def _present(self) -> dict[int, dict[WindowKey, WindowRow]]:
        """Return, by budget, the windows of its present revision."""
        present: dict[int, dict[WindowKey, WindowRow]] = {id_: {} for id_ in self.budgets}
        for window in self.books.windows.values():
            if window.revision == self.books.budgets[window.budget_id].revision:
                present[window.budget_id][window.key] = window
        return present

    @cached_property
    def _counted_from(self) -> dict[int, dict[tuple[str, ...], datetime]]:
        """Return from when each group of a budget still counts."""
        return {
            id_: {key.group: window.counted_from or EPOCH for key, window in windows.items()}
            for id_, windows in self._present.items()
        }

    def _windows(self, budget: Budget) -> None:
        actual, expected = self._present[budget.id], self._balances[budget.id]
        for key in expected.keys() | actual.keys():
            wanted = expected.get(key, Balance())
            balance = _balance(actual.get(key))
            example = (budget.name, key, wanted, balance)
            self.findings.require(balance.spent == wanted.spent, "windows that drift", example)
            # What was settled before a revision is no overrun of its windows.
            least = wanted.held_overrun_nanos if budget.is_revised else wanted.overrun_nanos
            is_told = least <= balance.overrun_nanos <= wanted.overrun_nanos
            self.findings.require(is_told, "windows of another overrun", example)


def _balance(window: WindowRow | None) -> Balance:
    if window is None:
        return Balance()
    return Balance(window.spent, window.overrun_nanos, window.overrun_nanos)


def grants_while_halted(grants: Sequence[Grant], halts: Sequence[HaltSpan]) -> Iterator[Grant]:
    """Yield what a halted agent was given although its halt had been in force for long enough."""
    by_agent: dict[str, list[Grant]] = {}
    for grant in sorted(grants, key=lambda grant: grant.began):
        by_agent.setdefault(grant.agent, []).append(grant)
    for halt in halts:
        given = by_agent.get(halt.agent, [])
        first = bisect_left(
            given, halt.since + HALTED_WITHIN_SECONDS, key=lambda grant: grant.began
        )
        for grant in given[first:]:
            if grant.began > halt.until:
                break
            if grant.ended < halt.until:
                yield grant


def paced_too_fast(times: Sequence[datetime]) -> int:
    """Return how often an agent was given more within a minute than its rate limit lets through."""
    ordered = sorted(times)
    minute = timedelta(minutes=1) - CLOCK_TOLERANCE
    later = ordered[PACED_PER_MINUTE:]
    return sum(after - before < minute for before, after in zip(ordered, later, strict=False))


def revised_as_told(
    budget: Budget, counts_from: datetime, between: tuple[datetime, datetime]
) -> bool:
    """Whether a revision counts from the begin of the period that it was made in."""
    skew = timedelta(seconds=WEB_SKEW_SECONDS)
    moments = (moment + shift for moment in between for shift in (-skew, timedelta(), skew))
    return counts_from in {budget.counted_from(moment) for moment in moments}
