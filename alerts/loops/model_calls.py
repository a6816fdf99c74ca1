"""Whether model calls repeat, with or without hashes.

A call repeats an earlier one of its agent when the output is the same and nothing had changed
before it: no tool gave news in between, and the input was as long as then (an agent asked the same
again) or had grown by as much as then (an agent that carries its history along). Without a hash,
the output's size stands for it.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final, NamedTuple

from alerts.loops.calls import Evidence, Kind, Placed, Strength
from alerts.loops.chains import chain_around
from alerts.loops.news import News
from alerts.loops.outputs import SIMHASH
from alerts.loops.rounds import rounds
from alerts.loops.steps import NEAR_INPUT_PERCENT, Step, is_near, is_same, steps_of

# How these figures were chosen, and on what, is in docs/decisions/0011.
WINDOW_CALLS: Final = 10
SAME_CALLS: Final = 5
UNCHANGED_CALLS: Final = 3
UNCHANGED_AFTER_CALLS: Final = 12
ROUND_CALLS: Final = 8
ROUND_REPEATS: Final = 4
ROUND_REPEATS_SIZED: Final = 5
SUSPECT_REPEATS: Final = 2
IN_A_ROW: Final = 5

# Calls of nearly one size, a few of them equal by chance, are a batch and no loop.
NEAR_OUTPUT_PERCENT: Final = 25
USUAL_CALLS: Final = 20
EQUAL_OF_NEAR_PERCENT: Final = 25
EQUAL_OF_NEAR_ALONE_PERCENT: Final = 40


class Repeat(NamedTuple):
    """A step that repeats earlier ones.

    `number` is among the steps it was looked for in. `alike` counts it and what it repeats within
    the window, `unchanged` those of them that had equal input.
    """

    number: int
    position: int
    output: str | None
    alike: int
    unchanged: int


def repeated_model_calls(calls: Sequence[Placed], news: Mapping[int, News]) -> Iterator[Evidence]:
    """Model calls that repeat: among those of the session, or among those of one of its agents."""
    steps = steps_of(calls, news)
    by_agent: defaultdict[str, list[Step]] = defaultdict(list)
    for step in steps:
        by_agent[step.agent].append(step)
    apart = by_agent.values() if len(by_agent) > 1 else ()
    evidence = [item for item in map(_repeated, (steps, *apart)) if item]
    if not any(item.is_loop for item in evidence):
        evidence += [item for item in map(rounds, by_agent.values()) if item]
    if evidence:
        similar = any(SIMHASH.fullmatch(placed.call.output_hash or "") for placed in calls)
        first = min(evidence, key=lambda item: (not item.is_loop, item.detected))
        yield first._replace(kind=Kind.SIMILAR_OUTPUTS) if similar else first
    for own in by_agent.values():
        yield from _outputs_in_a_row(own)


def _repeated(steps: Sequence[Step]) -> Evidence | None:
    """Half of the latest calls repeat, or one call did so twice among a dozen."""
    repeats = _repeats(steps)
    suspect = None
    for index, repeat in enumerate(repeats):
        latest = repeats[max(0, index - ROUND_CALLS + 1) : index + 1]
        recent = sum(repeat.number - other.number < ROUND_CALLS for other in latest)
        needed = ROUND_REPEATS_SIZED if steps[repeat.number].is_sized else ROUND_REPEATS
        if _is_often(steps, repeat) or (recent >= needed and not _is_chance(steps, repeat.number)):
            return _evidence(repeats, index, Strength.LOOP)
        if not suspect and recent >= SUSPECT_REPEATS and not _is_chance(steps, repeat.number):
            suspect = _evidence(repeats, index, Strength.SUSPECT)
    return suspect


def _is_often(steps: Sequence[Step], repeat: Repeat) -> bool:
    """Whether one and the same call came often enough by itself."""
    is_third = repeat.unchanged >= UNCHANGED_CALLS and repeat.number >= UNCHANGED_AFTER_CALLS - 1
    is_often = is_third or repeat.alike >= SAME_CALLS
    return is_often and not _is_chance(steps, repeat.number, alone=True)


def _repeats(steps: Sequence[Step]) -> list[Repeat]:
    recent: defaultdict[tuple[str, str], deque[int]] = defaultdict(
        lambda: deque(maxlen=WINDOW_CALLS)
    )
    repeats = []
    for number, step in enumerate(steps):
        if step.output is None:
            continue
        earlier = recent[step.agent, step.output]
        window = [steps[index] for index in earlier if number - index < WINDOW_CALLS]
        same = [other for other in window if is_same(other, step)]
        if same:
            unchanged = sum(other.input_tokens == step.input_tokens for other in same)
            repeats.append(Repeat(number, step.position, step.output, len(same) + 1, unchanged + 1))
        earlier.append(number)
    return repeats


def _is_chance(steps: Sequence[Step], number: int, *, alone: bool = False) -> bool:
    """Whether so many calls were nearly like the repeated ones that some had to be equal.

    `alone` asks it of this call and its likes, otherwise it is asked of all that repeat.
    """
    start = max(0, number - WINDOW_CALLS + 1)
    pairs = list(combinations(steps[start : number + 1], 2))
    equal = [pair for pair in pairs if is_same(*pair)]
    if alone:
        equal = [pair for pair in equal if pair[0].output == steps[number].output]
    repeated = {step.position for pair in equal for step in pair}
    near = sum(
        _is_like(earlier, later)
        for earlier, later in pairs
        if earlier.position in repeated or later.position in repeated
    )
    needed_percent = EQUAL_OF_NEAR_ALONE_PERCENT if alone else EQUAL_OF_NEAR_PERCENT
    if len(equal) * 100 < near * needed_percent:
        return True
    usual_percent = _usual_percent(steps[max(0, start - USUAL_CALLS) : start], steps[number])
    return len(equal) * 100 < near * (needed_percent + 2 * usual_percent)


def _usual_percent(earlier: Sequence[Step], step: Step) -> int:
    """How many of the pairs of earlier calls of one's size were equal, as in a batch some are."""
    size = [
        before
        for before in earlier
        if before.input_tokens == step.input_tokens
        and is_near(before.output_tokens, step.output_tokens, NEAR_OUTPUT_PERCENT)
    ]
    pairs = list(combinations(size, 2))
    return sum(is_same(*pair) for pair in pairs) * 100 // max(1, len(pairs))


