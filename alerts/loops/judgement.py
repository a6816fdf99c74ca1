"""The verdict on a session: what was noticed, whether it is a loop, and what it costs."""

from collections.abc import Iterator, Sequence
from typing import Final

from alerts.loops.calls import (
    CALLS_MAX,
    Call,
    Evidence,
    Kind,
    Placed,
    SessionVerdict,
    Strength,
    is_model_call,
)
from alerts.loops.failures import LOOP_FAILURES, failing_retries
from alerts.loops.habits import (
    STILL_CALLS,
    TOOL_CALLS_MIN,
    dominant_tool,
    growing_context,
    no_progress,
)
from alerts.loops.model_calls import UNCHANGED_CALLS, repeated_model_calls
from alerts.loops.money import Bill
from alerts.loops.news import news_by_position
from alerts.loops.tool_calls import repeated_tool_calls
from alerts.loops.waits import pauses_by_position, waits_in_vain

# A loop has ended when this many later calls of its agent no longer belong to it.
ENDED_CALLS: Final = 10
# The fewest repeats that any rule takes for a loop: a call that came a third time unchanged.
REPEATS_MIN: Final = UNCHANGED_CALLS - 1
# One tool alone, and steps that are all alike: neither proves a loop, both together do.
TOGETHER: Final = frozenset({Kind.DOMINANT_TOOL, Kind.NO_PROGRESS})


def may_loop(calls: int, repeats: int, failures: int, tool_calls: int) -> bool:
    """Return whether a session can be in a loop, by the number of its calls and of those that
    repeat another one, failed or called a tool. `judge` finds no loop where this is false.
    """
    return (
        repeats >= REPEATS_MIN
        or failures >= LOOP_FAILURES
        or (tool_calls >= TOOL_CALLS_MIN and calls >= STILL_CALLS)
    )


def judge(calls: Sequence[Call]) -> SessionVerdict | None:
    """Return the verdict on one session's calls, in any order; None if nothing was noticed.

    At most the latest CALLS_MAX are judged, so figures of a longer session cover only these.
    Model and tool calls are judged apart, so that either may come between the others.
    """
    ordered = sorted(calls, key=lambda call: (call.at, call.step or 0))[-CALLS_MAX:]
    evidence = list(_combined(list(_noticed(ordered))))
    if not evidence:
        return None
    loops = [item for item in evidence if item.is_loop]
    bill = Bill(ordered)
    return SessionVerdict(
        is_loop=bool(loops),
        is_ongoing=any(_goes_on(loop, ordered) for loop in loops),
        findings=tuple(bill.priced(item) for item in sorted(evidence, key=_rank)),
        cost_nanos=bill.cost_nanos,
        wasted_nanos=bill.cost_from(_first_repeat(loops or evidence, len(ordered))),
        nanos_per_call=bill.nanos_per_call(),
        projected_nanos_per_hour=bill.nanos_per_hour(),
    )


def _noticed(ordered: Sequence[Call]) -> Iterator[Evidence]:
    placed = [Placed(index, call) for index, call in enumerate(ordered)]
    model_calls = [item for item in placed if is_model_call(item.call)]
    yield from repeated_model_calls(model_calls, news_by_position(placed))
    pauses = pauses_by_position(placed)
    repeated = list(repeated_tool_calls([item for item in placed if item.call.tool], pauses))
    yield from repeated
    if not any(item.is_loop for item in repeated):
        yield from waits_in_vain(placed)
    yield from failing_retries(placed, pauses)
    yield from dominant_tool(placed)
    yield from no_progress(model_calls)
    yield from growing_context(model_calls)


def _combined(noticed: Sequence[Evidence]) -> Iterator[Evidence]:
    kinds = {item.kind for item in noticed}
    for item in noticed:
        proves = item.kind in TOGETHER and kinds >= TOGETHER
        yield item._replace(strength=Strength.LOOP) if proves else item


def _goes_on(loop: Evidence, ordered: Sequence[Call]) -> bool:
    agent = ordered[loop.last].agent
    return sum(call.agent == agent for call in ordered[loop.last + 1 :]) < ENDED_CALLS


def _rank(evidence: Evidence) -> tuple[bool, int]:
    """Loops first, and what was found first before the rest."""
    return not evidence.is_loop, evidence.detected


def _first_repeat(evidence: Sequence[Evidence], calls: int) -> int:
    """Return from where on money was wasted; nowhere if only the context grew."""
    wasteful = [item.first_repeat for item in evidence if item.kind is not Kind.GROWING_CONTEXT]
    return min(wasteful, default=calls)
