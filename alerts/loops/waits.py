"""Find agents that wait in vain: the same call again and again, at any pace, and nothing new.

Waiting for a job looks the same until the job is done, so it takes more calls than a loop without
pauses, and how many depends on the money:

| what the calls since the first repeat cost | calls with the same result |
|---|---|
| half of the session or more, and 0.10 USD | 10, and 4 more for each doubling of 30 s of pause |
| a tenth of the session or more, or the session costs nothing | 40 |
| less | never |

A result that differs but is as long as the one before may be the same with another timestamp: it
takes twice as many, and is a suspicion from 10 on.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from math import log2
from statistics import median
from typing import Final, NamedTuple

from alerts.loops.calls import Call, Evidence, Kind, Placed, Strength, by_agent

# An agent that does nothing for this long is waiting.
PAUSE_SECONDS: Final = 30.0
COSTLY_CALLS: Final = 10
CALLS_PER_DOUBLING: Final = 4
CHEAP_CALLS: Final = 40
COSTLY_NANOS: Final = 100_000_000
COSTLY_SHARE: Final = 2
CHEAP_SHARE: Final = 10
VARIED_TIMES: Final = 2

Key = tuple[str, str]


class _Wait(NamedTuple):
    """The uses of one call since there was anything new; `is_varied` if results only look alike."""

    key: Key
    uses: list[Placed]
    is_varied: bool


def pauses_by_position(calls: Sequence[Placed]) -> Mapping[int, int]:
    """Return for each call, by its position, how often its agent had paused until then."""
    latest: dict[str, tuple[float, int]] = {}
    counts: dict[int, int] = {}
    for position, call in calls:
        at, count = latest.get(call.agent, (call.at, 0))
        count += call.at - at >= PAUSE_SECONDS
        latest[call.agent] = call.at, count
        counts[position] = count
    return counts


def needed_calls(*, pause_seconds: float, is_costly: bool) -> int:
    """Return the number of calls with the same result that are no longer waiting."""
    if not is_costly:
        return CHEAP_CALLS
    doublings = log2(max(1.0, pause_seconds / PAUSE_SECONDS))
    return min(CHEAP_CALLS, round(COSTLY_CALLS + CALLS_PER_DOUBLING * doublings))


def waits_in_vain(calls: Sequence[Placed]) -> Iterator[Evidence]:
    """Find for each agent the call it repeated in vain, and from where on that was certain."""
    spent = [0, *accumulate(placed.call.cost_nanos for placed in calls)]
    tool_calls = by_agent(
        calls, lambda placed: bool(placed.call.tool and placed.call.tool_arguments_hash)
    )
    for agent, own in tool_calls.items():
        own_costs = (placed.call.cost_nanos * (placed.call.agent == agent) for placed in calls)
        own_spent = [0, *accumulate(own_costs)]
        waits: dict[Strength, tuple[_Wait, int]] = {}
        for wait in _waits(own):
            strength = _strength(wait, spent, own_spent)
            known = waits.get(strength) if strength else None
            if strength and (known is None or known[0].uses[0] is wait.uses[0]):
                number = known[1] if known else wait.uses[-1].position
                waits[strength] = wait, number
        for strength in (Strength.LOOP, Strength.SUSPECT):
            if strength in waits:
                yield _evidence(*waits[strength], strength)
                break


def _waits(calls: Sequence[Placed]) -> Iterator[_Wait]:
    """After each repeat of a call the wait so far. Anything new restarts all of them."""
    results: dict[Key, Call] = {}
    waits: dict[Key, _Wait] = {}
    for placed in calls:
        call = placed.call
        key = (call.tool, call.tool_arguments_hash or "")
        before = results.get(key)
        results[key] = call
        if before is None or not _is_alike(before, call):
            waits.clear()
        known = waits.get(key)
        if known is None or before is None:
            waits[key] = _Wait(key, [placed], is_varied=False)
            continue
        is_varied = known.is_varied or _result(before) != _result(call)
        waits[key] = _Wait(key, [*known.uses, placed], is_varied)
        yield waits[key]


def _result(call: Call) -> tuple[str, str | None]:
    return call.status, call.error_type if call.status == "error" else call.output_hash


def _is_alike(before: Call, after: Call) -> bool:
    if _result(before) == _result(after):
        return True
    if before.status != after.status or before.status == "error":
        return False
    is_unknown = None in (before.output_hash, after.output_hash)
    return is_unknown or before.output_tokens == after.output_tokens > 0


def _strength(wait: _Wait, spent: Sequence[int], own_spent: Sequence[int]) -> Strength | None:
    count, times = len(wait.uses), VARIED_TIMES if wait.is_varied else 1
    if count < COSTLY_CALLS:
        return None
    end = wait.uses[-1].position + 1
    whole_nanos = spent[end]
    wasted_nanos = own_spent[end] - own_spent[wait.uses[1].position]
    pause = median(later.call.at - earlier.call.at for earlier, later in pairwise(wait.uses))
    is_costly = wasted_nanos >= max(COSTLY_NANOS, whole_nanos / COSTLY_SHARE)
    needed = times * needed_calls(pause_seconds=pause, is_costly=is_costly)
    if count >= needed and wasted_nanos * CHEAP_SHARE >= whole_nanos:
        return Strength.LOOP
    return Strength.SUSPECT if wait.is_varied else None


def _evidence(wait: _Wait, detected: int, strength: Strength) -> Evidence:
    count = len(wait.uses)
    result = "a result of the same length" if wait.is_varied else "the same result"
    return Evidence(
        kind=Kind.REPEATED_CALL,
        strength=strength,
        first_repeat=wait.uses[1].position,
        detected=detected,
        last=wait.uses[-1].position,
        calls=count - 1,
        what=(
            f"{wait.key[0]} was called {count} times with the same arguments and gave {result},"
            " with nothing new in between"
        ),
    )
