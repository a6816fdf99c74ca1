"""Which windows a usage event counts in: a tenant's budgets, compiled for speed."""

import json
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Final, NamedTuple

from common.bounded_memory import BoundedMemory
from metering.core.dimensions import MATCHABLE, REQUEST
from metering.core.periods import (
    GRAIN_SECONDS,
    QUANTUM_SECONDS,
    ROLLING_SECONDS,
    PeriodClock,
    Span,
    floor_seconds,
)
from metering.models import Budget

PLACE: Final = {name: place for place, name in enumerate(MATCHABLE)}
# What a process remembers for all tenants, at about 0.4 KB each: groups, each with its windows of a
# few quarters of an hour, and the ids of windows. A transaction knows all that it asks for.
KNOWN_GROUPS_MAX: Final = 50_000
KNOWN_WINDOWS_MAX: Final = 200_000
# After so many a group's windows are found anew.
WINDOWS_OF_GROUP_MAX: Final = 100

# An event's values in the order of MATCHABLE; "" where it has none.
Values = tuple[str, ...]


class Amounts(NamedTuple):
    """What usage adds to a balance."""

    cost_nanos: int
    tokens: int
    requests: int
    tool_calls: int


# What raises add to cost, tokens, requests, tool calls and seconds.
Raised = tuple[int, int, int, int, int]
NO_RAISE: Final[Raised] = (0, 0, 0, 0, 0)


class WindowKey(NamedTuple):
    """A window before its id is known: the budget, its group's values, and where it begins."""

    budget_id: int
    group: Values
    starts_at: datetime


class LevelRule(NamedTuple):
    """A level of a budget."""

    percent: int
    action: str
    notify: tuple[str, ...]
    # Of `throttle`: what may be asked for within any minute.
    cost_nanos_per_minute: int | None = None
    tokens_per_minute: int | None = None


class RaiseRule(NamedTuple):
    """An approved raise of a budget's limits: for a group (empty: all), for a while, by how
    much.
    """

    budget_id: int
    group_key: str
    starts_at: datetime
    ends_at: datetime
    cost_nanos: int
    tokens: int
    requests: int
    tool_calls: int
    seconds: int


class BudgetRule:
    """One budget, ready to judge events."""

    def __init__(
        self,
        budget: Budget,
        levels: Sequence[LevelRule],
        raises: Sequence[RaiseRule] = (),
    ) -> None:
        self.id = budget.id
        self.name = budget.name
        self.revision = budget.revision
        self.mode = budget.mode
        self.per = tuple(budget.per)
        self.match = dict(budget.match)
        self.limits = {
            "cost_nanos": budget.limit_cost_nanos,
            "tokens": budget.limit_tokens,
            "requests": budget.limit_requests,
            "tool_calls": budget.limit_tool_calls,
        }
        self.limit_seconds = budget.limit_seconds
        self.levels = tuple(levels)
        self.raises = tuple(raises)
        # For whoever judges calls: limits in the order of Amounts, and levels that do something.
        self.limit_parts = tuple(self.limits.values())
        self.limited_places = [
            place for place, limit in enumerate(self.limit_parts) if limit is not None
        ]
        self.acting_levels = [level for level in self.levels if level.action != "none"]
        self.throttles = [level for level in self.levels if level.action == "throttle"]
        self.refuses = any(
            level.action in ("hold", "block", "lockout") for level in self.acting_levels
        )
        self.counts_from = budget.counts_from
        # Whether the past may not be in its windows yet; `metering.ledger.counting` knows how much.
        self.is_counting = budget.is_counting
        self.period = budget.period
        self.is_rolling = budget.is_rolling
        self.has_rollover = budget.has_rollover
        self.rollover_max_percent = budget.rollover_max_percent
        self.is_per_request = REQUEST in self.per
        self.clock = PeriodClock(
            period="lifetime" if budget.is_rolling or self.is_per_request else budget.period,
            timezone=budget.timezone,
            anchor_at=budget.anchor_at,
        )
        self.places = [PLACE[name] for name in self.per if name != REQUEST]
        self.wanted = [(PLACE[name], wanted_values(value)) for name, value in self.match.items()]
        self._group = _group_getter(self.places)

    def group(self, values: Values) -> Values | None:
        """The values of the budget's group for an event, or None where the budget does not match
        it.
        """
        for place, wanted in self.wanted:
            if values[place] not in wanted:
                return None
        return self._group(values)

    def span(self, at: datetime) -> Span | None:
        """The period that an event of this time counts in; None for times before the budget
        counts.
        """
        if at < self.counts_from:
            return None
        return self.clock.span(at)

    def raised(self, group_key: str, now: datetime) -> Raised:
        """What approved raises add to a group's limits at a moment."""
        if not self.raises:
            return NO_RAISE
        cost = tokens = requests = tool_calls = seconds = 0
        for one in self.raises:
            if one.starts_at <= now < one.ends_at and one.group_key in ("", group_key):
                cost += one.cost_nanos
                tokens += one.tokens
                requests += one.requests
                tool_calls += one.tool_calls
                seconds += one.seconds
        return cost, tokens, requests, tool_calls, seconds

    def grain_at(self, at: datetime) -> datetime:
        """The portion of a rolling window that usage of this time leaves with."""
        return floor_seconds(at, GRAIN_SECONDS[self.period])

    def counted_from(self, now: datetime) -> datetime:
        """A rolling window: usage before this moment has left it."""
        length = timedelta(seconds=ROLLING_SECONDS[self.period])
        return floor_seconds(now - length, GRAIN_SECONDS[self.period])


