"""What the demo knows of one call, before it is written as an event."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np

from demo.recordings import Integers

DAY_SECONDS = 86_400
SPAN_DAYS = 14

# Failures are modelled: the recordings hold finished requests only. (status, error type, share)
FAILURES = (
    ("error", "rate_limited", 0.004),
    ("error", "overloaded", 0.003),
    ("error", "timeout", 0.003),
    ("cancelled", None, 0.005),
)
REFUSED = (1, 2)  # positions in STATUSES: the provider did no work and counted no token
CUT_SHORT = (3, 4)
STATUSES: tuple[tuple[str, str | None], ...] = (
    ("success", None),
    *((status, error_type) for status, error_type, _ in FAILURES),
)


class Speed(msgspec.Struct, frozen=True):
    """A model's modelled pace: to the first token, and tokens a second read and written."""

    first_ms: int
    read_per_second: int
    written_per_second: int


class Model(msgspec.Struct, frozen=True):
    """A model as an event names it. `usage_format` is that of demo/events.py."""

    provider: str
    name: str
    usage_format: str
    speed: Speed


class Call(msgspec.Struct, kw_only=True, gc=False):
    """One model call or tool call. `input_tokens` includes cache reads and writes."""

    id: str
    time_ms: int
    dataset: str
    team: str
    agent: str
    feature: str
    user: str
    latency_ms: int
    model: Model | None = None
    input_tokens: int | None = None
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    time_to_first_token_ms: int | None = None
    status: str = "success"
    error_type: str | None = None
    customer: str | None = None
    session: str | None = None
    task: str | None = None
    trace: str | None = None
    span: str | None = None
    parent_span: str | None = None
    step: int | None = None
    tool: str | None = None
    tool_arguments_hash: str | None = None
    output_hash: str | None = None
    prefix_hash: str | None = None
    # Whether another agent handed it over, which is modelled.
    is_handoff: bool = False


class Pace(NamedTuple):
    """Modelled latency of many calls."""

    first_ms: list[int]
    total_ms: list[int]


class Outcome(NamedTuple):
    """How one call went. `status` is a position in STATUSES."""

    input_tokens: int
    output_tokens: int
    status: int
    person: int
    first_ms: int
    total_ms: int

    def fields(self) -> dict[str, Any]:
        """Return what it says of a Call."""
        status, error_type = STATUSES[self.status]
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "status": status,
            "error_type": error_type,
            "latency_ms": self.total_ms,
            "time_to_first_token_ms": self.first_ms if self.output_tokens else None,
        }


def pace(
    *,
    speeds: Sequence[Speed],
    input_tokens: Integers,
    output_tokens: Integers,
    random: np.random.Generator,
) -> Pace:
    """Model how long calls take: a fixed start, reading and writing, spread by about a quarter."""
    paces = np.array(
        [(speed.first_ms, speed.read_per_second, speed.written_per_second) for speed in speeds],
        dtype=np.int64,
    )
    first, read, written = paces.reshape(-1, 3).T
    spread = random.lognormal(0.0, 0.25, len(speeds))
    first_ms = (first + 1000 * input_tokens / read) * spread
    total_ms = first_ms + 1000 * output_tokens / written * spread
    return Pace(first_ms.astype(int).tolist(), total_ms.astype(int).tolist())


def model_outcomes(
    *,
    speeds: Sequence[Speed],
    input_tokens: Integers,
    output_tokens: Integers,
    people: Integers,
    random: np.random.Generator,
) -> Iterator[Outcome]:
    """Model how each call went, and which of its `people` made it."""
    count = len(speeds)
    status = draw_statuses(count=count, random=random)
    read, written = spent_tokens(
        input_tokens=input_tokens, output_tokens=output_tokens, status=status, random=random
    )
    times = pace(speeds=speeds, input_tokens=read, output_tokens=written, random=random)
    # Low numbers far more often, as with people.
    person = np.floor(people * random.random(count) ** 2).astype(np.int64)
    columns = (read, written, status, person)
    for row in zip(
        *(column.tolist() for column in columns), times.first_ms, times.total_ms, strict=True
    ):
        yield Outcome(*row)


def draw_statuses(*, count: int, random: np.random.Generator) -> Integers:
    """Return a position in STATUSES for each call; a small share fails."""
    edges = np.cumsum([share for _, _, share in FAILURES])
    drawn = np.searchsorted(edges, random.random(count), side="right")
    return np.where(drawn == len(FAILURES), 0, drawn + 1)


def spent_tokens(
    *,
    input_tokens: Integers,
    output_tokens: Integers,
    status: Integers,
    random: np.random.Generator,
) -> tuple[Integers, Integers]:
    """Return the tokens that calls used: none if refused, part of the output if cut short."""
    refused = np.isin(status, REFUSED)
    part = np.where(np.isin(status, CUT_SHORT), random.random(len(status)), 1.0)
    written = np.floor(output_tokens * part).astype(np.int64)
    return np.where(refused, 0, input_tokens), np.where(refused, 0, written)


def epoch_ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def fold_into_span(times_ms: Integers, *, end_ms: int) -> Integers:
    """Move times at or after the end back by whole fortnights: the hour of day stays."""
    span_ms = SPAN_DAYS * DAY_SECONDS * 1000
    folded: Integers = times_ms - span_ms * np.maximum(0, (times_ms - end_ms) // span_ms + 1)
    return folded
