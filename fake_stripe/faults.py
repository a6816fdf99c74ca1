"""What goes wrong on purpose."""

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """One way in which a request fails."""

    # The request is carried out, and its answer never comes.
    LOST_ANSWER = "lost answer"
    # The connection breaks before anything is done.
    RESET = "reset"
    BUSY = "429"
    # Nothing is done; the answer is stored under the idempotency key.
    ERROR = "500"
    # The request is carried out, and the stored answer is an error nevertheless.
    ERROR_AFTER_COMMIT = "500 after commit"


RETRY_AFTER_SECONDS: Final = 1


@dataclass
class Faults:
    """Which requests fail. Those in `coming` fail first, in turn (None: one that does not)."""

    coming: deque[Fault | None] = field(default_factory=deque)
    # By kind of fault, for requests that write; what is left of 1 succeeds.
    probabilities: Mapping[Fault, float] = field(default_factory=dict)
    dice: random.Random = field(default_factory=random.Random)
    # Requests with one of these in their body or path always get a 500.
    broken: set[str] = field(default_factory=set)

    def next(self, method: str, path: str, body: str) -> Fault | None:
        """Return how this request fails, if it does."""
        if any(text in path or text in body for text in self.broken):
            return Fault.ERROR
        if self.coming:
            return self.coming.popleft()
        drawn = self.dice.random()
        for fault, probability in self.probabilities.items():
            drawn -= probability
            if drawn < 0:
                return fault
        return None