def wanted_values(value: object) -> frozenset[str]:
    """What a match asks of one dimension: a value, any of a list, or null for "has none"."""
    values = value if isinstance(value, list) else [value]
    return frozenset("" if one is None else str(one) for one in values)


def _group_getter(places: list[int]) -> Callable[[Values], Values]:
    if not places:
        return lambda values: ()
    if len(places) == 1:
        place = places[0]
        return lambda values: (values[place],)
    return itemgetter(*places)


def group_key(group: Sequence[str]) -> str:
    """A group's values as the text that `budget_window.group_key` holds."""
    return json.dumps(list(group), ensure_ascii=False, separators=(",", ":"))


class _Group(NamedTuple):
    """A group of a budget, and its windows by quarter of an hour as far as they are known."""

    rule: BudgetRule
    group: Values
    keys: dict[int, WindowKey]


class _Shape:
    """The budgets that look at the same dimensions: events that agree in these fall into the same
    groups.
    """

    def __init__(self, places: Sequence[int], rules: Sequence[BudgetRule]) -> None:
        self.rules = rules
        self.relevant = _group_getter(list(places))

    def groups(self, values: Values) -> list[_Group]:
        """The group of each of the budgets that match these values; no windows are known yet."""
        return [
            _Group(rule, group, {})
            for rule in self.rules
            if (group := rule.group(values)) is not None
        ]


_GROUPS: Final = BoundedMemory[tuple[_Shape, Values], list[_Group]](KNOWN_GROUPS_MAX)
# The committed windows that a process knows of, by the version of their tenant's configuration:
# whoever removes a window that may be used again makes a new one.
_WINDOW_IDS: Final = BoundedMemory[tuple[int, WindowKey], int](KNOWN_WINDOWS_MAX)


def forget_windows() -> None:
    """Empty this process's memory (tests make windows anew under the same ids)."""
    _GROUPS.forget_all()
    _WINDOW_IDS.forget_all()


