"""How full a window is, which levels of its budget a call would pass, and what they do about it.
Pure whole numbers.

A level is reached when `spent` is its percent of the limit, in any part. It acts when `spent +
reserved + asked` would be more than that; for `seconds`, when the window has been in use for that
long.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from metering.budgets.rules import NO_RAISE, BudgetRule, LevelRule
from metering.core.amounts import Amounts

PARTS: Final = Amounts._fields
SECONDS: Final = "seconds"
# What a call meets first of what several levels want.
SEVERITY: Final = {
    "none": 0,
    "downgrade": 1,
    "throttle": 2,
    "hold": 3,
    "block": 4,
    "lockout": 5,
}
REFUSING: Final = frozenset({"hold", "block", "lockout"})
# What stands for "infinitely full": anything spent under a limit of zero.
BEYOND_HUNDREDTHS: Final = 10_000_000_000


class WindowBalance:
    """A window as it stands within a transaction that holds its lock."""

    __slots__ = ("carried_nanos", "first_used_at", "raised", "reserved", "spent")

    def __init__(
        self,
        *,
        spent: Sequence[int] = (0, 0, 0, 0),
        reserved: Sequence[int] = (0, 0, 0, 0),
        carried_nanos: int = 0,
        first_used_at: datetime | None = None,
        raised: Sequence[int] = NO_RAISE,
    ) -> None:
        self.spent = list(spent)
        self.reserved = list(reserved)
        self.carried_nanos = carried_nanos
        self.first_used_at = first_used_at
        # What approved raises add now: cost, tokens, requests, tool calls, seconds.
        self.raised = raised

    def hold(self, amounts: Sequence[int], *, sign: int = 1) -> None:
        """Reserve amounts, or with a sign of -1 give them back."""
        for index, amount in enumerate(amounts):
            self.reserved[index] += sign * amount

    def spend(self, amounts: Sequence[int]) -> None:
        """Add what was spent."""
        for index, amount in enumerate(amounts):
            self.spent[index] += amount

    def limit(self, rule: BudgetRule, index: int) -> int | None:
        """A part's limit with all that is added to it, None where it has none."""
        limit = rule.limit_parts[index]
        if limit is None:
            return None
        return limit + self.raised[index] + (self.carried_nanos if index == 0 else 0)

    def limit_seconds(self, rule: BudgetRule) -> int | None:
        """The limit on time with what is added to it, None where it has none."""
        return None if rule.limit_seconds is None else rule.limit_seconds + self.raised[4]

    def used_seconds(self, now: datetime) -> int:
        """For how long the window has been in use."""
        if self.first_used_at is None:
            return 0
        return max(0, int((now - self.first_used_at) / timedelta(seconds=1)))


class Use(NamedTuple):
    """How full a window is by its fullest part, in percent; exact to a hundredth, never rounded
    up.
    """

    percent: Decimal
    part: str


def use_of(rule: BudgetRule, balance: WindowBalance, *, now: datetime) -> Use:
    """How full a window is: the one place that says so."""
    hundredths, part = _fullest(rule, balance, now)
    return Use(Decimal(hundredths) / 100, part)


def count_reached(rule: BudgetRule, balance: WindowBalance, *, now: datetime) -> int:
    """Return the number of levels, from the lowest, whose percentage of the limit is spent."""
    hundredths, _ = _fullest(rule, balance, now)
    return len([level for level in rule.levels if level.percent * 100 <= hundredths])


def _fullest(rule: BudgetRule, balance: WindowBalance, now: datetime) -> tuple[int, str]:
    most, part = 0, PARTS[0]
    for index in rule.limited_indexes:
        whole = balance.limit(rule, index)
        assert whole is not None
        hundredths = _hundredths(balance.spent[index], whole)
        if hundredths >= most:
            most, part = hundredths, PARTS[index]
    if (whole_seconds := balance.limit_seconds(rule)) is not None:
        hundredths = _hundredths(balance.used_seconds(now), whole_seconds)
        if hundredths >= most:
            most, part = hundredths, SECONDS
    return most, part


