"""Whether model calls go round in a fixed order.

To `model_calls`, which compares sizes, a cycle of calls of alike size looks like a batch with a few
answers. A batch gives its answers in no order, though, and a cycle gives them in one.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final

from alerts.loops.calls import Evidence, Kind, Strength
from alerts.loops.steps import Step, is_same

ROUND_CALLS_MAX: Final = 20
# Two answers come in any order by chance.
OUTPUTS_MIN: Final = 3
# Without hashes, this many sizes in the same order.
SIZES_MIN: Final = 6
# A whole round comes again, and no fewer calls than this.
REPEATS_MIN: Final = 6


def rounds(steps: Sequence[Step]) -> Evidence | None:
    """The first cycle of an agent's calls that comes round again, call by call, nothing changed."""
    runs: dict[int, int] = {}
    numbers: defaultdict[str | None, deque[int]] = defaultdict(
        lambda: deque(maxlen=ROUND_CALLS_MAX)
    )
    for number, step in enumerate(steps):
        earlier = numbers[step.output]
        lengths = (number - before for before in earlier if is_same(steps[before], step))
        # Cycles of other lengths end here.
        runs = {length: runs.get(length, 0) + 1 for length in lengths}
        earlier.append(number)
        for length, run in runs.items():
            if length <= ROUND_CALLS_MAX and run >= max(length, REPEATS_MIN):
                latest = steps[number - length + 1 : number + 1]
                outputs = len({step.output for step in latest})
                is_sized = any(step.is_sized for step in latest)
                if outputs >= (SIZES_MIN if is_sized else OUTPUTS_MIN):
                    return _evidence(steps, number, length, outputs)
    return None


def _evidence(steps: Sequence[Step], detected: int, length: int, outputs: int) -> Evidence:
    first = _end_of_run(steps, detected, length, -1)
    last = _end_of_run(steps, detected, length, 1)
    count = last - first + 1
    return Evidence(
        kind=Kind.CYCLE,
        strength=Strength.LOOP,
        first_repeat=steps[first].position,
        detected=steps[detected].position,
        last=steps[last].position,
        calls=count,
        what=f"{count} model calls in a row gave {outputs} outputs again, in a cycle of {length}",
    )


def _end_of_run(steps: Sequence[Step], number: int, length: int, direction: int) -> int:
    following = number + direction
    while length <= following < len(steps) and is_same(steps[following - length], steps[following]):
        number, following = following, following + direction
    return number
