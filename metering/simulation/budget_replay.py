"""A budget, asked for one stored call after the other. Pure: no database, no clock."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from metering.budgets.index import BudgetIndex, WindowKey
from metering.budgets.levels import REFUSING, WindowBalance, count_reached, passed_level
from metering.budgets.rules import BudgetRule
from metering.core.amounts import NOTHING, Amounts, add_amounts
from metering.core.match import Values, group_key
from metering.core.periods import Span
from metering.ledger.rollover import carries_over, unused_nanos
from metering.ledger.windows import WindowState
from metering.limits.lockouts import lockout_ends_at
from metering.limits.rate_counters import MEASURES, RateCounterKey, RateCounterState, SlidingMinute
from metering.models import Mode
from metering.reservations.judge import Judge, Ruling
from metering.reservations.request import Candidate
from metering.simulation.calls import Call, Cheaper, Earlier
from metering.simulation.outcome import LevelOutcome
from metering.simulation.tally import DayTally, GroupTally, Tally
from metering.snapshot import Configuration

LOCKOUT: Final = "lockout"
THROTTLE: Final = "throttle"
# The least that a call asks for, whatever it is.
LEAST: Final = Amounts(1, 1, 1, 1)


class _Balance(WindowBalance):
    """A window's balance in which calls are settled, at their true cost, as soon as they are
    granted.
    """

    __slots__ = ()

    def hold(self, amounts: Sequence[int], *, sign: int = 1) -> None:
        assert sign == 1, "nothing is held, so nothing is given back"
        self.spend(amounts)


class _Grain(NamedTuple):
    """A portion of a rolling window; all of it leaves at the same time."""

    at: datetime
    amounts: Amounts


class _Lockout(NamedTuple):
    """A halt of a window's group by the level of this percent."""

    percent: int
    ends_at: datetime | None


@dataclass(slots=True, kw_only=True, eq=False)
class _Window:
    """A group's window as it would have stood. `reached` counts the levels that it has crossed."""

    tally: GroupTally[Values]
    # What the Judge knows it by; a budget on single calls is judged without windows.
    keys: tuple[WindowKey, ...] = ()
    group_key: str = ""
    ends_at: datetime | None = None
    balance: WindowBalance = field(default_factory=WindowBalance)
    reached: int = 0
    lockout: _Lockout | None = None
    grains: deque[_Grain] = field(default_factory=deque)

    def is_locked_out(self, at: datetime) -> bool:
        lockout = self.lockout
        return lockout is not None and (lockout.ends_at is None or at < lockout.ends_at)


class _Request:
    """A call as the Judge sees a reservation request; a cheaper model is looked up when a level
    wants one.
    """

    __slots__ = ("_call", "_replay", "candidate", "cheaper_window")
    key_prefix: Final = ""

    def __init__(self, replay: "BudgetReplay", call: Call, window: _Window) -> None:
        self._replay = replay
        self._call = call
        self.candidate = _candidate(call, window)
        # Where the cheaper model counts, which may be none of this budget's business.
        self.cheaper_window: _Window | None = None

    @property
    def cheaper(self) -> Candidate | None:
        find = self._replay.cheaper
        cheaper = None if find is None else find(self._call)
        if cheaper is None:
            return None
        self.cheaper_window = self._replay.window_of(cheaper)
        return _candidate(cheaper, self.cheaper_window)


def _candidate(call: Call, window: _Window | None) -> Candidate:
    return Candidate(
        "",
        "",
        call.values,
        call.amounts,
        call.checked,
        () if window is None else window.keys,
        "no price" if call.is_unpriced else "",
    )


class FullGroup(NamedTuple):
    """A group whose next call is refused, and the part of its limit that is used up."""

    group: Mapping[str, str]
    part: str
    limit: int
    spent: int

    @property
    def values(self) -> Values:
        return tuple(self.group.values())


