"""Budgets that are ready to use: one word instead of a dozen fields, each of which may be
overridden.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from metering.budgets.rules import LevelRule
from metering.models import Action, Mode, Period


class Preset(NamedTuple):
    """What a budget has unless its creator says otherwise."""

    description: str
    fields: Mapping[str, object]
    levels: tuple[LevelRule, ...]


PRESETS: Final[Mapping[str, Preset]] = {
    "session": Preset(
        description="Stops each session at 20,000 tokens, 15 tool calls, $0.50 or 120 seconds,"
        " whichever comes first. Calls without a session share one of these limits, so that leaving"
        " the session out escapes nothing: name it in every call.",
        fields={
            "name": "Session limits",
            "per": ["session"],
            # A session that lives over midnight gets no second budget.
            "period": Period.LIFETIME.value,
            "limit_cost_nanos": 500_000_000,
            "limit_tokens": 20_000,
            "limit_tool_calls": 15,
            "limit_seconds": 120,
            "mode": Mode.ENFORCE.value,
        },
        levels=(
            LevelRule(80, Action.NONE.value, ("engineering",)),
            LevelRule(100, Action.BLOCK.value, ("engineering",)),
        ),
    )
}
