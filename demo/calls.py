"""What the demo knows of one call, before it is written in some provider's words."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

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
    """A model as an event names it. `words` is how its usage is reported: see demo/events.py."""

    provider: str
    name: str
    words: str
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


@dataclass(frozen=True)
class Pace:
    """Modelled latency of many calls."""

    first_ms: list[int]
    total_ms: list[int]


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


def statuses(*, count: int, random: np.random.Generator) -> Integers:
    """A position in STATUSES for each call; a small share fails."""
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
    """Tokens that a call used up: none when refused, part of the output when cut short."""
    refused = np.isin(status, REFUSED)
    part = np.where(np.isin(status, CUT_SHORT), random.random(len(status)), 1.0)
    written = np.floor(output_tokens * part).astype(np.int64)
    return np.where(refused, 0, input_tokens), np.where(refused, 0, written)


def favourites(*, pool: Integers, random: np.random.Generator) -> Integers:
    """One of `pool` numbers for each call, low ones far more often, as with people."""
    return np.floor(pool * random.random(len(pool)) ** 2).astype(np.int64)


def epoch_ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def fold_into_span(times_ms: Integers, *, end_ms: int) -> Integers:
    """Move times at or after the end back by whole fortnights: the hour of day stays."""
    span_ms = SPAN_DAYS * DAY_SECONDS * 1000
    folded: Integers = times_ms - span_ms * np.maximum(0, (times_ms - end_ms) // span_ms + 1)
    return folded
