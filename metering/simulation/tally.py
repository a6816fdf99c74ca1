"""What a replay counts: calls, refusals, what was saved; as a whole, by day and by group."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest
from operator import itemgetter
from typing import Final, Generic, TypeVar

from common.money import usd_from_nanos
from metering.core.match import Values
from metering.core.periods import EPOCH, PeriodClock
from metering.simulation.calls import Call
from metering.simulation.outcome import (
    DayOutcome,
    GroupOutcome,
    LevelOutcome,
    OpeningAnswer,
    RefusedAnswer,
    SimulationOutcome,
)

# What a group is known by: a budget's values, or the key of a breaker's row.
Name = TypeVar("Name", Values, str)

GROUPS_SHOWN: Final = 50
OPENINGS_SHOWN: Final = 50


@dataclass(slots=True, eq=False)
class GroupTally(Generic[Name]):
    """One group of the proposal."""

    name: Name
    calls: int = 0
    refused: int = 0
    saved_nanos: int = 0
    first_refused_at: datetime | None = None
    lockout_at: datetime | None = None

    @property
    def is_touched(self) -> bool:
        """Whether anything would have been other than it was."""
        return bool(self.refused or self.saved_nanos or self.lockout_at)


@dataclass(slots=True, eq=False)
class DayTally:
    """One day in the proposal's time zone."""

    cost_nanos: int = 0
    saved_nanos: int = 0
    refused: int = 0


class Tally(Generic[Name]):
    """The counts of one replay. Invariant: what it would have cost is what it did less `saved`."""

    def __init__(self, *, timezone: str) -> None:
        self._clock = PeriodClock(period="day", timezone=timezone)
        self._days: dict[datetime, DayTally] = {}
        # Of the last call: calls come in order of time.
        self._day = DayTally()
        self._day_ends_at = EPOCH
        self._groups: dict[Name, GroupTally[Name]] = {}
        self.calls = 0
        self.cost_nanos = 0
        self.unpriced = 0
        self.refused_calls = 0
        self.refused_nanos = 0
        self.refused_tokens = 0
        self.saved_nanos = 0
        self.throttled = 0
        self.downgraded = 0
        self.downgraded_in_vain = 0
        self.first_refusal_at: datetime | None = None
        self.opened = 0
        self.openings: list[tuple[datetime, Name, str]] = []

    def group(self, name: Name) -> GroupTally[Name]:
        """Return the counts of a group."""
        return self._groups.get(name) or self._groups.setdefault(name, GroupTally(name))

    def count(self, group: GroupTally[Name], call: Call) -> DayTally:
        """Count a call as it was; answers its day."""
        cost_nanos = call.amounts.cost_nanos
        self.calls += 1
        self.cost_nanos += cost_nanos
        self.unpriced += call.is_unpriced
        group.calls += 1
        if call.at >= self._day_ends_at:
            span = self._clock.span(call.at)
            assert span.ends_at is not None, "a day ends"
            self._day_ends_at = span.ends_at
            self._day = self._days[span.starts_at] = DayTally()
        self._day.cost_nanos += cost_nanos
        return self._day

    def refuse(self, group: GroupTally[Name], day: DayTally, call: Call) -> None:
        """Count a call that would not have been made."""
        self.refused_calls += 1
        self.refused_nanos += call.amounts.cost_nanos
        self.refused_tokens += call.amounts.tokens
        group.refused += 1
        day.refused += 1
        if self.first_refusal_at is None:
            self.first_refusal_at = call.at
        if group.first_refused_at is None:
            group.first_refused_at = call.at
        self.save(group, day, call.amounts.cost_nanos)

    def save(self, group: GroupTally[Name], day: DayTally, nanos: int) -> None:
        """Count what a call would not have cost."""
        self.saved_nanos += nanos
        group.saved_nanos += nanos
        day.saved_nanos += nanos

    def open(self, group: GroupTally[Name], at: datetime, why: str) -> None:
        """Count a breaker that opens."""
        self.opened += 1
        if len(self.openings) < OPENINGS_SHOWN:
            self.openings.append((at, group.name, why))

    def outcome(
        self,
        *,
        levels: list[LevelOutcome],
        assumptions: list[str],
        group_answer: Callable[[Name], dict[str, str]],
    ) -> SimulationOutcome:
        """Return all of it; `group_answer` spells a group out."""
        touched = (group for group in self._groups.values() if group.is_touched)
        return SimulationOutcome.of(
            self,
            cost_usd=usd_from_nanos(self.cost_nanos),
            would_have_cost_usd=usd_from_nanos(self.cost_nanos - self.saved_nanos),
            saved_usd=usd_from_nanos(self.saved_nanos),
            refused=RefusedAnswer(
                self.refused_calls, usd_from_nanos(self.refused_nanos), self.refused_tokens
            ),
            groups=[
                GroupOutcome.of(
                    group,
                    group=group_answer(group.name),
                    saved_usd=usd_from_nanos(group.saved_nanos),
                )
                for group in nsmallest(GROUPS_SHOWN, touched, key=_most_saving_first)
            ],
            days=[
                DayOutcome(
                    starts_at.astimezone(self._clock.zone).date(),
                    usd_from_nanos(day.cost_nanos),
                    usd_from_nanos(day.cost_nanos - day.saved_nanos),
                    day.refused,
                )
                for starts_at, day in sorted(self._days.items(), key=itemgetter(0))
            ],
            levels=levels,
            openings=[
                OpeningAnswer(at, group_answer(name), why) for at, name, why in self.openings
            ],
            assumptions=assumptions,
        )


def _most_saving_first(group: GroupTally[Name]) -> tuple[int, int, str]:
    return -group.saved_nanos, -group.refused, str(group.name)
