"""What a call of an agent, feature and model usually uses: what `estimate: "expected"` holds.

Reads `call_size`, which the roll-up learns (`metering.rollups.call_sizes`), and remembers answers
for a minute.
"""

import threading
import time
from collections import defaultdict
from concurrent.futures import Future
from typing import Final, NamedTuple

from django.db import connection
from django.utils.asyncio import async_unsafe

from common.bounded_memory import BoundedMemory
from metering.rollups.bins import largest, percentile_bin
from metering.rollups.call_sizes import CALLS, COST, OUTPUT, TOKENS, known_model
from tenants.scope import tenant_scope

# The estimate is the size that this many percent of the known calls did not exceed.
PERCENT: Final = 95
# Fewer known calls tell nothing of so high a percentile.
CALLS_MIN: Final = 20
MEMORY_SECONDS: Final = 60.0
MEMORY_MAX: Final = 10_000

Counts = dict[int, dict[int, int]]

# An agent's calls of a model, whatever their feature, where `feature` is None.
READ_COUNTS: Final = """
    SELECT measure, bin, sum(count)::bigint FROM call_size
    WHERE tenant_id = %s AND agent = %s AND model = %s AND (%s::text IS NULL OR feature = %s)
    GROUP BY measure, bin
"""


class ExpectedSize(NamedTuple):
    """What 95 of 100 such calls did not exceed, each by itself, and the number of known calls.

    At most a tenth above the call that is the 95th percentile, never below it.
    """

    cost_nanos: int
    tokens: int
    output_tokens: int
    calls: int


class _Key(NamedTuple):
    tenant_id: int
    agent: str
    feature: str | None
    model: str


# What is known of a key, and when it was read.
_MEMORY: Final = BoundedMemory[_Key, tuple[ExpectedSize | None, float]](MEMORY_MAX)
# What one caller reads at this moment, and others wait for.
_reading: dict[_Key, "Future[ExpectedSize | None]"] = {}
_lock: Final = threading.Lock()


def expected_size(tenant_id: int, *, agent: str, feature: str, model: str) -> ExpectedSize | None:
    """What a call is expected to use, by the agent's calls of this model for this feature, else by
    all its calls of this model; None while fewer than 20 are known.

    As known within the last minute. Reads, if it must, in a scope of its own.
    """
    known = known_model(model)
    return _recall(_Key(tenant_id, agent, feature, known)) or _recall(
        _Key(tenant_id, agent, None, known)
    )


def forget_estimates() -> None:
    """Empty this process's memory (tests make tenants again under the same ids)."""
    _MEMORY.forget_all()


def _recall(key: _Key) -> ExpectedSize | None:
    known = _MEMORY.get(key)
    if known is not None and known[1] > time.monotonic() - MEMORY_SECONDS:
        return known[0]
    return _read_together(key)


@async_unsafe
def _read_together(key: _Key) -> ExpectedSize | None:
    """Read it, or wait for who does: neither may be done on an event loop, which this refuses."""
    with _lock:
        reading = _reading.get(key)
        is_reader = reading is None
        if reading is None:
            reading = _reading[key] = Future()
    if is_reader:
        _read_for_all(key, reading)
    return reading.result()


def _read_for_all(key: _Key, reading: "Future[ExpectedSize | None]") -> None:
    """Read once for all who wait. Nothing is remembered of a failure, which all of them get."""
    try:
        size = _read(key)
    except BaseException as error:
        with _lock:
            del _reading[key]
        reading.set_exception(error)
        return
    with _lock:
        _MEMORY.keep(key, (size, time.monotonic()))
        del _reading[key]
    reading.set_result(size)


def _read(key: _Key) -> ExpectedSize | None:
    counts: Counts = defaultdict(dict)
    with tenant_scope(key.tenant_id), connection.cursor() as cursor:
        cursor.execute(READ_COUNTS, [key.tenant_id, key.agent, key.model, key.feature, key.feature])
        for measure, bin_number, count in cursor.fetchall():
            counts[measure][bin_number] = count
    calls = sum(counts[CALLS].values())
    if calls < CALLS_MIN:
        return None
    return ExpectedSize(
        cost_nanos=_percentile(counts[COST]),
        tokens=_percentile(counts[TOKENS]),
        output_tokens=_percentile(counts[OUTPUT]),
        calls=calls,
    )


def _percentile(counts: dict[int, int]) -> int:
    bin_ = percentile_bin(counts, PERCENT)
    assert bin_ is not None, "every call that is known has a size"
    return largest(bin_)
