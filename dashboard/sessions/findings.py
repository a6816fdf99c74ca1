"""What there is to say about a session: what it cost, whether that is usual, and what made it.
Pure.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from dashboard.amounts import count, money, percent
from dashboard.findings import shortened
from dashboard.sessions.repeats import Repeats
from metering.reporting.events import cost_of
from metering.reporting.session_list import USUAL_SESSIONS_MIN
from metering.reporting.session_steps import Step

# What makes less than this share explains nothing.
SHARE_PERCENT_MIN: Final = 20
# A context that grew less than this many times did not explode.
GROWTH_MIN: Final = 3
FIRST_CALLS: Final = 3
# Within these hundredths of the usual a session is as usual.
USUAL_BAND: Final = (67, 150)
TIMES_SIGN: Final = "\u00d7"


class Usual(NamedTuple):
    """What other sessions of the same agent and feature cost: the cheapest first."""

    costs: Sequence[int]

    @property
    def is_known(self) -> bool:
        return len(self.costs) >= USUAL_SESSIONS_MIN and self.median > 0

    @property
    def median(self) -> int:
        return self.percentile(50)

    @property
    def p95(self) -> int:
        return self.percentile(95)

    def percentile(self, percent: int) -> int:
        """The nearest-rank percentile."""
        return self.costs[max(0, -(-len(self.costs) * percent // 100) - 1)] if self.costs else 0

    def dearer_than(self, nanos: int) -> int:
        """How many of them cost more."""
        return sum(cost > nanos for cost in self.costs)


class Loop(NamedTuple):
    """What an incident found of a session that repeated itself, and what it cost from then on."""

    words: str
    cost_nanos: int
    began_at: datetime | None


def headline(
    steps: Sequence[Step],
    *,
    cost_nanos: int,
    repeats: Repeats,
    loop: Loop | None,
    usual: Usual | None,
    whose: str,
) -> str:
    """One sentence on the cost against the usual (None: not read yet), and one on what made it."""
    return " ".join(
        [
            f"This session cost {money(cost_nanos)}{_compared(cost_nanos, usual, whose)}.",
            *_reasons(steps, cost_nanos, repeats, loop),
        ]
    )


def spread_words(usual: Usual) -> str:
    """What half of the sessions cost, and how much of all the costliest made."""
    words = f"Half of {len(usual.costs):,} sessions cost {money(usual.median)} or less"
    few = [cost for cost in usual.costs if cost > usual.p95]
    if not few:
        return words
    share = percent(sum(few), sum(usual.costs))
    those = "the costliest one" if len(few) == 1 else f"the costliest {len(few):,}"
    return f"{words}; {those} made {share} of their spend"


def times_usual(nanos: int, usual_nanos: int) -> str:
    """How many times the usual: with one decimal below ten."""
    tenths = (nanos * 20 + usual_nanos) // (usual_nanos * 2)
    words = f"{tenths // 10:,}" if tenths >= 100 else f"{tenths // 10}.{tenths % 10}"
    return f"{words}{TIMES_SIGN}"


def _compared(cost_nanos: int, usual: Usual | None, whose: str) -> str:
    if usual is None:
        return ""
    of = f" of {whose}" if whose else ""
    if not usual.is_known:
        return f"; there are too few earlier sessions{of} to say what is usual"
    hundredths = cost_nanos * 100 // usual.median
    low, high = USUAL_BAND
    if low <= hundredths < high:
        return f", about the usual {money(usual.median)}{of}"
    if hundredths < low:
        return f", less than the usual {money(usual.median)}{of}"
    return f", {times_usual(cost_nanos, usual.median)} the usual {money(usual.median)}{of}"


def _reasons(
    steps: Sequence[Step], cost_nanos: int, repeats: Repeats, loop: Loop | None
) -> list[str]:
    grown = _growth(steps)
    if loop is not None and loop.cost_nanos:
        while_grown = f", while its context grew {grown}" if grown else ""
        return [
            loop.words,
            f"{percent(loop.cost_nanos, cost_nanos)} was spent since the first"
            f" repeat{while_grown}.",
        ]
    if repeats.cost_nanos * 100 >= cost_nanos * SHARE_PERCENT_MIN and repeats.cost_nanos:
        calls = len(repeats.times)
        words = f"{calls:,} repeated call{'s' if calls > 1 else ''}"
        while_grown = f" while its context grew {grown}" if grown else ""
        return [
            f"{words}, mostly of {shortened(repeats.tool)}, made"
            f" {percent(repeats.cost_nanos, cost_nanos)} of it{while_grown}."
        ]
    if grown:
        return [f"Its context grew {grown}."]
    if cost_nanos <= 0:
        return []
    dearest = max(steps, key=cost_of)
    if len(steps) > 1 and cost_of(dearest) * 100 >= cost_nanos * SHARE_PERCENT_MIN:
        what = shortened(dearest.model or dearest.tool or "no named model")
        return [f"One call of {what} made {percent(cost_of(dearest), cost_nanos)} of it."]
    return [f"No single call stands out among its {len(steps):,}."] if len(steps) > 1 else []


def _growth(steps: Sequence[Step]) -> str:
    """From how many tokens to how many the input of the agent with the most calls grew."""
    by_agent: dict[str, list[int]] = {}
    for step in steps:
        if step.input_tokens:
            by_agent.setdefault(step.agent, []).append(step.input_tokens)
    inputs = max(by_agent.values(), key=len, default=[])
    # A first call is often a short one: what comes right after it is not growth yet.
    began = max(inputs[:FIRST_CALLS], default=0)
    if len(inputs) < 2 * FIRST_CALLS or max(inputs) < GROWTH_MIN * began:
        return ""
    return f"from {count(began)} to {count(max(inputs))} tokens"
