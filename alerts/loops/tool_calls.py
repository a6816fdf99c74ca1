"""Find tool calls with the same arguments that repeat, and tell them from polling.

A tool call repeats an earlier one of its agent when tool and arguments are the same, unless the
agent waited in between or the result changed: that is polling. Tool calls without a hash of their
arguments are judged by the model calls around them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from alerts.loops.calls import Call, Evidence, Kind, Placed, Strength
from alerts.loops.chains import chain_around
from alerts.loops.outputs import output_names

WINDOW_CALLS: Final = 10

SUSPECT_WINDOW: Final = 5
SUSPECT_CALLS: Final = 3
IN_A_ROW: Final = 4
# Retries are meant to fail some times.
IN_A_ROW_FAILING: Final = 5
SAME_RESULT_CALLS: Final = 5
CYCLE_LENGTHS: Final = range(2, 20)
CYCLE_ROUNDS: Final = 3
ROUND_CALLS: Final = 8
ROUND_REPEATS: Final = 6

Key = tuple[str, str]


class Use(NamedTuple):
    """One use of a tool.

    `goes_on` tells that it was used so before within the longest cycle, without a pause since nor
    another result, `is_repeat` that it was so within the window. `proven` counts it and the same
    within the window that had its result.
    """

    position: int
    call: Call
    key: Key
    goes_on: bool
    is_repeat: bool
    proven: int


def repeated_tool_calls(calls: Sequence[Placed], pauses: Mapping[int, int]) -> Iterator[Evidence]:
    """Tool calls that repeat, judged for each agent by itself. `pauses` tells for each call how
    often its agent had paused until then.
    """
    by_agent: defaultdict[str, list[tuple[Placed, str | None]]] = defaultdict(list)
    # What an event of a model call says of its output is the model's, not the tool's.
    results = output_names(
        placed.call.output_hash if placed.call.operation == "tool" else None for placed in calls
    )
    for placed, result in zip(calls, results, strict=True):
        if placed.call.tool_arguments_hash:
            by_agent[placed.call.agent].append((placed, result))
    for own in by_agent.values():
        yield from _agent_evidence(_uses(own, pauses))


def _uses(calls: Sequence[tuple[Placed, str | None]], pauses: Mapping[int, int]) -> list[Use]:
    uses: list[Use] = []
    results = [result for _, result in calls]
    for number, (placed, result) in enumerate(calls):
        key = (placed.call.tool, placed.call.tool_arguments_hash or "")
        start = max(0, number - CYCLE_LENGTHS[-1])
        same = [earlier for earlier in range(start, number) if uses[earlier].key == key]
        goes_on = bool(same) and not (
            _has_changed(results[same[-1]], result)
            or pauses[placed.position] > pauses[uses[same[-1]].position]
        )
        near = [earlier for earlier in same if number - earlier < WINDOW_CALLS]
        proven = 1 + sum(results[earlier] == result for earlier in near) if result else 0
        uses.append(Use(placed.position, placed.call, key, goes_on, goes_on and bool(near), proven))
    return uses


def _has_changed(before: str | None, after: str | None) -> bool:
    return bool(after and before) and after != before


def _agent_evidence(uses: Sequence[Use]) -> Iterator[Evidence]:
    repeats = [number for number, use in enumerate(uses) if use.is_repeat]
    loops = [loop for loop in (_cycle(uses), _often(uses, repeats)) if loop]
    if loops:
        first = min(loops, key=lambda loop: loop.number)
        yield _evidence(uses, first, Strength.LOOP)
        return
    for number in repeats:
        recent = uses[max(0, number - SUSPECT_WINDOW + 1) : number + 1]
        if sum(use.key == uses[number].key for use in recent) >= SUSPECT_CALLS:
            repetition = _Repetition(number, Kind.REPEATED_CALL, 1)
            yield _evidence(uses, repetition, Strength.SUSPECT)
            return


class _Repetition(NamedTuple):
    number: int
    kind: Kind
    cycle_length: int


def _cycle(uses: Sequence[Use]) -> _Repetition | None:
    """The first use that completes a row of one call, or a few rounds of the same calls."""
    runs = dict.fromkeys((1, *CYCLE_LENGTHS), 0)
    for number, use in enumerate(uses):
        for length, run in runs.items():
            goes_on = use.goes_on and number >= length and uses[number - length].key == use.key
            runs[length] = run + 1 if goes_on else 0
        if runs[1] + 1 >= (IN_A_ROW if use.call.status == "success" else IN_A_ROW_FAILING):
            return _Repetition(number, Kind.REPEATED_CALL, 1)
        for length in CYCLE_LENGTHS:
            needed = max(length, min(length * (CYCLE_ROUNDS - 1), ROUND_REPEATS))
            if runs[length] >= needed and runs[1] == 0:
                return _Repetition(number, Kind.CYCLE, length)
    return None


def _often(uses: Sequence[Use], repeats: Sequence[int]) -> _Repetition | None:
    """The first use by which most of the latest calls repeat, though in no order."""
    for index, number in enumerate(repeats):
        recent = sum(
            number - earlier < ROUND_CALLS for earlier in repeats[: index + 1][-ROUND_CALLS:]
        )
        if recent >= ROUND_REPEATS or uses[number].proven >= SAME_RESULT_CALLS:
            return _Repetition(number, Kind.REPEATED_CALL, 1)
    return None


def _evidence(uses: Sequence[Use], repetition: _Repetition, strength: Strength) -> Evidence:
    again = [number for number, use in enumerate(uses) if use.goes_on]
    first, last = chain_around(again, again.index(repetition.number), WINDOW_CALLS)
    chain = again[first : last + 1]
    return Evidence(
        kind=repetition.kind,
        strength=strength,
        first_repeat=uses[chain[0]].position,
        detected=uses[repetition.number].position,
        last=uses[chain[-1]].position,
        calls=len(chain),
        what=_describe(uses, chain, repetition),
    )


def _describe(uses: Sequence[Use], chain: Sequence[int], repetition: _Repetition) -> str:
    span = chain[-1] - chain[0] + 1
    again = f"{len(chain)} of {span} tool calls repeat earlier ones with the same arguments"
    if repetition.kind is Kind.CYCLE:
        return f"{again}, in a cycle of {repetition.cycle_length}"
    return f"{again}, mostly {uses[repetition.number].call.tool}"
