"""Which limits may have been in force, and when: more than one while a change is on its way.

Pure. Moments are those of the clock that all processes of the machine share.
"""

import math
from typing import Final, NamedTuple

from bench.soak.world import Limit

# A call is judged by its moment of arrival and granted when its transaction has come through.
RAISE_TOLERANCE_SECONDS: Final = 5.0


class _Span(NamedTuple):
    since: float
    until: float
    limit: Limit


class _Raise(NamedTuple):
    since: float
    until: float
    nanos: int


class Caps:
    """The limits of all budgets. One thread changes them, another asks."""

    def __init__(self) -> None:
        self._spans: dict[int, list[_Span]] = {}
        self._raises: dict[int, list[_Raise]] = {}

    def may_become(self, budget_id: int, limit: Limit, at: float) -> None:
        """Note that a change was sent: from now on either limit may be in force."""
        self._spans[budget_id] = [
            *self._spans.get(budget_id, []),
            _Span(at, math.inf, limit),
        ]

    def became(self, budget_id: int, at: float) -> None:
        """Note that the change sent last was answered: no other limit is in force any more."""
        *earlier, last = self._spans[budget_id]
        ended = [span._replace(until=min(span.until, at)) for span in earlier]
        self._spans[budget_id] = [*ended[-1000:], last]

    def may_rise(self, budget_id: int, nanos: int, *, since: float, until: float) -> None:
        """Note that a limit increase was approved, or at least asked to be."""
        self._raises[budget_id] = [
            *self._raises.get(budget_id, [])[-1000:],
            _Raise(since, until + RAISE_TOLERANCE_SECONDS, nanos),
        ]

    def largest(self, budget_id: int, part: int, *, since: float, until: float) -> float:
        """Return the most that a part may have been limited to within a time."""
        limits = [
            math.inf if span.limit[part] is None else float(span.limit[part] or 0)
            for span in self._spans.get(budget_id, [])
            if span.since <= until and span.until >= since
        ]
        if part > 0:
            return max(limits)
        raises = self._raises.get(budget_id, [])
        added = sum(
            increase.nanos
            for increase in raises
            if increase.since <= until and increase.until >= since
        )
        return max(limits) + added
