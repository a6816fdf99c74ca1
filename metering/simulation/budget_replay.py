"""A budget, asked for one stored call after the other. Pure: no database, no clock."""

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from metering.budgets.levels import REFUSING, Room, most_severe, pace_of, passed_levels
from metering.budgets.rules import BudgetRule, LevelRule
from metering.core.amounts import Amounts, add_amounts
from metering.core.dimensions import REQUEST
from metering.core.match import Values, group_key
from metering.core.periods import EPOCH, Span
from metering.ledger.rollover import unused_nanos
from metering.limits.rate_counters import MEASURES, Minute
from metering.simulation.calls import Call, Cheaper, Earlier, no_cheaper
from metering.simulation.tally import DayTally, GroupTally, Tally

LOCKOUT: Final = "lockout"
THROTTLE: Final = "throttle"


class _Grain(NamedTuple):
    """A portion of a rolling window, which leaves it as a whole."""

    at: datetime
    amounts: Amounts


class _Window:
    """A group's window as it would have stood. `reached` counts the levels that it has crossed."""

    __slots__ = ("ends_at", "grains", "is_locked", "key", "paces", "reached", "room", "tally")

    def __init__(
        self, *, tally: GroupTally, key: str, ends_at: datetime | None, carried_nanos: int
    ) -> None:
        self.tally = tally
        self.key = key
        self.ends_at = ends_at
        self.room = Room(carried_nanos=carried_nanos)
        self.reached = 0
        self.is_locked = False
        self.grains: deque[_Grain] | None = None
        self.paces: dict[int, Minute] | None = None


class _Weighed(NamedTuple):
    """What a call meets: the action that refuses it (or ""), and the pace that a grant goes by."""

    refusal: str = ""
    wants_cheaper: bool = False
    pace: Minute | None = None


class FullGroup(NamedTuple):
    """A group whose next call is refused, and the part of its limit that is used up."""

    group: Values
    part: str
    limit: int
    spent: int


# The least that a call asks for.
LEAST: Final = Amounts(1, 1, 1, 1)
_FREE: Final = _Weighed()
_UNPRICED: Final = _Weighed("unpriced")


