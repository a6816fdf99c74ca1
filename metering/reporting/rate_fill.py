"""How much of its minute each rate limit has used, by its fullest group."""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from metering.limits.halts import match_of_group
from metering.limits.rate_counters import MEASURES, SLOTS, SlidingMinute
from metering.limits.rate_limits import RateRule
from metering.models import RateCounter

# The groups that are looked at, those that asked last first.
GROUPS_MAX: Final = 500


class RateFill(NamedTuple):
    """The fullest group of a rate limit within the last minute, in percent of the limit."""

    group_key: str
    percent: Decimal


def read_rate_fills(
    tenant_id: int,
    rules: Iterable[RateRule],
    *,
    now: datetime,
    may_see: Callable[[Mapping[str, object]], bool] = lambda match: True,
) -> Mapping[int, RateFill]:
    """The fullest group by rate limit, of those whose match may be seen; none where nothing was
    asked for within the minute.
    """
    by_subject = {rule.subject: rule for rule in rules}
    second = int(now.timestamp())
    counters = RateCounter.objects.filter(
        tenant_id=tenant_id, subject__in=by_subject, last_second__gt=second - SLOTS
    )
    fills: dict[int, RateFill] = {}
    for row in counters.order_by("-last_second")[:GROUPS_MAX]:
        rule = by_subject[row.subject]
        group = json.loads(row.group_key)
        if not may_see(match_of_group(rule.grouping.match, rule.grouping.per, group)):
            continue
        amounts = (row.nanos, row.tokens, row.requests)
        minute = SlidingMinute(
            row.last_second,
            {name: list(map(int, slots)) for name, slots in zip(MEASURES, amounts, strict=True)},
        )
        minute.advance(second)
        limits = (rule.cost_nanos_per_minute, rule.tokens_per_minute, rule.requests_per_minute)
        percent = max(
            Decimal(minute.sums[name]) * 100 / limit
            for name, limit in zip(MEASURES, limits, strict=True)
            if limit
        )
        known = fills.get(rule.id)
        if percent > 0 and (known is None or percent > known.percent):
            fills[rule.id] = RateFill(row.group_key, percent)
    return fills
