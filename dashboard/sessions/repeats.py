"""Which calls of a session repeat an earlier one. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from alerts.loops.outputs import output_names
from metering.models import Operation
from metering.reporting.events import cost_of
from metering.reporting.session_steps import Step


class Repeats(NamedTuple):
    """The calls that repeat another one, and by id how often it was made by then: from 2 on.

    A tool call repeats one of the same agent with the same arguments, a model call one with the
    same output. The model call right before a repeated tool call asked for it, and counts with it.
    `tool` is what was repeated most.
    """

    times: dict[int, int]
    cost_nanos: int
    tool: str


def repeats_of(steps: Sequence[Step]) -> Repeats:
    """Find the repeats among calls in order of time."""
    made: Counter[tuple[str, ...]] = Counter()
    tools: Counter[str] = Counter()
    times: dict[int, int] = {}
    asked_by: dict[str, Step] = {}
    outputs = output_names(step.output_hash for step in steps)
    for step, output in zip(steps, outputs, strict=True):
        if step.is_void:
            continue
        is_tool = step.operation == Operation.TOOL
        hashed = step.tool_arguments_hash if is_tool else output
        if hashed:
            key = (step.agent, step.tool if is_tool else step.model, str(is_tool), hashed)
            made[key] += 1
            if made[key] > 1:
                times[step.id] = made[key]
                tools[step.tool if is_tool else step.model] += 1
                if is_tool and (asking := asked_by.get(step.agent)) is not None:
                    times.setdefault(asking.id, made[key])
        if is_tool:
            asked_by.pop(step.agent, None)
        else:
            asked_by[step.agent] = step
    cost_nanos = sum(cost_of(step) for step in steps if step.id in times)
    most = min(tools, key=lambda name: (-tools[name], name), default="")
    return Repeats(times, cost_nanos, most)
