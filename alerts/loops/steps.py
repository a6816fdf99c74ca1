"""What of a model call is compared with others, and when two are the same."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from alerts.loops.calls import Call, Placed
from alerts.loops.news import News
from alerts.loops.outputs import output_names

# Shorter outputs ("yes", a label) are alike by nature.
OUTPUT_TOKENS_MIN: Final = 20
# To ask a tool about one thing after another takes as many tokens each time, and each answer may be
# as long. So without a hash, shorter outputs say nothing while the input grows.
GROWING_OUTPUT_TOKENS_MIN: Final = 80

# What grows by nearly as much grows by the same.
NEAR_TOKENS: Final = 4
NEAR_INPUT_PERCENT: Final = 5


class Step(NamedTuple):
    """A successful model call, and by how much its agent's input had grown before it.

    `output` is what the output is known by, None when that says nothing; `is_sized` when that is
    its size for want of a hash.
    """

    position: int
    agent: str
    output: str | None
    is_sized: bool
    input_tokens: int
    output_tokens: int
    grown_tokens: int
    news: News


def steps_of(calls: Sequence[Placed], news: Mapping[int, News]) -> list[Step]:
    """The successful model calls as they are compared."""
    inputs: dict[str, int] = {}
    steps = []
    names = output_names(placed.call.output_hash for placed in calls)
    for (position, call), name in zip(calls, names, strict=True):
        if call.status != "success":
            continue
        before = inputs.get(call.agent, call.input_tokens)
        inputs[call.agent] = call.input_tokens
        steps.append(
            Step(
                position=position,
                agent=call.agent,
                output=_output(call, name),
                is_sized=not (name or call.tool_arguments_hash),
                input_tokens=call.input_tokens,
                output_tokens=call.output_tokens,
                grown_tokens=call.input_tokens - before,
                news=news[position],
            )
        )
    return steps


def _output(call: Call, name: str | None) -> str | None:
    """What an output is known by, including the tool call that an event may tell of."""
    if call.tool_arguments_hash:
        return f"{call.tool}({call.tool_arguments_hash}) {name or ''}"
    if name and call.output_tokens == 0:  # priced by the sender, and no tokens reported
        return name
    if call.output_tokens < OUTPUT_TOKENS_MIN:
        return None
    return name or f"{call.tool} {call.output_tokens}"


def is_same(earlier: Step, later: Step) -> bool:
    """Whether both had the same output with nothing changed before the later one."""
    if (earlier.agent, earlier.output) != (later.agent, later.output) or later.output is None:
        return False
    if later.news.before > earlier.news.asked:
        return False
    if earlier.input_tokens >= later.input_tokens:
        return earlier.input_tokens == later.input_tokens
    if min(earlier.grown_tokens, later.grown_tokens) <= 0:
        return False
    if later.is_sized:
        is_long = later.output_tokens >= GROWING_OUTPUT_TOKENS_MIN
        return is_long and earlier.grown_tokens == later.grown_tokens
    return is_near(earlier.grown_tokens, later.grown_tokens, NEAR_INPUT_PERCENT)


def is_near(tokens: int, other: int, percent: int) -> bool:
    """Whether two numbers of tokens differ by a few, or by a percentage, at most."""
    return abs(tokens - other) <= max(NEAR_TOKENS, max(tokens, other) * percent // 100)
