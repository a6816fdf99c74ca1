"""A budget's rule as a sentence. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dashboard.amounts import listed
from dashboard.findings import shortened
from metering.budgets.levels import REFUSING
from metering.budgets.rules import BudgetRule, LevelRule
from metering.core.amounts import format_amount
from metering.core.dimensions import REQUEST
from metering.core.match import wanted_values
from metering.models import Budget, Mode, Period

VALUES_NAMED: Final = 3
PARTS: Final = ("cost_nanos", "tokens", "requests", "tool_calls", "seconds")
ACTION_WORDS: Final = {
    "none": "notify",
    "throttle": "slow calls down",
    "downgrade": "offer a cheaper model",
    "hold": "hold calls and request an increase",
    "block": "block",
    "lockout": "lock out",
}
CONTACT_WORDS: Final = {"team_lead": "team leads"}
MODE_GROUPS: Final = {
    Mode.ENFORCE.value: "Blocks calls at the limit",
    Mode.WARN.value: "Warns only",
    Mode.SHADOW.value: "Shadow: measured, never acts",
}
MODE_BADGES: Final = {
    Mode.ENFORCE.value: "Blocks",
    Mode.WARN.value: "Warns",
    Mode.SHADOW.value: "Shadow",
}


def refuses(rule: BudgetRule) -> bool:
    """Whether calls are refused once a window is exhausted."""
    return rule.mode == Mode.ENFORCE and rule.refuses


def values_words(values: Iterable[str]) -> str:
    """Some values of one dimension: "research or growth", "any of 12 values"."""
    named = sorted(values)
    if len(named) > VALUES_NAMED:
        return f"any of {len(named)} values"
    return listed([shortened(value) if value else "(none)" for value in named], "or")


def match_words(match: Mapping[str, object]) -> str:
    """What a budget counts: "team research, feature search"; empty for all usage."""
    return ", ".join(
        f"{name} {values_words(wanted_values(wanted))}" for name, wanted in match.items()
    )


def scope_words(match: Mapping[str, object], per: Sequence[str], period: str) -> str:
    """The same in a line below a name: "per agent · team research · day"."""
    each = f"per {listed([*per])}" if per else ""
    return " · ".join(filter(None, [each, match_words(match) or "all usage", period]))


def limits_words(budget: Budget) -> str:
    """The limit: "$50.00 or 20,000 tokens"."""
    limits = [(part, getattr(budget, f"limit_{part}")) for part in PARTS]
    return listed(
        [
            format_amount(part, limit).removesuffix(".00")
            for part, limit in limits
            if limit is not None
        ],
        "or",
    )


def period_words(budget: Budget) -> str:
    """How long the limit lasts: "a day", "in any 30 days", "in total"."""
    if REQUEST in budget.per:
        return ""
    if budget.period == Period.LIFETIME:
        return "in total"
    return f"within any {budget.period}" if budget.is_rolling else f"per {budget.period}"


def contacts_words(names: Sequence[str]) -> str:
    """Whom a level notifies: "team leads and finance"."""
    return listed([CONTACT_WORDS.get(name, shortened(name)) for name in names])


def level_words(level: LevelRule) -> str:
    """A level: "at 70% notify team leads", "at 100% block"."""
    whom = contacts_words(level.notify)
    action = ACTION_WORDS.get(level.action, level.action)
    if level.action == "none":
        return f"at {level.percent}% notify {whom or 'the channels'}"
    return f"at {level.percent}% {action}" + (f" and notify {whom}" if whom else "")


def rule_words(budget: Budget, levels: Sequence[LevelRule]) -> str:
    """The whole rule in one sentence or two."""
    names = [name if name != REQUEST else "single call" for name in budget.per]
    whose = f"Each {listed(names)}" if names else "All usage together"
    counted = match_words(budget.match)
    of = f" of {counted}" if counted else ""
    parts = [f"{whose}{of} may use {limits_words(budget)}", period_words(budget)]
    sentence = " ".join(filter(None, parts)) + "."
    if not levels:
        return sentence
    told = "; ".join(level_words(level) for level in levels)
    return f"{sentence} {told[0].upper()}{told[1:]}."


def refusing_percent(levels: Iterable[LevelRule]) -> int | None:
    """From which share of the limit on calls are refused; None: they never are."""
    return min((level.percent for level in levels if level.action in REFUSING), default=None)
