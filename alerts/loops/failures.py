"""Whether retries fail for the same reason."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from alerts.loops.calls import Call, Evidence, Kind, Placed, Strength

SUSPECT_FAILURES: Final = 3
LOOP_FAILURES: Final = 5
# Without arguments to compare, failing calls may be different ones.
LOOP_FAILURES_UNKNOWN: Final = 8
# Whoever waits before trying again does as retries should.
RETRY_PAUSE_SECONDS: Final = 30.0


class _What(NamedTuple):
    agent: str
    operation: str
    name: str


def failing_retries(calls: Sequence[Placed]) -> Iterator[Evidence]:
    """For each agent and tool (or model) the longest run of failures for one reason."""
    runs: dict[_What, list[Placed]] = {}
    longest: dict[_What, list[Placed]] = {}
    for placed in calls:
        what = _what(placed.call)
        run = runs[what] = _continued(runs.get(what, []), placed)
        if len(run) > len(longest.get(what, ())):
            longest[what] = run
    for what, run in longest.items():
        if len(run) >= SUSPECT_FAILURES:
            yield _evidence(what, run)


def _what(call: Call) -> _What:
    return _What(call.agent, call.operation, call.tool or call.model)


def _continued(run: list[Placed], placed: Placed) -> list[Placed]:
    call = placed.call
    if call.status != "error":
        return []
    if run and run[-1].call.error_type == call.error_type:
        waited = call.at - run[-1].call.at >= RETRY_PAUSE_SECONDS
        return run if waited else [*run, placed]
    return [placed]


def _evidence(what: _What, run: Sequence[Placed]) -> Evidence:
    needed = _needed(run)
    is_loop = needed is not None and len(run) >= needed
    reason = run[0].call.error_type or "error"
    return Evidence(
        kind=Kind.FAILING_RETRIES,
        strength=Strength.LOOP if is_loop else Strength.SUSPECT,
        first_repeat=run[1].position,
        found=run[(needed if is_loop and needed else SUSPECT_FAILURES) - 1].position,
        last=run[-1].position,
        calls=len(run),
        what=f"{len(run)} calls of {what.name} in a row failed with {reason}",
    )


def _needed(run: Sequence[Placed]) -> int | None:
    """How many failures make a loop; None where the calls are known to differ, as in a batch."""
    arguments = {one.call.tool_arguments_hash for one in run}
    if arguments == {None}:
        return LOOP_FAILURES_UNKNOWN
    return LOOP_FAILURES if len(arguments) == 1 else None
