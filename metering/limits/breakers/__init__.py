"""Breakers: they open automatically for groups that spend too fast, fail too often, or ask for far
more tokens than usual.

`rules` decides, without a database; `states` is what is known of each group; `feed` holds reported
calls against it. `metering.configuration.breakers` is what people change.
"""

from metering.limits.breakers.feed import BreakerChange, ReportedCall, feed_breakers
from metering.limits.breakers.rules import BreakerRule, Call, GroupState, Transition
from metering.limits.breakers.states import (
    forget_idle_states,
    forget_probes,
    read_breaker_rules,
    try_probe,
)

__all__ = [
    "BreakerChange",
    "BreakerRule",
    "Call",
    "GroupState",
    "ReportedCall",
    "Transition",
    "feed_breakers",
    "forget_idle_states",
    "forget_probes",
    "read_breaker_rules",
    "try_probe",
]
