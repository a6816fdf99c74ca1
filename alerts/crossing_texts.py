"""Describe a window that has reached a level, in the figures of now."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from alerts.models import Severity
from common.formats import format_time
from common.json_bodies import JsonObject
from common.money import money
from metering.budgets.levels import SECONDS, use_of
from metering.budgets.rules import BudgetRule
from metering.core.dimensions import REQUEST
from metering.ledger.windows import balance_of, state_of
from metering.models import Action, Budget, BudgetWindow, FellBy, Mode

STOPPING: Final = frozenset({Action.HOLD, Action.BLOCK, Action.LOCKOUT})
CONSEQUENCES: Final[Mapping[str, str]] = {
    Action.NONE: "Calls continue.",
    Action.THROTTLE: "New calls are slowed down.",
    Action.DOWNGRADE: "New calls get a cheaper model.",
    Action.HOLD: "New calls wait until a person allows more.",
    Action.BLOCK: "New calls are refused.",
    Action.LOCKOUT: "New calls are refused until the period ends or a person lifts the halt.",
}
MODE_NOTES: Final[Mapping[str, str]] = {
    Mode.SHADOW: "The budget is in shadow mode: nothing was stopped.",
    Mode.WARN: "The budget only warns: nothing was stopped.",
}
# Why a level is no longer reached.
FALLS: Final[Mapping[str, str]] = {
    FellBy.LIMIT: "The limit was raised.",
    FellBy.LEVELS: "The budget's levels or mode were changed.",
    FellBy.INCREASE: "A limit increase was approved.",
    FellBy.SPEND: "Spend was corrected.",
    FellBy.AGED: "The spend of the rolling period fell below the level.",
    FellBy.CARRIED: "More was carried over from the period before.",
}


class Figures(NamedTuple):
    """A window's spend and limit now; the limit with increases and what was carried over."""

    # Rounded down, so that no one reads of a limit that is reached before it is.
    percent: float
    spent_nanos: int
    limit_nanos: int | None
    # Of the fullest part: "$10.50 of $10.00", "1,200 of 1,000 tokens".
    amounts: str
    # What is used: a limit, or the credit of a wallet.
    whole: str = "limit"

    @property
    def label(self) -> str:
        return f"{int(self.percent):,}% of the {self.whole} used: {self.amounts}"

    @property
    def excess_nanos(self) -> int | None:
        """What was spent beyond the limit; None without a limit on cost."""
        return None if self.limit_nanos is None else max(0, self.spent_nanos - self.limit_nanos)


class Reached(NamedTuple):
    """A level that a window has reached, and what it does."""

    budget: Budget
    window: BudgetWindow
    percent: int
    action: str
    mode: str
    figures: Figures


def figures_of(rule: BudgetRule, window: BudgetWindow, now: datetime) -> Figures:
    """Return what is spent in a window now, of which limit."""
    balance = balance_of(rule, state_of(window), now=now)
    use = use_of(rule, balance, now=now)
    if use.part == SECONDS:
        amounts = f"{balance.used_seconds(now):,} of {balance.limit_seconds(rule):,} seconds"
    else:
        index = list(rule.limits).index(use.part)
        whole = balance.limit(rule, index)
        if index == 0:
            amounts = money(balance.spent[0]) + ("" if whole is None else f" of {money(whole)}")
        else:
            amounts = f"{balance.spent[index]:,} of {whole:,} {use.part.replace('_', ' ')}"
    return Figures(
        percent=float(use.percent),
        spent_nanos=window.spent_nanos,
        limit_nanos=balance.limit(rule, 0),
        amounts=amounts,
        whole="credit" if rule.is_managed else "limit",
    )


def severity_of(reached: Reached) -> Severity:
    """Return critical if calls are stopped, information if the budget only watches."""
    if reached.mode == Mode.SHADOW:
        return Severity.INFO
    if reached.mode == Mode.ENFORCE and reached.action in STOPPING:
        return Severity.CRITICAL
    return Severity.WARNING


def title_of(reached: Reached) -> str:
    """Name the level, and the group that reached it."""
    if reached.budget.managed_by:
        return f"{reached.budget.name} is {reached.percent}% used"
    group: Sequence[str] = json.loads(reached.window.group_key)
    named = [
        f"{name} {value!r}" if value else f"no {name}"
        for name, value in zip(reached.budget.per, group, strict=True)
        if name != REQUEST
    ]
    subject = f" for {', '.join(named)}" if named else ""
    return f"Budget {reached.budget.name!r} reached {reached.percent}%{subject}"


def summary_of(reached: Reached, now: datetime) -> str:
    """Say how full the window is now, and what that means for calls."""
    window, figures = reached.window, reached.figures
    if window.ends_at is not None and window.ends_at <= now:
        period = f"{format_time(window.starts_at)} to {format_time(window.ends_at)}"
        return f"In the period from {period}, which is over, {figures.label}."
    # A window without an end begins at the epoch.
    since = f" since {format_time(window.starts_at)}" if window.ends_at else ""
    until = f" The period ends {format_time(window.ends_at)}." if window.ends_at else ""
    if window.level_percent < reached.percent:
        why = FALLS.get(window.fell_by, "")
        return f"{why} {figures.label}{since}: below the level again.{until}".lstrip()
    consequence = MODE_NOTES.get(reached.mode) or CONSEQUENCES[reached.action]
    return f"{figures.label}{since}. {consequence}{until}"


def facts_of_level(reached: Reached, episode: int) -> JsonObject:
    """Return the same for programs."""
    window, figures = reached.window, reached.figures
    return {
        "budget_id": reached.budget.id,
        "budget": reached.budget.name,
        "window_id": window.id,
        "episode": episode,
        "level_percent": reached.percent,
        "used_percent": figures.percent,
        "action": reached.action,
        "mode": reached.mode,
        "spent_nanos": figures.spent_nanos,
        "limit_nanos": figures.limit_nanos,
        "window_start": window.starts_at.isoformat(),
        "window_end": window.ends_at.isoformat() if window.ends_at else None,
    }
