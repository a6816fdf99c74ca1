"""Breakers: they open by themselves for whoever spends too fast, fails too often, or asks for far
more tokens than usual.

`rules` decides, without a database; `states` is what is known of each group; `feed` holds reported
calls against it. `metering.configuration.breakers` is what people change.
"""

from metering.limits.breakers.feed import BreakerChange, ReportedCall, feed_breakers
from metering.limits.breakers.rules import BreakerRule, Call, Turn, Watch
from metering.limits.breakers.states import (
    forget_idle_states,
    forget_trial,
    read_breaker_rules,
    try_trial,
)

__all__ = [
    "BreakerChange",
    "BreakerRule",
    "Call",
    "ReportedCall",
    "Turn",
    "Watch",
    "feed_breakers",
    "forget_idle_states",
    "forget_trial",
    "read_breaker_rules",
    "try_trial",
]