class BudgetBook:
    """A tenant's budgets as of one configuration version, and the ids of their windows.

    `window_ids` has what whoever holds this book asked for. A process's snapshot holds none: each
    transaction works with a book of its own (`for_transaction`), which forgets nothing while it
    lasts, whatever others make the process remember or forget meanwhile.
    """

    def __init__(self, *, tenant_id: int, version: int, rules: Iterable[BudgetRule]) -> None:
        self.tenant_id = tenant_id
        self.version = version
        self.rules = {rule.id: rule for rule in rules}
        self.window_ids: dict[WindowKey, int] = {}
        self.has_rollover = any(rule.has_rollover for rule in self.rules.values())
        self.has_throttles = any(rule.throttles for rule in self.rules.values())
        plain = [rule for rule in self.rules.values() if not rule.is_per_request]
        self.request_rules = [rule for rule in self.rules.values() if rule.is_per_request]
        self._shapes = [_Shape(places, rules) for places, rules in _rules_by_places(plain).items()]

    def windows_of(self, values: Values, at: datetime) -> tuple[WindowKey, ...]:
        """The windows in which an event with these values at this time counts.

        Most are answered from what is known: events that agree in every dimension that a budget
        looks at fall into the same group of it, and within a quarter of an hour into the same
        window.
        """
        quantum = int(at.timestamp()) // QUANTUM_SECONDS
        windows: list[WindowKey] = []
        for shape in self._shapes:
            place = (shape, shape.relevant(values))
            groups = _GROUPS.get(place)
            if groups is None:
                groups = _GROUPS.keep(place, shape.groups(values))
            for rule, group, keys in groups:
                if at >= rule.counts_from:
                    key = keys.get(quantum)
                    windows.append(key or self._learn_window(keys, rule, group, at))
        return tuple(windows)

    def _learn_window(
        self, keys: dict[int, WindowKey], rule: BudgetRule, group: Values, at: datetime
    ) -> WindowKey:
        key = WindowKey(rule.id, group, rule.clock.span(at).starts_at)
        if rule.clock.is_aligned:
            if len(keys) >= WINDOWS_OF_GROUP_MAX:
                keys.clear()
            keys[int(at.timestamp()) // QUANTUM_SECONDS] = key
        return key

    def request_windows_of(
        self, values: Values, request: str, at: datetime, amounts: Amounts
    ) -> list[WindowKey]:
        """Windows of budgets on single calls. Only a call that reaches a level gets one."""
        found = []
        for rule in self.request_rules:
            group = rule.group(values)
            if group is None or at < rule.counts_from or not reaches_a_level(rule, amounts):
                continue
            found.append(WindowKey(rule.id, (*group, request), rule.clock.span(at).starts_at))
        return found

    def for_transaction(self, keys: Iterable[WindowKey] = ()) -> "BudgetBook":
        """This book for one transaction, with the ids of those of these windows that are known.

        What a transaction opens is not there for others before it commits, and never if it does
        not: had they the id, they would post to a window that is not found.
        """
        book = copy(self)
        book.window_ids = dict(self.window_ids)
        book.lacking(keys)
        return book

    def lacking(self, keys: Iterable[WindowKey]) -> set[WindowKey]:
        """The windows of these whose ids are not known; `window_ids` has the others afterwards."""
        missing = set()
        for key in set(keys) - self.window_ids.keys():
            window_id = _WINDOW_IDS.get((self.version, key))
            if window_id is None:
                missing.add(key)
            else:
                self.window_ids[key] = window_id
        return missing

    def learn(self, committed: "BudgetBook") -> None:
        """Remember for all what a transaction opened, now that it is committed."""
        for key, window_id in committed.window_ids.items():
            self.remember(key, window_id)

    def remember(self, key: WindowKey, window_id: int) -> None:
        """Remember a committed window of a budget's present revision.

        That of a single call is asked for anew: it goes by another key once another report names
        the call.
        """
        if not self.rules[key.budget_id].is_per_request:
            _WINDOW_IDS.keep((self.version, key), window_id)


def _rules_by_places(rules: Iterable[BudgetRule]) -> dict[tuple[int, ...], list[BudgetRule]]:
    """The budgets by the places of the dimensions that they look at."""
    shapes: dict[tuple[int, ...], list[BudgetRule]] = {}
    for rule in rules:
        places = {*rule.places, *(place for place, _ in rule.wanted)}
        shapes.setdefault(tuple(sorted(places)), []).append(rule)
    return shapes


def reaches_a_level(rule: BudgetRule, amounts: Amounts) -> bool:
    """Whether one call alone reaches the lowest level of a budget on single calls."""
    lowest = rule.levels[0].percent if rule.levels else 100
    return any(
        limit is not None and used > 0 and used * 100 >= lowest * limit
        for used, limit in zip(amounts, rule.limits.values(), strict=True)
    )