class BudgetReplay:
    """One budget as it would have decided: what it refuses is not spent, so that what comes later
    finds room.

    Decides by the levels and paces that reservations are decided by (`verdicts.Judge`), and counts
    in windows as the ledger does. With `acts` false it only counts, as in shadow and warn.
    """

    def __init__(
        self,
        rule: BudgetRule,
        *,
        acts: bool = True,
        refuses_unpriced: bool = False,
        cheaper: Cheaper = no_cheaper,
    ) -> None:
        self.rule = rule
        self.acts = acts
        self.tally = Tally(timezone=rule.clock.zone.key)
        self._crossed = [0] * len(rule.levels)
        self.refuses_unpriced = (
            acts and refuses_unpriced and rule.refuses and rule.limit_parts[0] is not None
        )
        self._cheaper = cheaper
        self._span: Span | None = None
        self._windows: dict[Values, _Window] = {}
        # Of the period before, for what is carried over from it.
        self._before: dict[Values, _Window] = {}

    def remember(self, earlier: Earlier) -> None:
        """Count what was spent before the replay begins; portions come in order of time."""
        group = self.rule.group(earlier.values)
        if group is None or self.rule.is_per_request:
            return
        window = self._window(group, earlier.at)
        if window.room.first_used_at is None:
            window.room.first_used_at = earlier.first_at
        self._spend(window, earlier.at, earlier.amounts)

    def remember_sum(self, group: Values, first_at: datetime, amounts: Amounts) -> None:
        """Count the sum of a window's sealed events, which come before all others."""
        self._spend(self._window(group, first_at), first_at, amounts)

    def begin(self, at: datetime) -> None:
        """Cross the levels that are reached when the replay begins, as a new budget does."""
        for window in self._windows.values():
            if window.ends_at is None or window.ends_at > at:
                self._let_go(window, at)
                self._cross(window, at)

    def ask(self, call: Call) -> None:
        """Decide one call, and count what becomes of it."""
        group = self.rule.group(call.values)
        if group is None:
            return
        window = self._window(group, call.at)
        day = self.tally.count(window.tally, call)
        if self.acts:
            self._decide(window, day, call)
        else:
            self._grant(window, call, None)

    @property
    def group_count(self) -> int:
        """How many groups have a window that is open."""
        return len(self._windows)

    def full_groups(self, at: datetime) -> list[FullGroup]:
        """The groups whose next call at a moment is refused, those furthest beyond first."""
        full = []
        for group, window in self._windows.items():
            if window.ends_at is not None and window.ends_at <= at:
                continue
            first = most_severe(passed_levels(self.rule, window.room, LEAST, now=at))
            if first is not None and first.level.action in REFUSING:
                full.append(FullGroup(group, first.part, first.limit, first.spent))
        return sorted(full, key=lambda one: (one.limit - one.spent, one.group))

    def levels_answer(self) -> list[dict[str, Any]]:
        """The levels as JSON values, and how many windows crossed each."""
        return [
            {"percent": level.percent, "action": level.action, "crossed": crossed}
            for level, crossed in zip(self.rule.levels, self._crossed, strict=True)
        ]

    def group_answer(self, group: Values) -> dict[str, str]:
        """A group as dimension to value."""
        names = [name for name in self.rule.per if name != REQUEST]
        return dict(zip(names, group, strict=True))

    def _decide(self, window: _Window, day: DayTally, call: Call) -> None:
        if window.is_locked:
            self.tally.refuse(window.tally, day, call)
            return
        weighed = self._weigh(window, call)
        if weighed.wants_cheaper and self._downgrade(window, day, call):
            return
        if weighed.refusal:
            self._refuse(window, day, call, weighed.refusal)
            return
        if weighed.wants_cheaper:
            self.tally.downgraded += 1
            self.tally.downgraded_in_vain += 1
        self._grant(window, call, weighed.pace)

    def _weigh(self, window: _Window, call: Call) -> _Weighed:
        if call.is_unpriced and self.refuses_unpriced:
            return _UNPRICED
        passed = passed_levels(self.rule, window.room, call.checked, now=call.at)
        first = most_severe(passed)
        if first is None:
            return _FREE
        level = first.level
        wants_cheaper = any(
            one.level.action == "downgrade" and one.level.percent <= level.percent for one in passed
        )
        if level.action != THROTTLE or self.rule.is_per_request:
            return _Weighed(level.action if level.action in REFUSING else "", wants_cheaper)
        pace = self._pace(window, level)
        wait_seconds = self._wait_seconds(window, level, pace, call)
        return _Weighed(THROTTLE if wait_seconds else "", wants_cheaper, pace)

    def _pace(self, window: _Window, level: LevelRule) -> Minute:
        if window.paces is None:
            window.paces = {}
        return window.paces.setdefault(level.percent, Minute.empty(MEASURES))

    def _wait_seconds(self, window: _Window, level: LevelRule, pace: Minute, call: Call) -> int:
        nanos, tokens = pace_of(self.rule, level, window.room, ends_at=window.ends_at, now=call.at)
        pace.advance(int(call.at.timestamp()))
        waits = [0]
        if nanos is not None:
            waits.append(pace.seconds_until("nanos", call.checked.cost_nanos, nanos))
        if tokens is not None:
            waits.append(pace.seconds_until("tokens", call.checked.tokens, tokens))
        return max(waits)

    def _downgrade(self, window: _Window, day: DayTally, call: Call) -> bool:
        """Make the call with a cheaper model, if there is one that the budget has room for."""
        cheaper = self._cheaper(call)
        if cheaper is None:
            return False
        group = self.rule.group(cheaper.values)
        # The cheaper model may be none of this budget's business.
        other = None if group is None else self._window(group, call.at)
        weighed = _FREE if other is None else self._weigh(other, cheaper)
        if weighed.refusal:
            return False
        self.tally.downgraded += 1
        saved_nanos = call.amounts.cost_nanos - cheaper.amounts.cost_nanos
        self.tally.save(window.tally, day, saved_nanos)
        if other is not None:
            self._grant(other, cheaper, weighed.pace)
        return True

    def _refuse(self, window: _Window, day: DayTally, call: Call, action: str) -> None:
        self.tally.refuse(window.tally, day, call)
        if action == THROTTLE:
            self.tally.throttled += 1
        elif action == LOCKOUT:
            self._lock(window, call.at)

    def _grant(self, window: _Window, call: Call, pace: Minute | None) -> None:
        if pace is not None:
            pace.add(
                nanos=call.amounts.cost_nanos,
                tokens=call.amounts.tokens,
                requests=call.amounts.requests + call.amounts.tool_calls,
            )
        self._spend(window, call.at, call.amounts)
        self._cross(window, call.at)

    def _window(self, group: Values, at: datetime) -> _Window:
        """The group's window as it stands at a moment; moments never go back."""
        span = self.rule.clock.span(at)
        if self._span is None or span.starts_at != self._span.starts_at:
            self._turn_over(span)
        window = self._windows.get(group)
        if window is None:
            window = self._windows[group] = self._open(group, span)
        if self.rule.is_per_request:
            # Each call is a window of its own.
            window.room, window.reached = Room(), 0
        elif self.rule.is_rolling:
            self._let_go(window, at)
        if self.rule.raises:
            window.room.raised = self.rule.raised(window.key, at)
        return window

    def _turn_over(self, span: Span) -> None:
        is_next = self._span is not None and self._span.ends_at == span.starts_at
        self._before = self._windows if is_next and self.rule.has_rollover else {}
        self._windows = {}
        self._span = span

    def _open(self, group: Values, span: Span) -> _Window:
        window = _Window(
            tally=self.tally.group(group),
            key="" if self.rule.is_per_request else group_key(group),
            ends_at=span.ends_at,
            carried_nanos=self._carried_nanos(group, span),
        )
        if self.rule.is_rolling:
            window.grains = deque()
        return window

    def _carried_nanos(self, group: Values, span: Span) -> int:
        limit = self.rule.limit_parts[0]
        if not self.rule.has_rollover or limit is None or span.starts_at <= self.rule.counts_from:
            return 0
        before = self._before.get(group)
        return unused_nanos(
            self.rule,
            limit=limit,
            carried=before.room.carried_nanos if before else 0,
            spent=before.room.spent[0] if before else 0,
        )

    def _spend(self, window: _Window, at: datetime, amounts: Amounts) -> None:
        window.room.spend(amounts)
        if window.room.first_used_at is None:
            window.room.first_used_at = at
        if window.grains is not None:
            _note_grain(window.grains, self.rule.grain_at(at), amounts)

    def _let_go(self, window: _Window, at: datetime) -> None:
        """Take out of a rolling window what is older than its period."""
        if not window.grains:
            return
        until = self.rule.counted_from(at)
        if window.grains[0].at >= until:
            return
        while window.grains and window.grains[0].at < until:
            gone = window.grains.popleft().amounts
            window.room.spend([-part for part in gone])
        # Below a level again: to reach it once more is another crossing. Those that are still
        # reached are none.
        while window.reached and not self._is_reached(window, window.reached - 1, at):
            window.reached -= 1
            if self.rule.levels[window.reached].action == LOCKOUT:
                window.is_locked = False

    def _cross(self, window: _Window, at: datetime) -> None:
        """Count the levels that what was spent has newly reached; one of them may lock out."""
        while window.reached < len(self.rule.levels) and self._is_reached(
            window, window.reached, at
        ):
            self._crossed[window.reached] += 1
            if self.acts and self.rule.levels[window.reached].action == LOCKOUT:
                self._lock(window, at)
            window.reached += 1

    def _is_reached(self, window: _Window, place: int, at: datetime) -> bool:
        percent, room = self.rule.levels[place].percent, window.room
        for part in self.rule.limited_places:
            spent = room.spent[part]
            if spent > 0 and spent * 100 >= percent * (room.whole(self.rule, part) or 0):
                return True
        if self.rule.limit_seconds is None or room.first_used_at is None:
            return False
        seconds = int((at - room.first_used_at) / timedelta(seconds=1))
        return seconds > 0 and seconds * 100 >= percent * (self.rule.limit_seconds + room.raised[4])

    def _lock(self, window: _Window, at: datetime) -> None:
        window.is_locked = True
        if window.tally.lockout_at is None:
            window.tally.lockout_at = at


