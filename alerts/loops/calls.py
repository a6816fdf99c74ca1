"""What a call, a piece of evidence and a verdict are."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final, Literal, NamedTuple

# This many of a session's latest calls are judged; a loop shows within a dozen.
CALLS_MAX: Final = 200


class Call(NamedTuple):
    """One usage event of a session.

    `at` is in seconds since 1970; `input_tokens` counts cache reads too. `output_hash` is any
    string that is equal for equal outputs, or `simhash:` and 16 hexadecimal digits, which are alike
    when 3 bits or fewer differ. Hashes are None if the client sends none.
    """

    at: float
    agent: str
    operation: Literal["llm", "embedding", "tool", "other"]
    model: str
    tool: str
    tool_arguments_hash: str | None
    output_hash: str | None
    prefix_hash: str | None
    status: Literal["success", "error", "cancelled"]
    error_type: str | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cost_nanos: int
    step: int | None


class Kind(StrEnum):
    """What was noticed."""

    REPEATED_CALL = "repeated_call"
    CYCLE = "cycle"
    SIMILAR_OUTPUTS = "similar_outputs"
    FAILING_RETRIES = "failing_retries"
    DOMINANT_TOOL = "dominant_tool"
    NO_PROGRESS = "no_progress"
    GROWING_CONTEXT = "growing_context"


class Strength(StrEnum):
    """How far a finding can be trusted: only a loop may stop anything."""

    SUSPECT = "suspect"
    LOOP = "loop"


class Evidence(NamedTuple):
    """A finding without its money. Positions are among the calls in order of time.

    `first_repeat` is the call from which on money was wasted, `detected` the one at which the
    evidence sufficed, `last` the latest that belongs to it, `calls` how many calls make it up.
    """

    kind: Kind
    strength: Strength
    first_repeat: int
    detected: int
    last: int
    calls: int
    what: str

    @property
    def is_loop(self) -> bool:
        return self.strength is Strength.LOOP


class Finding(NamedTuple):
    """Evidence with its money and its words.

    `cost_nanos` is what the session spent from the first repeat on, that call included.
    """

    kind: Kind
    strength: Strength
    first_repeat: int
    detected: int
    last: int
    calls: int
    began_at: float
    found_at: float
    cost_nanos: int
    words: str


class SessionVerdict(NamedTuple):
    """What was found out about a session.

    `is_ongoing` is false once ten calls of something else by its agent follow on a loop.
    `wasted_nanos` is spent since the first repeat of what was found, a growing context apart.
    `nanos_per_call` and `projected_nanos_per_hour` follow the latest calls; the projection is None
    while they all have the same time.
    """

    is_loop: bool
    is_ongoing: bool
    findings: tuple[Finding, ...]
    cost_nanos: int
    wasted_nanos: int
    nanos_per_call: int
    projected_nanos_per_hour: int | None


class Placed(NamedTuple):
    """A call and its position among all calls of the session, from 0."""

    position: int
    call: Call


def by_agent(
    calls: Iterable[Placed], is_wanted: Callable[[Placed], bool]
) -> dict[str, list[Placed]]:
    """Group the calls that are wanted by their agents."""
    grouped: defaultdict[str, list[Placed]] = defaultdict(list)
    for placed in calls:
        if is_wanted(placed):
            grouped[placed.call.agent].append(placed)
    return grouped


def is_model_call(call: Call) -> bool:
    """Whether a model wrote something: an agent that is called as a tool counts too."""
    return call.operation == "llm" or (call.operation == "tool" and call.output_tokens > 0)