def _is_like(earlier: Step, later: Step) -> bool:
    return is_near(earlier.output_tokens, later.output_tokens, NEAR_OUTPUT_PERCENT) and (
        is_near(earlier.input_tokens, later.input_tokens, NEAR_INPUT_PERCENT)
        or is_near(earlier.grown_tokens, later.grown_tokens, NEAR_INPUT_PERCENT)
    )


def _evidence(repeats: Sequence[Repeat], index: int, strength: Strength) -> Evidence:
    first, last = chain_around([repeat.number for repeat in repeats], index, WINDOW_CALLS)
    chain = repeats[first : last + 1]
    outputs = len({repeat.output for repeat in chain})
    span = chain[-1].number - chain[0].number + 1
    which = "one output" if outputs == 1 else f"{outputs} outputs"
    return Evidence(
        kind=Kind.REPEATED_CALL if outputs == 1 else Kind.CYCLE,
        strength=strength,
        first_repeat=chain[0].position,
        detected=repeats[index].position,
        last=chain[-1].position,
        calls=len(chain),
        what=f"{len(chain)} of {span} model calls gave {which} again with nothing changed",
    )


def _outputs_in_a_row(steps: Sequence[Step]) -> Iterator[Evidence]:
    """Find an agent's same output again and again, however its input grows. Only hashes show it."""
    start = longest = length = 0
    for number in range(1, len(steps)):
        goes_on = _is_said_again(steps[number - 1], steps[number])
        length = length + 1 if goes_on else 0
        if length > longest:
            start, longest = number - length, length
    if longest + 1 >= IN_A_ROW:
        yield Evidence(
            kind=Kind.SIMILAR_OUTPUTS,
            strength=Strength.LOOP,
            first_repeat=steps[start + 1].position,
            detected=steps[start + IN_A_ROW - 1].position,
            last=steps[start + longest].position,
            calls=longest,
            what=f"{longest + 1} model calls in a row gave the same output",
        )


def _is_said_again(earlier: Step, later: Step) -> bool:
    return (
        later.output == earlier.output is not None
        and not later.is_sized
        and later.news.before <= earlier.news.asked
        and later.input_tokens > earlier.input_tokens
    )