def _note_grain(grains: deque[_Grain], at: datetime, amounts: Amounts) -> None:
    if grains and grains[-1].at == at:
        grains[-1] = _Grain(at, add_amounts(grains[-1].amounts, amounts))
    else:
        grains.append(_Grain(at, amounts))


def budget_assumptions(
    replay: BudgetReplay, *, keeps_carried: bool, kept_from: datetime = EPOCH
) -> list[str]:
    """What holds of the replay of a budget, beyond what holds of every replay."""
    rule = replay.rule
    actions = {level.action for level in rule.acting_levels} if replay.acts else set()
    until = "the period replayed ends" if _never_ends(rule) else "its window ends"
    sentences: Sequence[tuple[object, str]] = (
        (
            not rule.is_per_request,
            "What a window had spent before the period counts, as for a budget made then.",
        ),
        (
            THROTTLE in actions,
            "A throttled call counts as refused. A client that waits as it is told makes it later"
            " after all, so what throttling saves is the most that it could be.",
        ),
        ("hold" in actions, "Nobody agrees to a raise where a level holds calls."),
        (
            LOCKOUT in actions,
            f"A lockout stops its group until {until}; in force it lasts until a person lifts it.",
        ),
        ("downgrade" in actions, _downgrade_sentence(replay)),
        (rule.raises, "Raises that were approved count for as long as they did."),
        (rule.has_rollover and not keeps_carried, "Nothing is carried over into the first window."),
        (
            kept_from > EPOCH and (rule.counts_from == EPOCH or rule.has_rollover),
            f"Calls before {kept_from:%Y-%m-%d} UTC are no longer kept: of them, windows in force"
            " count the sums, and nothing is carried over.",
        ),
        (
            "status" in rule.match or "status" in rule.per,
            "How a call ends is not known when it is asked for: all are asked for as successes.",
        ),
        (
            rule.is_per_request and rule.limit_seconds is not None,
            "How long a single call lasts is not replayed.",
        ),
    )
    return [sentence for condition, sentence in sentences if condition]


def _never_ends(rule: BudgetRule) -> bool:
    return rule.clock.period == "lifetime"


def _downgrade_sentence(replay: BudgetReplay) -> str:
    tally = replay.tally
    return (
        "A downgraded call costs what its tokens cost with the cheaper model that the routes name"
        f" now; {tally.downgraded_in_vain:,} of {tally.downgraded:,} have no such model, and save"
        " nothing."
    )
