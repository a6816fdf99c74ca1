"""Find retries that fail for the same reason."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from alerts.loops.calls import Call, Evidence, Kind, Placed, Strength

SUSPECT_FAILURES: Final = 3
LOOP_FAILURES: Final = 5
# Without arguments to compare, failing calls may be different ones.
LOOP_FAILURES_UNKNOWN: Final = 8
# To wait before trying again is what retries should do, but not forever.
LOOP_FAILURES_WAITING: Final = 40


class _What(NamedTuple):
    agent: str
    operation: str
    name: str


class _Run(NamedTuple):
    """Failures in a row for one reason, and those of them that came without a pause before."""

    all: list[Placed]
    hasty: list[Placed]


def failing_retries(calls: Sequence[Placed], pauses: Mapping[int, int]) -> Iterator[Evidence]:
    """For each agent and tool (or model) the longest run of failures for one reason. `pauses` tells
    for each call how often its agent had paused until then.
    """
    runs: dict[_What, _Run] = {}
    longest: dict[_What, _Run] = {}
    for placed in calls:
        what = _what(placed.call)
        if placed.call.status != "error":
            runs.pop(what, None)
            continue
        run = runs[what] = _continued(runs.get(what, _Run([], [])), placed, pauses)
        known = longest.get(what, run)
        if known is run or _rank(run) > _rank(known):
            longest[what] = run
    for what, run in longest.items():
        is_endless = len(run.all) >= LOOP_FAILURES_WAITING and _needed(run.all) is not None
        if is_endless and not _is_hasty_loop(run.hasty):
            yield _evidence(what, run.all, LOOP_FAILURES_WAITING)
        elif len(run.hasty) >= SUSPECT_FAILURES:
            yield _evidence(what, run.hasty, _needed(run.hasty))


def _rank(run: _Run) -> tuple[int, int]:
    return len(run.hasty), len(run.all)


def _is_hasty_loop(run: Sequence[Placed]) -> bool:
    needed = _needed(run)
    return needed is not None and len(run) >= needed


def _what(call: Call) -> _What:
    return _What(call.agent, call.operation, call.tool or call.model)


def _continued(run: _Run, placed: Placed, pauses: Mapping[int, int]) -> _Run:
    if run.all and run.all[-1].call.error_type == placed.call.error_type:
        has_paused = pauses[placed.position] > pauses[run.all[-1].position]
        hasty = run.hasty if has_paused else [*run.hasty, placed]
        return _Run([*run.all, placed], hasty)
    return _Run([placed], [placed])


def _evidence(what: _What, run: Sequence[Placed], needed: int | None) -> Evidence:
    is_loop = needed is not None and len(run) >= needed
    reason = run[0].call.error_type or "error"
    return Evidence(
        kind=Kind.FAILING_RETRIES,
        strength=Strength.LOOP if is_loop else Strength.SUSPECT,
        first_repeat=run[1].position,
        detected=run[(needed if is_loop and needed else SUSPECT_FAILURES) - 1].position,
        last=run[-1].position,
        calls=len(run),
        what=f"{len(run)} calls of {what.name} in a row failed with {reason}",
    )


def _needed(run: Sequence[Placed]) -> int | None:
    """Return the number of failures that make a loop; None if the calls differ, as in a batch."""
    arguments = {placed.call.tool_arguments_hash for placed in run}
    if arguments == {None}:
        return LOOP_FAILURES_UNKNOWN
    return LOOP_FAILURES if len(arguments) == 1 else None
