"""How long answers of /v1/usage take over 30 days of what is stored."""

import itertools
import time
from collections.abc import Iterator, Sequence

from bench.kit.database import Connection, fetch_number
from bench.kit.load import percentile
from bench.kit.service import Service

DIMENSIONS = ("team", "customer", "agent", "feature", "model")
REPEATS = 12
ROLL_UPS_WITHIN_SECONDS = 900
NOT_ROLLED_UP = "SELECT count(*) FROM ingest_batch WHERE rolled_up_at IS NULL"


def wait_for_roll_ups(connection: Connection) -> None:
    """Wait until every batch is rolled up, or for a quarter of an hour."""
    end = time.monotonic() + ROLL_UPS_WITHIN_SECONDS
    while fetch_number(connection, NOT_ROLLED_UP) and time.monotonic() < end:
        time.sleep(1)


def measure(service: Service) -> Iterator[tuple[str, float, int]]:
    """Yield the slowest grouping of each kind, its 95th percentile in ms, and the wanted ms."""
    single = [(name,) for name in DIMENSIONS]
    pairs = list(itertools.combinations(DIMENSIONS, 2))
    users = [("user",), *((name, "user") for name in DIMENSIONS)]
    groupings: Sequence[tuple[str, Sequence[tuple[str, ...]], str, int]] = (
        ("one dimension and day", single, "day", 300),
        ("two dimensions and day", pairs, "day", 800),
        ("user (and one more) and day", users, "day", 1_500),
        ("one dimension, no interval", single, "none", 300),
        ("two, no interval", pairs, "none", 800),
    )
    for kind, names, interval, wanted_ms in groupings:
        p95_ms, slowest = max((_p95_ms(service, ",".join(by), interval), by) for by in names)
        yield f"{kind} ({','.join(slowest)} is slowest)", p95_ms, wanted_ms


def _p95_ms(service: Service, group_by: str, interval: str) -> float:
    taken = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        service.call("GET", f"/v1/usage?group_by={group_by}&interval={interval}")
        taken.append((time.perf_counter() - begun) * 1000)
    return percentile(sorted(taken), 95)
