"""What the demo's calls will cost, near enough to choose budgets that are neither empty nor absurd.

The service prices every event itself; these figures never reach it.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import TypeVar

from genai_prices import Usage, calc_price

from demo.calls import Call, Model

Group = TypeVar("Group", bound=Hashable)

HOUR_MS = 3_600_000
NANOS = 10**9
SAMPLE_TOKENS = 1_000  # short of the sizes at which some models cost more
SAMPLE_DAY = datetime(2026, 11, 2, tzinfo=UTC)  # any day: some prices depend on the hour

# Dollars per call, invented: the recordings know nothing of what a tool costs. A shell is free.
TOOL_PRICES = {"web_surfer": "0.004", "terminal": "0.0005"}


@cache
def rates(model: Model, hour: int) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Return nano-dollars per token in an hour: input, output, cache read, cache write."""
    time = SAMPLE_DAY.replace(hour=hour)

    def rate(usage: Usage) -> Decimal:
        price = calc_price(
            usage, model.name, provider_id=model.provider, genai_request_timestamp=time
        )
        return price.total_price * NANOS / SAMPLE_TOKENS

    return (
        rate(Usage(input_tokens=SAMPLE_TOKENS)),
        rate(Usage(output_tokens=SAMPLE_TOKENS)),
        rate(Usage(input_tokens=SAMPLE_TOKENS, cache_read_tokens=SAMPLE_TOKENS)),
        rate(Usage(input_tokens=SAMPLE_TOKENS, cache_write_tokens=SAMPLE_TOKENS)),
    )


def cost_nanos(call: Call) -> int:
    """Return a call's cost. A model without a price costs nothing here, and so does a free tool."""
    if call.tool:
        return int(Decimal(TOOL_PRICES.get(call.tool, "0")) * NANOS)
    if call.model is None or call.model.provider == "in-house":
        return 0
    plain, written, cache_read, cache_write = rates(call.model, call.time_ms // HOUR_MS % 24)
    cached = call.cache_read_tokens + call.cache_write_tokens
    return int(
        ((call.input_tokens or 0) - cached) * plain
        + call.output_tokens * written
        + call.cache_read_tokens * cache_read
        + call.cache_write_tokens * cache_write
    )


def spend_by(calls: Iterable[Call], group: Callable[[Call], Group]) -> dict[Group, int]:
    """Return the nano-dollars of each group."""
    spent: dict[Group, int] = defaultdict(int)
    for call in calls:
        spent[group(call)] += cost_nanos(call)
    return dict(spent)
