"""A breaker, shown one stored call after the other. Pure: no database, no clock."""

from datetime import datetime

from metering.limits.breakers.rules import BreakerRule, Turn, Watch
from metering.limits.breakers.rules import Call as Reported
from metering.limits.breakers.states import group_values
from metering.models import Mode
from metering.simulation.calls import Call
from metering.simulation.tally import Tally


class BreakerReplay:
    """One breaker as it would have opened, in mode enforce whatever mode it has.

    A trial call's outcome is known as soon as it is let through: calls are stored when they end.
    """

    def __init__(self, rule: BreakerRule) -> None:
        self.rule = rule._replace(mode=Mode.ENFORCE.value)
        self.tally = Tally(timezone="UTC")
        self._watches: dict[str, Watch] = {}

    def remember(self, call: Call) -> None:
        """Learn from a call before the replay begins: nothing is open then."""
        group = self.rule.group(call.values)
        if group is not None:
            watch = self._watch(group)
            watch.feed(self.rule, _reported(call))
            # Not `close`: the minute up to the first call counts.
            watch.opened_at, watch.why = None, ""

    def ask(self, call: Call) -> None:
        """Refuse a call of a group that is stopped, else make it and see what the breaker does."""
        group = self.rule.group(call.values)
        if group is None:
            return
        watch = self._watch(group)
        counts = self.tally.group(group)
        day = self.tally.count(counts, call)
        is_trial = self.rule.halts and watch.may_try(self.rule, call.at)
        if self.rule.halts and watch.opened_at is not None and not is_trial:
            self.tally.refuse(counts, day, call)
            return
        if watch.feed(self.rule, _reported(call), is_trial=is_trial) is Turn.OPENED:
            self.tally.open(counts, call.at, watch.why)

    def group_answer(self, group: str) -> dict[str, str]:
        """Return a group as dimension to value."""
        return group_values(self.rule.grouping, group)

    def _watch(self, group: str) -> Watch:
        watch = self._watches.get(group)
        if watch is None:
            watch = self._watches[group] = Watch()
        return watch


def _reported(call: Call) -> Reported:
    at: datetime = call.at
    return Reported(at, call.amounts.cost_nanos, call.amounts.tokens, call.is_error)
