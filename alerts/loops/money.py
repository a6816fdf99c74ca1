"""What was wasted, and what another hour would cost. Whole nano-dollars throughout."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from alerts.loops.calls import Call, Evidence, Finding

RATE_CALLS: Final = 20
MICROS_PER_SECOND: Final = 1_000_000
MICROS_PER_HOUR: Final = 3600 * MICROS_PER_SECOND


class Bill:
    """The running cost of a session's calls, in order of time."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._spent = [0, *accumulate(call.cost_nanos for call in calls)]

    @property
    def cost_nanos(self) -> int:
        """Return what all calls cost."""
        return self._spent[-1]

    def cost_from(self, index: int) -> int:
        """Return what the call of that index and all after it cost."""
        return self._spent[-1] - self._spent[index]

    def priced(self, evidence: Evidence) -> Finding:
        """Return the evidence with what was spent since its first repeat."""
        return Finding(
            *evidence[:-1],
            began_at=self._calls[evidence.first_repeat].at,
            found_at=self._calls[evidence.detected].at,
            cost_nanos=self.cost_from(evidence.first_repeat),
            words=f"{evidence.what}.",
        )

    def nanos_per_call(self) -> int:
        """Return what the latest calls cost each, on average, rounded half up."""
        count = min(RATE_CALLS, len(self._calls))
        return _divided(self.cost_from(len(self._calls) - count), count)

    def nanos_per_hour(self) -> int | None:
        """Return what an hour costs at the pace of the latest calls; None if no time passed.

        The first of the latest calls starts the clock, and its own cost does not count.
        """
        start = max(0, len(self._calls) - RATE_CALLS)
        passed = round((self._calls[-1].at - self._calls[start].at) * MICROS_PER_SECOND)
        if passed <= 0:
            return None
        return _divided(self.cost_from(start + 1) * MICROS_PER_HOUR, passed)


def _divided(nanos: int, by: int) -> int:
    return (2 * nanos + by) // (2 * by)
