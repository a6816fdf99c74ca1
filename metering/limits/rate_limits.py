"""Rate limits: how much may be asked for within any minute, by tenant, key, user, agent …

What was asked for is in `rate_counter`, so a limit survives a restart and holds across processes.
"""

from datetime import datetime
from typing import NamedTuple

from metering.core.amounts import Amounts
from metering.core.match import Grouping, Values
from metering.limits.rate_counters import RateCounterState
from metering.models import RateLimit


class RateRule(NamedTuple):
    """One rate limit, ready to judge what is asked for."""

    id: int
    name: str
    mode: str
    grouping: Grouping
    cost_nanos_per_minute: int | None
    tokens_per_minute: int | None
    requests_per_minute: int | None

    @classmethod
    def of(cls, limit: RateLimit) -> "RateRule":
        """The rule that a stored rate limit means."""
        return cls(
            id=limit.id,
            name=limit.name,
            mode=limit.mode,
            grouping=Grouping(limit.match, limit.per),
            cost_nanos_per_minute=limit.cost_nanos_per_minute,
            tokens_per_minute=limit.tokens_per_minute,
            requests_per_minute=limit.requests_per_minute,
        )

    @property
    def subject(self) -> str:
        """What its paces are kept by."""
        return f"limit:{self.id}"

    def group(self, values: Values, *, key_prefix: str) -> str | None:
        """The group that a call with these values, asked for with this key, is counted in; None
        where the limit does not match it.
        """
        return self.grouping.group(values, key_prefix=key_prefix)

    def wait_seconds(self, pace: RateCounterState, asked: Amounts, *, now: datetime) -> int:
        """Return the number of whole seconds until the call fits into the minute; 0 if it fits now.

        A call of a tool is a request like any other here. Every part must fit; a call that is
        larger than a limit itself passes once the minute is empty (`SlidingMinute.seconds_until`).
        """
        minute = pace.minute
        minute.advance(int(now.timestamp()))
        waits = [0]
        if self.cost_nanos_per_minute is not None:
            waits.append(
                minute.seconds_until("nanos", asked.cost_nanos, self.cost_nanos_per_minute)
            )
        if self.tokens_per_minute is not None:
            waits.append(minute.seconds_until("tokens", asked.tokens, self.tokens_per_minute))
        if self.requests_per_minute is not None:
            requests = asked.requests + asked.tool_calls
            waits.append(minute.seconds_until("requests", requests, self.requests_per_minute))
        return max(waits)


def read_rate_rules(tenant_id: int) -> tuple[RateRule, ...]:
    """The tenant's rate limits as they are stored."""
    limits = RateLimit.objects.filter(tenant_id=tenant_id).order_by("id")
    return tuple(RateRule.of(limit) for limit in limits)
