"""Calls of code completion: one recorded hour of an Azure service, at its own time of day."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np

from demo.calls import Call, Model, Speed, epoch_ms, model_outcomes
from demo.recordings import completion_hour

RECORDED_START = datetime(2023, 11, 16, 18, 17, 3, 980_000, tzinfo=UTC)
WEEK_MS = round(timedelta(days=7).total_seconds() * 1000)
CODESTRAL = Model("mistral", "codestral-latest", "openai", Speed(150, 15_000, 150))
PEOPLE = 60


def recorded_requests() -> int:
    return len(completion_hour().offset_ms)


def developer_calls(*, count: int, end_ms: int, random: np.random.Generator) -> Iterator[Call]:
    """Yield `count` requests spread evenly over the hour, in the last week where it has ended."""
    hour = completion_hour()
    rows = np.linspace(0, len(hour.offset_ms), count, endpoint=False).astype(np.int64)
    times_ms = (hour_start_ms(end_ms=end_ms) + hour.offset_ms[rows]).tolist()
    outcomes = model_outcomes(
        speeds=[CODESTRAL.speed] * count,
        input_tokens=hour.input_tokens[rows],
        output_tokens=hour.output_tokens[rows],
        people=np.full(count, PEOPLE),
        random=random,
    )
    for row, time_ms, outcome in zip(rows.tolist(), times_ms, outcomes, strict=True):
        yield Call(
            id=f"azure-{row:04d}",
            time_ms=time_ms,
            dataset="azure_llm_2023",
            team="developer-tools",
            agent="code-completion",
            feature="code_completion",
            user=f"developer-{outcome.person}",
            model=CODESTRAL,
            **outcome.fields(),
        )


def hour_start_ms(*, end_ms: int) -> int:
    """Move the recorded start by whole weeks, to the last one whose hour is over by the end."""
    start_ms = epoch_ms(RECORDED_START)
    over_ms = start_ms + int(completion_hour().offset_ms[-1])
    return start_ms + (end_ms - over_ms) // WEEK_MS * WEEK_MS
