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
from alerts.loops.failures import failing_retries
from alerts.loops.habits import dominant_tool, growing_context, no_progress
from alerts.loops.model_calls import repeated_model_calls
from alerts.loops.money import Bill
from alerts.loops.news import news_by_position
from alerts.loops.tool_calls import repeated_tool_calls
from alerts.loops.waits import pauses_by_position, waits_in_vain

# A loop has ended when so many later calls of its agent no longer belong to it.
ENDED_CALLS: Final = 10
# One tool alone, and steps that are all alike: neither proves a loop, both together do.
TOGETHER: Final = frozenset({Kind.DOMINANT_TOOL, Kind.NO_PROGRESS})


def judge(calls: Sequence[Call]) -> SessionVerdict | None:
    """What is to be said of one session's calls, in any order; None when there is nothing.

    At most the latest CALLS_MAX are judged, so figures of a longer session cover these alone.
    Model and tool calls are judged apart, so that either may come between the others.
    """
    ordered = sorted(calls, key=lambda one: (one.at, one.step or 0))[-CALLS_MAX:]
    found = list(_combined(list(_noticed(ordered))))
    if not found:
        return None
    loops = [one for one in found if one.strength is Strength.LOOP]
    bill = Bill(ordered)
    return SessionVerdict(
        is_loop=bool(loops),
        is_ongoing=any(_goes_on(one, ordered) for one in loops),
        findings=tuple(bill.priced(one) for one in sorted(found, key=_weight)),
        cost_nanos=bill.cost_nanos,
        wasted_nanos=bill.cost_from(_first_repeat(loops or found, len(ordered))),
        nanos_per_call=bill.nanos_per_call(),
        projected_nanos_per_hour=bill.nanos_per_hour(),
    )


def _noticed(ordered: Sequence[Call]) -> Iterator[Evidence]:
    placed = [Placed(index, call) for index, call in enumerate(ordered)]
    model_calls = [one for one in placed if is_model_call(one.call)]
    yield from repeated_model_calls(model_calls, news_by_position(placed))
    pauses = pauses_by_position(placed)
    repeated = list(repeated_tool_calls([one for one in placed if one.call.tool], pauses))
    yield from repeated
    if all(one.strength is not Strength.LOOP for one in repeated):
        yield from waits_in_vain(placed)
    yield from failing_retries(placed, pauses)
    yield from dominant_tool(placed)
    yield from no_progress(model_calls)
    yield from growing_context(model_calls)


def _combined(found: Sequence[Evidence]) -> Iterator[Evidence]:
    kinds = {one.kind for one in found}
    for one in found:
        proves = one.kind in TOGETHER and kinds >= TOGETHER
        yield one._replace(strength=Strength.LOOP) if proves else one


def _goes_on(loop: Evidence, ordered: Sequence[Call]) -> bool:
    agent = ordered[loop.last].agent
    return sum(one.agent == agent for one in ordered[loop.last + 1 :]) < ENDED_CALLS


def _weight(one: Evidence) -> tuple[bool, int]:
    """Loops first, and what was found first before the rest."""
    return one.strength is not Strength.LOOP, one.found


def _first_repeat(found: Sequence[Evidence], calls: int) -> int:
    """From where on money was wasted; nowhere when only the context grew."""
    wasteful = [one.first_repeat for one in found if one.kind is not Kind.GROWING_CONTEXT]
    return min(wasteful, default=calls)
