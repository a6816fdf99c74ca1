"""A breaker, shown one stored call after the other. Pure: no database, no clock."""

from collections import defaultdict

from metering.limits.breakers.rules import BreakerRule, GroupState, Transition
from metering.limits.breakers.rules import Call as Reported
from metering.limits.breakers.states import group_values
from metering.models import Mode
from metering.simulation.calls import Call
from metering.simulation.tally import Tally


class BreakerReplay:
    """One breaker as it would have opened, in mode enforce whatever mode it has.

    A probe's outcome is known as soon as it is let through: calls are stored when they end.
    """

    def __init__(self, rule: BreakerRule) -> None:
        self.rule = rule._replace(mode=Mode.ENFORCE.value)
        self.tally = Tally[str](timezone="UTC")
        self._groups = defaultdict[str, GroupState](GroupState)

    def remember(self, call: Call) -> None:
        """Learn from a call before the replay begins: nothing is open then."""
        group = self.rule.group(call.values)
        if group is not None:
            state = self._groups[group]
            state.feed(self.rule, _reported(call))
            # Not `close`: the minute up to the first call counts.
            state.opened_at, state.why = None, ""

    def ask(self, call: Call) -> None:
        """Refuse a call of a group that is stopped, else make it and see what the breaker does."""
        group = self.rule.group(call.values)
        if group is None:
            return
        state = self._groups[group]
        counts = self.tally.group(group)
        day = self.tally.count(counts, call)
        is_probe = self.rule.halts and state.may_probe(self.rule, call.at)
        if self.rule.halts and state.opened_at is not None and not is_probe:
            self.tally.refuse(counts, day, call)
            return
        if state.feed(self.rule, _reported(call), is_probe=is_probe) is Transition.OPENED:
            self.tally.open(counts, call.at, state.why)

    def group_answer(self, group: str) -> dict[str, str]:
        """Return a group as dimension to value."""
        return group_values(self.rule.grouping, group)


def _reported(call: Call) -> Reported:
    return Reported(call.at, call.amounts.cost_nanos, call.amounts.tokens, call.is_error)
