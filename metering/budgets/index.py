"""Which windows a usage event counts in: a tenant's budgets, indexed by the dimensions they use."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from datetime import datetime, timedelta
from itertools import chain, count
from operator import itemgetter
from typing import Final, NamedTuple

from common.bounded_memory import BoundedMemory
from metering.budgets.rules import BudgetRule, reaches_a_level
from metering.core.amounts import Amounts
from metering.core.match import Values
from metering.core.periods import EPOCH, QUANTUM_SECONDS, floor_seconds

# What a process remembers for all tenants, at about 0.4 KB each: groups, each with its windows of a
# few quarters of an hour, and the ids of windows. A transaction knows all that it asks for.
KNOWN_GROUPS_MAX: Final = 50_000
KNOWN_WINDOWS_MAX: Final = 200_000
# After this many windows of a group, they are looked up again.
WINDOWS_OF_GROUP_MAX: Final = 100


_QUARTER: Final = timedelta(seconds=QUANTUM_SECONDS)
WindowsOf = Callable[[Values, datetime], "tuple[WindowKey, ...]"]
# The windows of a shape's budgets in a quarter of an hour, by what the shape looks at.
_Known = dict[Values | str, "tuple[WindowKey, ...]"]


class WindowKey(NamedTuple):
    """A window before its id is known: the budget, its group's values, and where it begins."""

    budget_id: int
    group: Values
    starts_at: datetime


class _Groups:
    """The groups that events fall into which agree in what a shape's budgets look at, and their
    windows as far as they are known.
    """

    __slots__ = ("_groups", "_is_aligned", "_starts", "_windows")

    def __init__(self, groups: Sequence[tuple[BudgetRule, Values]]) -> None:
        self._groups = groups
        self._is_aligned = all(rule.clock.is_aligned for rule, _ in groups)
        self._starts = sorted({rule.counts_from for rule, _ in groups})
        # By quarter of an hour, and how many of `_starts` lie behind.
        self._windows: dict[tuple[int, int], tuple[WindowKey, ...]] = {}

    def windows_at(self, at: datetime, quantum: int) -> tuple[WindowKey, ...]:
        """Return the windows of a moment: the same tuple for events of the same windows, so that
        what is found out of it need not be found out again.
        """
        key = (quantum, bisect_right(self._starts, at))
        windows = self._windows.get(key)
        if windows is None:
            windows = tuple(
                [
                    WindowKey(rule.id, group, rule.clock.span(at).starts_at)
                    for rule, group in self._groups
                    if at >= rule.counts_from
                ]
            )
            if self._is_aligned:
                if len(self._windows) >= WINDOWS_OF_GROUP_MAX:
                    self._windows.clear()
                self._windows[key] = windows
        return windows


class _Shape:
    """The budgets that look at the same dimensions: events that agree in these fall into the same
    groups.
    """

    def __init__(self, places: Sequence[int], rules: Sequence[BudgetRule]) -> None:
        self.rules = rules
        self.relevant = _relevant_getter(places)

    def groups(self, values: Values) -> _Groups:
        """Return the group of each of the budgets that match these values."""
        groups = [(rule, rule.group(values)) for rule in self.rules]
        return _Groups([(rule, group) for rule, group in groups if group is not None])


_GROUPS: Final = BoundedMemory[tuple[_Shape, Values | str], _Groups](KNOWN_GROUPS_MAX)
# The committed windows that a process knows of, by the version of their tenant's configuration:
# code that removes a window that may be used again makes a new one.
_WINDOW_IDS: Final = BoundedMemory[tuple[int, WindowKey], int](KNOWN_WINDOWS_MAX)


_SERIALS: Final = count()


def _windows_in(
    shape: _Shape, relevant: Values | str, values: Values, at: datetime, quantum: int
) -> tuple[WindowKey, ...]:
    """Return the windows of a shape's budgets; `relevant` is what they look at."""
    key = (shape, relevant)
    groups = _GROUPS.get(key)
    if groups is None:
        groups = _GROUPS.keep(key, shape.groups(values))
    return groups.windows_at(at, quantum)


def _relevant_getter(places: Sequence[int]) -> Callable[[Values], Values | str]:
    """Return what gets the values at these places; a single one by itself, as a text knows its
    hash.
    """
    return itemgetter(*places) if places else lambda values: ""


def forget_windows() -> None:
    """Empty this process's memory (tests make windows again under the same ids)."""
    _GROUPS.forget_all()
    _WINDOW_IDS.forget_all()


