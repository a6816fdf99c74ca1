"""Calls of code completion: one recorded hour of an Azure service, at its own time of day."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np

from demo.calls import (
    STATUSES,
    Call,
    Model,
    Speed,
    epoch_ms,
    favourites,
    pace,
    spent_tokens,
    statuses,
)
from demo.recordings import completion_hour

RECORDED_START = datetime(2023, 11, 16, 18, 17, 3, 980_000, tzinfo=UTC)
WEEK_MS = round(timedelta(days=7).total_seconds() * 1000)
CODESTRAL = Model("mistral", "codestral-latest", "openai", Speed(150, 15_000, 150))
PEOPLE = 60


def recorded_requests() -> int:
    return len(completion_hour().offset_ms)


def developer_calls(*, count: int, end_ms: int, random: np.random.Generator) -> Iterator[Call]:
    """`count` requests spread evenly over the hour, in the latest week in which it has ended."""
    hour = completion_hour()
    rows = np.linspace(0, len(hour.offset_ms), count, endpoint=False).astype(np.int64)
    status = statuses(count=count, random=random)
    inputs, outputs = spent_tokens(
        input_tokens=hour.input_tokens[rows],
        output_tokens=hour.output_tokens[rows],
        status=status,
        random=random,
    )
    times = pace(
        speeds=[CODESTRAL.speed] * count,
        input_tokens=inputs,
        output_tokens=outputs,
        random=random,
    )
    people = favourites(pool=np.full(count, PEOPLE), random=random)
    columns = zip(
        rows.tolist(),
        (hour_start_ms(end_ms=end_ms) + hour.offset_ms[rows]).tolist(),
        inputs.tolist(),
        outputs.tolist(),
        status.tolist(),
        people.tolist(),
        times.first_ms,
        times.total_ms,
        strict=True,
    )
    for row, time, read, written, state, person, first, total in columns:
        yield Call(
            id=f"azure-{row:04d}",
            time_ms=time,
            dataset="azure_llm_2023",
            team="developer-tools",
            agent="code-completion",
            feature="code_completion",
            user=f"developer-{person}",
            model=CODESTRAL,
            input_tokens=read,
            output_tokens=written,
            status=STATUSES[state][0],
            error_type=STATUSES[state][1],
            latency_ms=total,
            time_to_first_token_ms=first if written else None,
        )


def hour_start_ms(*, end_ms: int) -> int:
    """The recorded start moved by whole weeks to the last one whose hour is over by the end."""
    start_ms = epoch_ms(RECORDED_START)
    over_ms = start_ms + int(completion_hour().offset_ms[-1])
    return start_ms + (end_ms - over_ms) // WEEK_MS * WEEK_MS
