"""What a process remembers of rows that others may change: bounded, and never long out of date."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from cachetools import LRUCache

from tenants.changes import PROCESS_LISTENER, ChangeListener, Kind

# How long a value counts if no one tells of changes: the delay of a revocation.
UNTOLD_SECONDS: Final = 1.0
# How long it counts where they are told.
TOLD_SECONDS: Final = 60.0

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Entry(Generic[Value]):
    """A value, when reading it began, and the listener's session in which it is told of changes."""

    __slots__ = ("claimed_at", "read_at", "session", "value")

    def __init__(self, value: Value, *, read_at: float, session: int | None) -> None:
        self.value = value
        self.read_at = read_at
        self.session = session
        self.claimed_at = float("-inf")


class Remembered(Generic[Key, Value]):
    """Values by key, of which those used longest ago give way. Safe for threads.

    `key_of` makes the key of the subject that a change of this kind names.
    """

    def __init__(
        self,
        kind: Kind,
        key_of: Callable[[str], Key],
        *,
        size_max: int,
        listener: ChangeListener = PROCESS_LISTENER,
    ) -> None:
        self._entries: LRUCache[Key, _Entry[Value]] = LRUCache(size_max)
        self._lock = threading.Lock()
        self._listener = listener
        listener.on_change(kind, lambda subject: self._expire(key_of(subject)))

    def current(self, key: Key, read: Callable[[Value | None], Value | None]) -> Value | None:
        """The value; `read` is given what was known of it and answers what holds now, or None.

        Of several callers that find it out of date one reads it. The others go on with what is
        known for that moment, instead of all asking the database simultaneously.
        """
        with self._lock:
            entry = self._entries.get(key)
            now = time.monotonic()
            if entry is not None:
                if self._holds(entry, now) or entry.claimed_at > now - UNTOLD_SECONDS:
                    return entry.value
                entry.claimed_at = now
        session = self._listener.session if self._listener.is_live() else None
        count = self._listener.count
        try:
            value = read(None if entry is None else entry.value)
        except BaseException:
            if entry is not None:
                entry.claimed_at = float("-inf")  # no one knows better; the next one asks again
            raise
        with self._lock:
            if value is None:
                self._entries.pop(key, None)
            else:
                # Where something changed meanwhile, this may have been read before it.
                is_told = count == self._listener.count
                self._entries[key] = _Entry(
                    value, read_at=now, session=session if is_told else None
                )
        return value

    def keep(self, key: Key, value: Value) -> None:
        """Remember a value that was read for another purpose just now."""
        with self._lock:
            self._entries[key] = _Entry(value, read_at=time.monotonic(), session=None)

    def last_known(self, key: Key) -> Value | None:
        """What was read last, however long ago."""
        with self._lock:
            entry = self._entries.get(key)
        return None if entry is None else entry.value

    def forget_all(self) -> None:
        """Empty it (tests change rows under it)."""
        with self._lock:
            self._entries.clear()

    def _holds(self, entry: _Entry[Value], now: float) -> bool:
        if entry.read_at > now - UNTOLD_SECONDS:
            return True
        is_told = entry.session == self._listener.session and self._listener.is_live()
        return is_told and entry.read_at > now - TOLD_SECONDS

    def _expire(self, key: Key) -> None:
        """It has changed: the next one reads it."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                entry.read_at = entry.claimed_at = float("-inf")
                entry.session = None
