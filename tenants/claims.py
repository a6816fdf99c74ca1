"""How much one transaction of a job claims, so that it takes a second or two whatever the backlog.

An old transaction keeps PostgreSQL from clearing away what everybody else's updates leave behind.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Half a second below what a transaction may take: the next claim may be of another kind.
TRANSACTION_SECONDS: Final = 1.5
# Tenants whose claims a process remembers; beyond these the one longest ago is forgotten.
TENANTS_MAX: Final = 10_000


class ClaimSize:
    """How much of a tenant's backlog a job claims at once: going by how long its last claims took.

    It begins with `first` and stays between `least` and `most`.
    """

    def __init__(self, *, least: int, first: int, most: int) -> None:
        self._least = least
        self._first = first
        self._most = most
        self._sizes: OrderedDict[int, int] = OrderedDict()

    def of(self, tenant_id: int) -> int:
        """Return how much the next transaction of this tenant claims."""
        return self._sizes.get(tenant_id, self._first)

    @contextmanager
    def measured(self, tenant_id: int, *, count: int) -> Iterator[None]:
        """Do the work of a claim that turned out to hold `count`, and learn from its time: also
        where the database ended it because it took too long.
        """
        began_at = time.monotonic()
        is_done = False
        try:
            yield
            is_done = True
        finally:
            seconds = time.monotonic() - began_at
            self._learn(tenant_id, count=count, seconds=seconds, is_done=is_done)

    def _learn(self, tenant_id: int, *, count: int, seconds: float, is_done: bool) -> None:
        size = self.of(tenant_id)
        if seconds > TRANSACTION_SECONDS:
            size = min(size, int(count * TRANSACTION_SECONDS / seconds))
        elif is_done:
            # By what was claimed, which may be less than could be: batches are claimed whole.
            size = max(size, int(count * min(2.0, TRANSACTION_SECONDS / max(seconds, 1e-6))))
        self._sizes[tenant_id] = max(self._least, min(self._most, size))
        self._sizes.move_to_end(tenant_id)
        if len(self._sizes) > TENANTS_MAX:
            self._sizes.popitem(last=False)
