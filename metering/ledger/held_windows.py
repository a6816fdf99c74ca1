"""The windows that reservations hold: the same for most of a tenant's reservations, so a process
keeps them once.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple, Self

from common.bounded_memory import BoundedMemory
from metering.budgets.index import BudgetIndex, WindowKey

# Sets of windows that a process remembers.
HELD_WINDOWS_MAX: Final = 10_000


class HeldWindow(NamedTuple):
    """A window that a reservation holds, and of which revision of its budget it is."""

    window_id: int
    revision: int
    key: WindowKey


class Counting(NamedTuple):
    """Those of held windows that still count. A window of an older revision, or of an archived
    budget, is posted to no more.
    """

    ids: tuple[int, ...]
    keys: tuple[WindowKey, ...]
    budget_ids: frozenset[int]


class HeldWindows(tuple[HeldWindow, ...]):
    """The windows that a reservation holds. Those that hold the same share one of these, and what
    was found out of it: a call may count in a hundred budgets.
    """

    ids: tuple[int, ...]
    # With the serial of the index that it holds for: read and replaced as one, by any thread.
    _counting: tuple[int, Counting] | None

    @classmethod
    def of(cls, windows: Iterable[HeldWindow]) -> Self:
        """Return these windows as reservations hold them."""
        held = cls(windows)
        held.ids = tuple([window.window_id for window in held])
        held._counting = None
        return held

    def counting(self, book: BudgetIndex) -> Counting:
        """Return those that still count, which the book's process then knows."""
        known = self._counting
        if known is None or known[0] != book.serial:
            known = self._counting = book.serial, self._find_counting(book)
        return known[1]

    def _find_counting(self, book: BudgetIndex) -> Counting:
        counting = [
            window
            for window in self
            if (rule := book.rules.get(window.key.budget_id)) is not None
            and rule.revision == window.revision
        ]
        for window in counting:
            book.remember(window.key, window.window_id)
        return Counting(
            ids=tuple([window.window_id for window in counting]),
            keys=tuple([window.key for window in counting]),
            budget_ids=frozenset([window.key.budget_id for window in counting]),
        )


# By the windows' ids, which all tenants take from one sequence.
_SHARED: Final = BoundedMemory[tuple[int, ...], HeldWindows](HELD_WINDOWS_MAX)


def windows_to_hold(book: BudgetIndex, keys: tuple[WindowKey, ...]) -> HeldWindows:
    """Return the windows of a new reservation, which this transaction has locked."""
    ids = book.ids_of(keys)
    return _SHARED.get(ids) or _SHARED.keep(
        ids,
        HeldWindows.of(
            HeldWindow(window_id, book.rules[key.budget_id].revision, key)
            for window_id, key in zip(ids, keys, strict=True)
        ),
    )


def share_windows(windows: Iterable[HeldWindow]) -> HeldWindows:
    """Return these windows as this process knows them."""
    held = HeldWindows.of(windows)
    return _SHARED.get(held.ids) or _SHARED.keep(held.ids, held)


def forget_held_windows() -> None:
    """Empty this process's memory (tests make windows again under the same ids)."""
    _SHARED.forget_all()
