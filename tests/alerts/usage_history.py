"""Days of usage as roll-ups have it, written at once: what a scan learns from."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from metering.models import MEASURES, UsageRollup
from metering.reporting.series import COMBINED_DIMENSIONS
from metering.rollups.sets import QUARTER_SETS
from tests.factories import Account

QUARTER = timedelta(minutes=15)


class Stream(NamedTuple):
    """Calls of the same values: how many in a quarter, and what each costs."""

    team: str
    agent: str
    feature: str
    customer: str
    model: str
    requests: int
    nanos_per_request: int
    tokens_per_request: int = 1_000
    cached_percent: int = 0
    failed_percent: int = 0


def write_usage(
    account: Account,
    streams: Iterable[Stream],
    *,
    starts_at: datetime,
    quarters: int,
    seed: int = 1,
) -> None:
    """Add quarters of these streams to the roll-ups, with a little noise in the requests."""
    chance = np.random.default_rng(seed)
    rows: dict[tuple[Any, ...], np.ndarray[Any, Any]] = defaultdict(
        lambda: np.zeros(len(MEASURES), np.int64)
    )
    for stream in streams:
        for quarter in range(quarters):
            requests = int(stream.requests * chance.uniform(0.8, 1.2))
            sums = np.array([_sums(stream, requests)[name] for name in MEASURES])
            for each in QUARTER_SETS:
                if set(each.dimensions) <= set(COMBINED_DIMENSIONS):
                    value = getattr(stream, each.dimensions[0]) if each.dimensions else ""
                    rows[each.number, starts_at + quarter * QUARTER, value] += sums
    with account.scope():
        UsageRollup.objects.bulk_create(
            [
                UsageRollup(
                    tenant=account.tenant,
                    dimension_set=number,
                    starts_at=at,
                    value_1=value,
                    value_2="",
                    **dict(zip(MEASURES, sums.tolist(), strict=True)),
                )
                for (number, at, value), sums in rows.items()
            ]
        )


def _sums(stream: Stream, requests: int) -> dict[str, int]:
    tokens = requests * stream.tokens_per_request
    return {
        **dict.fromkeys(MEASURES, 0),
        "cost_nanos": requests * stream.nanos_per_request,
        "requests": requests,
        "errors": requests * stream.failed_percent // 100,
        "input_tokens": tokens,
        "cache_read_tokens": tokens * stream.cached_percent // 100,
    }