class BudgetIndex:
    """A tenant's budgets as of one configuration version, and the ids of their windows.

    `window_ids` has the windows that the holder of this index asked for. A process's snapshot holds
    none: each transaction works with a book of its own (`for_transaction`), which forgets nothing
    while it lasts, whatever others make the process remember or forget meanwhile.
    """

    def __init__(self, *, tenant_id: int, version: int, rules: Iterable[BudgetRule]) -> None:
        self.tenant_id = tenant_id
        self.version = version
        # Tells the budgets that it was made of from those of any other; its copies have them too.
        self.serial = next(_SERIALS)
        self.rules = {rule.id: rule for rule in rules}
        self.window_ids: dict[WindowKey, int] = {}
        # By the identity of the keys, which are kept so that nothing else takes it.
        self._ids_of: dict[int, tuple[tuple[WindowKey, ...], tuple[int, ...]]] = {}
        self.has_rollover = any(rule.has_rollover for rule in self.rules.values())
        self.has_throttles = any(rule.throttles for rule in self.rules.values())
        plain = [rule for rule in self.rules.values() if not rule.is_per_request]
        self.request_rules = [rule for rule in self.rules.values() if rule.is_per_request]
        self._shapes = [_Shape(places, rules) for places, rules in _rules_by_places(plain)]
        self._is_aligned = all(rule.clock.is_aligned for rule in plain)
        # From when on all of them count.
        self._counts_from = max((rule.counts_from for rule in plain), default=EPOCH)

    def windows_of(self, values: Values, at: datetime) -> tuple[WindowKey, ...]:
        """The windows in which an event with these values at this time counts.

        Most are answered from what is known: events that agree in every dimension that a budget
        looks at fall into the same group of it, and within a quarter of an hour into the same
        window.
        """
        quantum = int(at.timestamp()) // QUANTUM_SECONDS
        windows = [
            _windows_in(shape, shape.relevant(values), values, at, quantum)
            for shape in self._shapes
        ]
        return windows[0] if len(windows) == 1 else tuple(chain.from_iterable(windows))

    def finder(self) -> WindowsOf:
        """Return `windows_of` for the events of one body: what is looked up for one of them is
        there for the others of its quarter of an hour.
        """
        if not self._is_aligned:
            return self.windows_of
        quarters: dict[datetime, list[tuple[_Shape, _Known]]] = {}
        by_shape: list[tuple[_Shape, _Known]] = []
        starts_at = ends_at = EPOCH

        def windows_of(values: Values, at: datetime) -> tuple[WindowKey, ...]:
            nonlocal by_shape, starts_at, ends_at
            if not starts_at <= at < ends_at:
                if at < self._counts_from:
                    return self.windows_of(values, at)
                quarter = floor_seconds(at, QUANTUM_SECONDS)
                starts_at, ends_at = max(quarter, self._counts_from), quarter + _QUARTER
                if quarter not in quarters:
                    quarters[quarter] = [(shape, {}) for shape in self._shapes]
                by_shape = quarters[quarter]
            keys: tuple[WindowKey, ...] = ()
            for shape, known in by_shape:
                relevant = shape.relevant(values)
                if (windows := known.get(relevant)) is None:
                    quantum = int(at.timestamp()) // QUANTUM_SECONDS
                    windows = _windows_in(shape, relevant, values, at, quantum)
                    known[relevant] = windows
                keys += windows
            return keys

        return windows_of

    def request_windows_of(
        self, values: Values, request: str, at: datetime, amounts: Amounts
    ) -> list[WindowKey]:
        """Windows of budgets on single calls. Only a call that reaches a level gets one."""
        windows = []
        for rule in self.request_rules:
            group = rule.group(values)
            if group is None or at < rule.counts_from or not reaches_a_level(rule, amounts):
                continue
            windows.append(WindowKey(rule.id, (*group, request), rule.clock.span(at).starts_at))
        return windows

    def for_transaction(self) -> "BudgetIndex":
        """This book for one transaction.

        What a transaction opens is not there for others before it commits, and never if it does
        not: had they the id, they would post to a window that is not found.
        """
        book = copy(self)
        book.window_ids = dict(self.window_ids)
        book._ids_of = {}
        return book

    def ids_of(self, keys: tuple[WindowKey, ...]) -> tuple[int, ...]:
        """Return the ids of windows that this transaction asked for, in the order of their keys.
        What many calls share is looked up once.
        """
        known = self._ids_of.get(id(keys))
        if known is None:
            window_ids = self.window_ids
            known = self._ids_of[id(keys)] = keys, tuple([window_ids[key] for key in keys])
        return known[1]

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

    def learn(self, committed: "BudgetIndex") -> None:
        """Remember for all what a transaction opened, now that it is committed."""
        for key, window_id in committed.window_ids.items():
            self.remember(key, window_id)

    def remember(self, key: WindowKey, window_id: int) -> None:
        """Remember a committed window of a budget's present revision.

        That of a single call is looked up again: it goes by another key once another report names
        the call.
        """
        if not self.rules[key.budget_id].is_per_request:
            _WINDOW_IDS.keep((self.version, key), window_id)


def _rules_by_places(
    rules: Iterable[BudgetRule],
) -> list[tuple[tuple[int, ...], list[BudgetRule]]]:
    """The budgets by the places of the dimensions that they look at, and by whether their periods
    begin with quarters of an hour.
    """
    shapes: dict[tuple[bool, tuple[int, ...]], list[BudgetRule]] = {}
    for rule in rules:
        places = {*rule.places, *(index for index, _ in rule.wanted)}
        shapes.setdefault((rule.clock.is_aligned, tuple(sorted(places))), []).append(rule)
    return [(places, rules_of_shape) for (_, places), rules_of_shape in shapes.items()]
