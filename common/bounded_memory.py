"""A bounded memory for what is looked up thousands of times a transaction."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedMemory(Generic[Key, Value]):
    """Values by key, at most `size_max`. Safe for threads; none of them ever waits.

    In two halves: when the younger is full it becomes the older one, whose contents go with the
    next change. What is asked for in between moves to the younger, so that what is in use stays.
    A look-up costs little more than that of a dict, and a twentieth of one in an LRU cache that
    keeps its keys in order (docs/decisions/0026).
    """

    def __init__(self, size_max: int) -> None:
        self._half_max = max(1, size_max // 2)
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        """The value, or None."""
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.keep(key, value)
        return value

    def keep(self, key: Key, value: Value) -> Value:
        """Remember and answer a value."""
        if len(self._young) >= self._half_max:
            self._old, self._young = self._young, {}
        self._young[key] = value
        return value

    def forget_all(self) -> None:
        """Empty it."""
        self._young, self._old = {}, {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