class BudgetReplay:
    """One budget as it would have decided: what it refuses is not spent, so that what comes later
    finds room.

    Reservations' own Judge decides, over windows that this class moves as the ledger does. What
    does not refuse in force (mode shadow or warn) only counts here, too.
    """

    def __init__(
        self, rule: BudgetRule, configuration: Configuration, *, cheaper: Cheaper | None = None
    ) -> None:
        self.rule = rule
        # Whether it may refuse.
        self.acts = rule.mode == Mode.ENFORCE.value
        self.tally = Tally[Values](timezone=rule.clock.zone.key)
        self._crossed = [0] * len(rule.levels)
        self.cheaper = cheaper
        self._span: Span | None = None
        self._windows: dict[Values, _Window] = {}
        # Of the period before, for what is carried over from it.
        self._before: Mapping[Values, _Window] = {}
        self._window_states: dict[int, WindowState] = {}
        self._balances: dict[int, WindowBalance] = {}
        self._counters = defaultdict[RateCounterKey, RateCounterState](
            lambda: RateCounterState(0, SlidingMinute.empty(MEASURES))
        )
        self._book = BudgetIndex(tenant_id=configuration.tenant_id, version=0, rules=[rule])
        self._judge = Judge(
            configuration=configuration._replace(budgets=self._book, rate_limits=()),
            windows=self._window_states,
            balances=self._balances,
            rate_counters=self._counters,
            limit_reductions=(),
            now=rule.counts_from,
        )

    @property
    def refuses_unpriced(self) -> bool:
        """Whether it refuses calls without a price."""
        return self.acts and self._judge.refuses_unpriced(self.rule)

    def remember(self, earlier: Earlier) -> None:
        """Count what was spent before the replay begins; portions come in order of time."""
        group = self.rule.group(earlier.values)
        if group is not None and not self.rule.is_per_request:
            self.remember_sum(group, earlier.at, earlier.first_at, earlier.amounts)

    def remember_sum(
        self, group: Values, at: datetime, first_at: datetime, amounts: Amounts
    ) -> None:
        """Count a sum of what a group spent, first at `first_at`."""
        window = self._window(group, at)
        if window.balance.first_used_at is None:
            window.balance.first_used_at = first_at
        self._spend(window, amounts, at)

    def begin(self, at: datetime) -> None:
        """Cross the levels that are reached when the replay begins, as a new budget does."""
        for window in self._windows.values():
            if window.ends_at is None or window.ends_at > at:
                self._let_go(window, at)
                self._settle_level(window, at)

    def ask(self, call: Call) -> None:
        """Decide one call, and count what becomes of it."""
        window = self.window_of(call)
        if window is None:
            return
        day = self.tally.count(window.tally, call)
        if window.lockout is not None and window.is_locked_out(call.at):
            self.tally.refuse(window.tally, day, call)
            return
        if not self.acts:
            # What refuses nothing needs no ruling.
            self._spend(window, call.amounts, call.at)
            self._settle_level(window, call.at)
            return
        self._judge.now = call.at
        request = _Request(self, call, window)
        ruling = self._judge.rule_on(request)
        if ruling.granted is None:
            self._refuse(window, day, call, ruling)
        elif ruling.is_downgrade:
            amounts = ruling.granted.candidate.amounts
            self.tally.downgraded += 1
            self.tally.save(window.tally, day, call.amounts.cost_nanos - amounts.cost_nanos)
            if request.cheaper_window is not None:
                self._count(request.cheaper_window, amounts, call.at)
        else:
            if ruling.asked.wants_cheaper:
                self.tally.downgraded += 1
                self.tally.downgraded_in_vain += 1
            self._count(window, call.amounts, call.at)

    @property
    def group_count(self) -> int:
        """The number of groups that have an open window."""
        return len(self._windows)

    def full_groups(self, at: datetime) -> list[FullGroup]:
        """Return the groups whose next call is refused at this time, the furthest beyond first."""
        full = []
        for group, window in self._windows.items():
            if window.ends_at is not None and window.ends_at <= at:
                continue
            first = passed_level(self.rule, window.balance, LEAST, now=at)
            if first is not None and first.level.action in REFUSING:
                group_answer = self.group_answer(group)
                full.append(FullGroup(group_answer, first.part, first.limit, first.spent))
        return sorted(full, key=lambda group: (group.limit - group.spent, group.values))

    def level_outcomes(self) -> list[LevelOutcome]:
        """Return the levels, and the number of times that windows crossed each."""
        return [
            LevelOutcome(level.percent, level.action, crossed)
            for level, crossed in zip(self.rule.levels, self._crossed, strict=True)
        ]

    def group_answer(self, group: Values) -> dict[str, str]:
        """Return a group as dimension to value."""
        return dict(zip(self.rule.dimensions, group, strict=True))

    def _refuse(self, window: _Window, day: DayTally, call: Call, ruling: Ruling) -> None:
        self.tally.refuse(window.tally, day, call)
        first = ruling.refusals[0]
        if first.action == THROTTLE:
            self.tally.throttled += 1
        elif first.action == LOCKOUT and first.passed is not None:
            self._lock_out(window, first.passed.level.percent, call.at)

    def _count(self, window: _Window, amounts: Amounts, at: datetime) -> None:
        """Move a window by what was granted."""
        if self.rule.is_per_request:
            self._spend(window, amounts, at)
        else:
            # The Judge has added it to the balance.
            self._note_grain(window, at, amounts)
        self._settle_level(window, at)

    def _spend(self, window: _Window, amounts: Amounts, at: datetime) -> None:
        window.balance.spend(amounts)
        if window.balance.first_used_at is None:
            window.balance.first_used_at = at
        self._note_grain(window, at, amounts)

    def window_of(self, call: Call) -> _Window | None:
        """Return the window that a call counts in, as it stands when the call is made."""
        group = self.rule.group(call.values)
        return None if group is None else self._window(group, call.at)

    def _window(self, group: Values, at: datetime) -> _Window:
        """Return the group's window as it stands at a time; times never go back."""
        span = self._span
        if span is None or (span.ends_at is not None and at >= span.ends_at):
            span = self._turn_over(self.rule.clock.span(at))
        window = self._windows.get(group)
        if window is None:
            window = self._windows[group] = self._open(group, span)
        if self.rule.is_per_request:
            # Each call is a window of its own.
            window.balance, window.reached = WindowBalance(), 0
        elif self.rule.is_rolling:
            self._let_go(window, at)
        if self.rule.raises:
            self._raise(window, at)
        return window

    def _turn_over(self, span: Span) -> Span:
        is_next = self._span is not None and self._span.ends_at == span.starts_at
        self._before = self._windows if is_next and self.rule.has_rollover else {}
        self._windows = {}
        self._span = span
        by_window = self._book.window_ids, self._window_states, self._balances, self._counters
        for entries in by_window:
            entries.clear()
        return span

    def _open(self, group: Values, span: Span) -> _Window:
        rule = self.rule
        tally = self.tally.group(group)
        if rule.is_per_request:
            return _Window(tally=tally)
        window = _Window(
            tally=tally,
            group_key=group_key(group),
            keys=(WindowKey(rule.id, group, span.starts_at),),
            ends_at=span.ends_at,
            balance=_Balance(carried_nanos=self._carried_nanos(group, span)),
        )
        window_id = self._book.window_ids[window.keys[0]] = len(self._balances)
        self._balances[window_id] = window.balance
        self._window_states[window_id] = WindowState(
            *(window_id, rule.id, rule.revision, window.group_key, *span, *NOTHING, *NOTHING),
            carried_nanos=window.balance.carried_nanos,
            counted_from=None,
            first_used_at=None,
            level_percent=0,
            episode=1,
        )
        return window

    def _carried_nanos(self, group: Values, span: Span) -> int:
        if not carries_over(self.rule, span.starts_at):
            return 0
        before = self._before.get(group)
        if before is None:
            return unused_nanos(self.rule, spent=0, carried=0)
        balance = before.balance
        return unused_nanos(self.rule, spent=balance.spent[0], carried=balance.carried_nanos)

    def _note_grain(self, window: _Window, at: datetime, amounts: Amounts) -> None:
        if not self.rule.is_rolling:
            return
        grain_at, grains = self.rule.grain_at(at), window.grains
        if grains and grains[-1].at == grain_at:
            grains[-1] = _Grain(grain_at, add_amounts(grains[-1].amounts, amounts))
        else:
            grains.append(_Grain(grain_at, amounts))

    def _let_go(self, window: _Window, at: datetime) -> None:
        """Take out of a rolling window what is older than its period."""
        grains = window.grains
        if not grains or grains[0].at >= (until := self.rule.counted_from(at)):
            return
        while grains and grains[0].at < until:
            window.balance.spend([-part for part in grains.popleft().amounts])
        self._settle_level(window, at)

    def _raise(self, window: _Window, at: datetime) -> None:
        """Let limit increases begin and end."""
        before = window.balance.raised
        window.balance.raised = self.rule.raised(window.group_key, at)
        if not self.rule.is_per_request and window.balance.raised != before:
            self._settle_level(window, at, is_raised=max(window.balance.raised) > max(before))

    def _settle_level(self, window: _Window, at: datetime, *, is_raised: bool = False) -> None:
        """Bring a window to the highest level that it reaches. A level that is newly reached is a
        crossing, and may lock out; one that is reached no more ends lockouts above.
        """
        levels = self.rule.levels
        reached = count_reached(self.rule, window.balance, now=at)
        if reached < window.reached or is_raised:
            lockout = window.lockout
            if lockout is not None and lockout.percent > (
                levels[reached - 1].percent if reached else 0
            ):
                window.lockout = None
        for index in range(window.reached, reached):
            self._crossed[index] += 1
            if levels[index].action == LOCKOUT and self.acts:
                self._lock_out(window, levels[index].percent, at)
        window.reached = reached

    def _lock_out(self, window: _Window, percent: int, at: datetime) -> None:
        # Of several, the one of the lowest level outlasts the others.
        if window.lockout is None or not window.is_locked_out(at):
            window.lockout = _Lockout(percent, lockout_ends_at(self.rule, window.ends_at, at))
        if window.tally.lockout_at is None:
            window.tally.lockout_at = at
