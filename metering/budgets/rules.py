"""A budget compiled for speed: what it matches, its periods, limits and levels."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from metering.core.amounts import Amounts
from metering.core.dimensions import REQUEST
from metering.core.match import POSITION, Values, group_getter, wanted_of
from metering.core.periods import GRAIN_SECONDS, ROLLING_SECONDS, PeriodClock, Span, floor_seconds
from metering.models import Budget, BudgetLevel, LimitIncrease

# What raises add to cost, tokens, requests, tool calls and seconds.
Raised = tuple[int, int, int, int, int]
NO_RAISE: Final[Raised] = (0, 0, 0, 0, 0)


class LevelRule(NamedTuple):
    """A level of a budget."""

    percent: int
    action: str
    notify: tuple[str, ...]
    # Of `throttle`: what may be asked for within any minute.
    cost_nanos_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @classmethod
    def of(cls, level: BudgetLevel) -> "LevelRule":
        """Return the rule of a stored level."""
        return cls(
            level.percent,
            level.action,
            tuple(level.notify),
            level.cost_nanos_per_minute,
            level.tokens_per_minute,
        )


class LimitIncreaseRule(NamedTuple):
    """An approved raise of a budget's limits: for a group (empty: all), for a while, by how
    much.
    """

    budget_id: int
    group_key: str
    starts_at: datetime
    ends_at: datetime
    cost_nanos: int
    tokens: int
    requests: int
    tool_calls: int
    seconds: int

    @classmethod
    def of(cls, row: LimitIncrease) -> "LimitIncreaseRule":
        """Return the rule of a stored limit increase that was approved."""
        assert row.starts_at is not None, "an approved increase has begun"
        return cls(
            budget_id=row.budget_id,
            group_key=row.group_key,
            starts_at=row.starts_at,
            ends_at=row.ends_at,
            cost_nanos=row.add_cost_nanos,
            tokens=row.add_tokens,
            requests=row.add_requests,
            tool_calls=row.add_tool_calls,
            seconds=row.add_seconds,
        )


class BudgetRule:
    """One budget, ready to judge events."""

    def __init__(
        self,
        budget: Budget,
        levels: Sequence[LevelRule],
        raises: Sequence[LimitIncreaseRule] = (),
    ) -> None:
        self.id = budget.id
        self.name = budget.name
        self.revision = budget.revision
        self.mode = budget.mode
        self.is_managed = budget.managed_by != ""
        self.per = tuple(budget.per)
        self.match = dict(budget.match)
        self.limits = {
            "cost_nanos": budget.limit_cost_nanos,
            "tokens": budget.limit_tokens,
            "requests": budget.limit_requests,
            "tool_calls": budget.limit_tool_calls,
        }
        self.limit_seconds = budget.limit_seconds
        self.levels = tuple(levels)
        self.raises = tuple(raises)
        # For judging calls: limits in the order of Amounts, and levels that do something.
        self.limit_parts = tuple(self.limits.values())
        self.limited_indexes = [
            index for index, limit in enumerate(self.limit_parts) if limit is not None
        ]
        self.acting_levels = [level for level in self.levels if level.action != "none"]
        self.throttles = [level for level in self.levels if level.action == "throttle"]
        self.downgrade_percent = min(
            (level.percent for level in self.levels if level.action == "downgrade"), default=None
        )
        self.refuses = any(
            level.action in ("hold", "block", "lockout") for level in self.acting_levels
        )
        self.counts_from = budget.counts_from
        # Whether the past may not be in its windows yet; `metering.ledger.counting` knows how much.
        self.is_counting = budget.is_counting
        self.period = budget.period
        self.is_rolling = budget.is_rolling
        self.has_rollover = budget.has_rollover
        self.rollover_max_percent = budget.rollover_max_percent
        self.is_per_request = REQUEST in self.per
        self.clock = PeriodClock(
            period="lifetime" if budget.is_rolling or self.is_per_request else budget.period,
            timezone=budget.timezone,
            anchor_at=budget.anchor_at,
        )
        # What tells its groups apart.
        self.dimensions = tuple(name for name in self.per if name != REQUEST)
        self.places = [POSITION[name] for name in self.dimensions]
        self.wanted = wanted_of(self.match)
        self._group = group_getter(self.places)

    def group(self, values: Values) -> Values | None:
        """The values of the budget's group for an event, or None where the budget does not match
        it.
        """
        for index, wanted in self.wanted:
            if values[index] not in wanted:
                return None
        return self._group(values)

    def span(self, at: datetime) -> Span | None:
        """The period that an event of this time counts in; None for times before the budget
        counts.
        """
        if at < self.counts_from:
            return None
        return self.clock.span(at)

    def raised(self, group_key: str, now: datetime) -> Raised:
        """What approved raises add to a group's limits at a time."""
        if not self.raises:
            return NO_RAISE
        cost = tokens = requests = tool_calls = seconds = 0
        for each in self.raises:
            if each.starts_at <= now < each.ends_at and each.group_key in ("", group_key):
                cost += each.cost_nanos
                tokens += each.tokens
                requests += each.requests
                tool_calls += each.tool_calls
                seconds += each.seconds
        return cost, tokens, requests, tool_calls, seconds

    def grain_at(self, at: datetime) -> datetime:
        """The portion of a rolling window that usage of this time leaves with."""
        return floor_seconds(at, GRAIN_SECONDS[self.period])

    def counted_from(self, now: datetime) -> datetime:
        """A rolling window: usage before this moment has left it."""
        length = timedelta(seconds=ROLLING_SECONDS[self.period])
        return floor_seconds(now - length, GRAIN_SECONDS[self.period])


def reaches_a_level(rule: BudgetRule, amounts: Amounts) -> bool:
    """Whether one call alone reaches the lowest level of a budget on single calls."""
    lowest = rule.levels[0].percent if rule.levels else 100
    return any(
        limit is not None and used > 0 and used * 100 >= lowest * limit
        for used, limit in zip(amounts, rule.limits.values(), strict=True)
    )