def _hundredths(spent: int, limit: int) -> int:
    """Return the hundredths of a percent of the limit that are spent."""
    if spent <= 0:
        return 0
    if limit <= 0:
        return BEYOND_HUNDREDTHS
    return min(BEYOND_HUNDREDTHS, spent * 10_000 // limit)


class Passed(NamedTuple):
    """A level that a call would pass, by the part that is fullest there."""

    level: LevelRule
    part: str
    # What the part may be at this level, what it is, and what is asked; nanos, counts or seconds.
    limit: int
    spent: int
    reserved: int
    asked: int


def passed_level(
    rule: BudgetRule,
    balance: WindowBalance,
    asked: Amounts,
    *,
    now: datetime,
    limit_percent: int = 100,
) -> Passed | None:
    """Return the level whose action a call meets: the most severe of the acting levels that it
    would pass, and of equals the lowest. None if it would pass none.

    `limit_percent` below 100 is a limit reduction: limits count that much less.
    """
    met = None
    for level in rule.acting_levels:
        index = _passed_place(rule, balance, asked, level.percent * limit_percent, now)
        if index is None:
            # Nor would it pass those above.
            break
        if met is None or SEVERITY[level.action] > SEVERITY[met[0].action]:
            met = level, index
    if met is None:
        return None
    level, index = met
    percent = level.percent * limit_percent
    if index == len(PARTS):
        limit = (balance.limit_seconds(rule) or 0) * percent // 10_000
        return Passed(level, SECONDS, limit, balance.used_seconds(now), 0, 0)
    return Passed(
        level,
        PARTS[index],
        (balance.limit(rule, index) or 0) * percent // 10_000,
        balance.spent[index],
        balance.reserved[index],
        asked[index],
    )


def passes_a_level(
    rule: BudgetRule,
    balance: WindowBalance,
    asked: Amounts,
    *,
    now: datetime,
    limit_percent: int = 100,
) -> bool:
    """Whether a call would pass any level that acts. Few do, so this is asked first."""
    levels = rule.acting_levels
    if not levels:
        return False
    return _passed_place(rule, balance, asked, levels[0].percent * limit_percent, now) is not None


def _passed_place(
    rule: BudgetRule, balance: WindowBalance, asked: Amounts, percent: int, now: datetime
) -> int | None:
    """Return the first part that would be beyond hundredths of a percent of its limit."""
    spent, reserved = balance.spent, balance.reserved
    for index in rule.limited_indexes:
        whole = balance.limit(rule, index)
        assert whole is not None
        if (spent[index] + reserved[index] + asked[index]) * 10_000 > percent * whole:
            return index
    if rule.limit_seconds is None:
        return None
    whole_seconds = balance.limit_seconds(rule)
    if whole_seconds is None or balance.first_used_at is None:
        return None
    return len(PARTS) if balance.used_seconds(now) * 10_000 >= percent * whole_seconds else None


def throttle_rate(
    rule: BudgetRule,
    level: LevelRule,
    balance: WindowBalance,
    *,
    ends_at: datetime | None,
    now: datetime,
) -> tuple[int | None, int | None]:
    """What a throttling level lets through within a minute: (nanos, tokens), None for no rate.

    Where the level names no rate it is what is left of the limit, spread evenly over what is left
    of the window; a hundredth of the limit a minute where the window does not end.
    """
    if level.cost_nanos_per_minute is not None or level.tokens_per_minute is not None:
        return level.cost_nanos_per_minute, level.tokens_per_minute
    return (
        _even_rate(rule, balance, 0, ends_at=ends_at, now=now),
        _even_rate(rule, balance, 1, ends_at=ends_at, now=now),
    )


def _even_rate(
    rule: BudgetRule, balance: WindowBalance, index: int, *, ends_at: datetime | None, now: datetime
) -> int | None:
    whole = balance.limit(rule, index)
    if whole is None:
        return None
    if ends_at is None:
        return max(1, whole // 100)
    left = max(0, whole - balance.spent[index] - balance.reserved[index])
    seconds = max(60, int((ends_at - now) / timedelta(seconds=1)))
    return max(1, left * 60 // seconds)
