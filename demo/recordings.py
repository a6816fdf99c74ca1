"""Read the recordings in demo/data. What each file holds and where it is from: data/SOURCES.md."""

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

DATA_FOLDER = Path(__file__).parent / "data"

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Stream(NamedTuple):
    """One client of one model in ServeGen: here, one customer."""

    model: str
    client_id: int
    customer: str


@dataclass(frozen=True)
class Windows:
    """Ten-minute windows with traffic, one element of every array for each.

    `stream` and `size` are positions in `streams` and in the columns of `sizes`.
    """

    streams: tuple[Stream, ...]
    stream: Integers
    window: Integers
    requests: Integers
    size: Integers
    sizes: dict[str, Floats]


@dataclass(frozen=True)
class CompletionHour:
    """An hour of code-completion requests, in order of time."""

    offset_ms: Integers
    input_tokens: Integers
    output_tokens: Integers


class AgentCall(NamedTuple):
    """One model call of an agent. `input_tokens` is None where the recording lacks the input."""

    offset_ms: int
    input_tokens: int | None
    shared_prefix_tokens: int
    output_tokens: int
    output_hash: str
    prefix_hash: str
    tool: str
    tool_arguments_hash: str


class AgentSession(NamedTuple):
    """One run of one agent program. `label` is loop, suspect or normal."""

    program: str
    session: str
    label: str
    calls: tuple[AgentCall, ...]


def rows(name: str) -> Iterator[list[str]]:
    """Yield the rows of one file, without its header."""
    with gzip.open(DATA_FOLDER / name, "rt", encoding="utf-8") as lines:
        reader = csv.reader(lines)
        next(reader)
        yield from reader


@cache
def servegen_windows() -> Windows:
    streams = tuple(
        Stream(row[0], int(row[1]), row[2]) for row in rows("servegen_customers.csv.gz")
    )
    position = {stream[:2]: index for index, stream in enumerate(streams)}
    sizes = list(rows("servegen_sizes.csv.gz"))
    windows = np.array(
        [
            (position[model, int(client)], int(window), int(requests))
            for model, client, window, requests in rows("servegen_windows.csv.gz")
        ],
        dtype=np.int64,
    )
    # A size row holds from its first window until the client's next size row. Both files are sorted
    # by stream and window, so one number that grows with both finds the row for every window.
    order = np.array([rank(position[row[0], int(row[1])], int(row[2])) for row in sizes])
    return Windows(
        streams=streams,
        stream=windows[:, 0],
        window=windows[:, 1],
        requests=windows[:, 2],
        size=np.searchsorted(order, rank(windows[:, 0], windows[:, 1]), side="right") - 1,
        sizes=size_columns(sizes),
    )


Number = TypeVar("Number", int, Integers)


def rank(stream: Number, window: Number) -> Number:
    """Order by stream, then window, as one number; for plain numbers and for arrays."""
    return stream * 10_000 + window


def size_columns(sizes: list[list[str]]) -> dict[str, Floats]:
    """Return every size column by name; a value that the source does not know is NaN."""
    names = (
        "input_mean",
        "input_p50",
        "input_p99",
        "output_mean",
        "output_p50",
        "output_p99",
        "reason_ratio",
    )
    table = np.array([[float(value or "nan") for value in row[3:]] for row in sizes])
    return dict(zip(names, table.T, strict=True))


@cache
def completion_hour() -> CompletionHour:
    table = np.array(
        [[int(value) for value in row] for row in rows("azure_code_hour.csv.gz")], dtype=np.int64
    )
    return CompletionHour(*table.T)


@cache
def agent_sessions() -> tuple[AgentSession, ...]:
    return tuple(
        AgentSession(program, session, label, tuple(agent_call(row[3:]) for row in group))
        for (program, session, label), group in groupby(
            rows("agent_calls.csv.gz"), key=lambda row: row[:3]
        )
    )


def agent_call(row: list[str]) -> AgentCall:
    offset_ms, input_tokens, shared_prefix, output_tokens, *hashes = row
    return AgentCall(
        int(offset_ms),
        int(input_tokens) if input_tokens else None,
        int(shared_prefix or 0),
        int(output_tokens),
        *hashes,
    )
