"""What is only a suspicion, as honest work looks like it too."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median_low
from typing import Final

from alerts.loops.calls import Evidence, Kind, Placed, Strength, by_agent

TOOL_WINDOW: Final = 20
TOOL_CALLS_MIN: Final = 10
DOMINANT_PERCENT: Final = 80
STILL_CALLS: Final = 12
STILL_OUTPUT_PERCENT: Final = 10
STILL_GROWTH_PERCENT: Final = 5
STILL_SLACK_TOKENS: Final = 4
GROWING_CALLS: Final = 12
GROWN_TIMES: Final = 4


def dominant_tool(calls: Sequence[Placed]) -> Iterator[Evidence]:
    """One tool makes up over 80% of an agent's latest tool calls, and not for a list of things."""
    for own in by_agent(calls, lambda placed: bool(placed.call.tool)).values():
        latest = own[-TOOL_WINDOW:]
        (tool, count), *_ = Counter(placed.call.tool for placed in latest).most_common(1)
        uses = [placed for placed in latest if placed.call.tool == tool]
        if (
            len(latest) >= TOOL_CALLS_MIN
            and count * 100 > DOMINANT_PERCENT * len(latest)
            and not _is_batch(uses)
        ):
            what = f"{tool} is {count} of the latest {len(latest)} tool calls"
            yield _suspicion(Kind.DOMINANT_TOOL, uses, what)


def _is_batch(uses: Sequence[Placed]) -> bool:
    """Whether the calls are known to be mostly different, or to have had different results."""
    return any(
        len(set(known)) * 2 > len(uses)
        for known in (
            [use.call.tool_arguments_hash for use in uses if use.call.tool_arguments_hash],
            [use.call.output_hash for use in uses if use.call.output_hash],
        )
    )


def no_progress(calls: Sequence[Placed]) -> Iterator[Evidence]:
    """An agent's latest model calls are all alike: as much more in, as much out.

    Inputs that stay as they are say nothing: that is how a batch looks.
    """
    for own in by_agent(calls, _has_succeeded).values():
        latest = own[-STILL_CALLS:]
        outputs = [placed.call.output_tokens for placed in latest]
        inputs = [placed.call.input_tokens for placed in latest]
        grown = [after - before for before, after in pairwise(inputs)]
        if (
            len(latest) == STILL_CALLS
            and median_low(grown) > STILL_SLACK_TOKENS
            and _are_near(outputs, STILL_OUTPUT_PERCENT)
            and _are_near(grown, STILL_GROWTH_PERCENT)
        ):
            what = (
                f"The latest {STILL_CALLS} model calls are alike: about {median_low(outputs)}"
                f" tokens out, and {median_low(grown)} more in each time"
            )
            yield _suspicion(Kind.NO_PROGRESS, latest, what)


def growing_context(calls: Sequence[Placed]) -> Iterator[Evidence]:
    """An agent's input has only grown over its latest dozen model calls, to four times as much."""
    for own in by_agent(calls, _has_succeeded).values():
        start = len(own) - 1
        while start > 0 and own[start - 1].call.input_tokens <= own[start].call.input_tokens:
            start -= 1
        run = own[start:]
        before, after = run[0].call.input_tokens, run[-1].call.input_tokens
        if len(run) >= GROWING_CALLS and after >= GROWN_TIMES * before > 0:
            what = (
                f"The input only grew over {len(run)} model calls, from {before} to {after} tokens"
            )
            yield _suspicion(Kind.GROWING_CONTEXT, run, what)


def _has_succeeded(placed: Placed) -> bool:
    return placed.call.status == "success"


def _are_near(values: Sequence[int], percent: int) -> bool:
    middle = median_low(values)
    slack = max(STILL_SLACK_TOKENS, abs(middle) * percent // 100)
    return all(abs(value - middle) <= slack for value in values)


def _suspicion(kind: Kind, calls: Sequence[Placed], what: str) -> Evidence:
    return Evidence(
        kind=kind,
        strength=Strength.SUSPECT,
        first_repeat=calls[1].position,
        detected=calls[-1].position,
        last=calls[-1].position,
        calls=len(calls),
        what=what,
    )
