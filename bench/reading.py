"""How long answers of /v1/usage take over 30 days of what is stored."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from bench.kit.service import Service

DIMENSIONS = ("team", "customer", "agent", "feature", "model")
REPEATS = 12
ROLL_UPS_WITHIN_SECONDS = 900


def wait_for_roll_ups(connection: psycopg.Connection[Any]) -> None:
    """Wait until every batch is rolled up, or for a quarter of an hour."""
    end = time.monotonic() + ROLL_UPS_WITHIN_SECONDS
    while time.monotonic() < end:
        with connection.transaction():
            connection.execute("SET LOCAL spendgate.platform = 'benchmark'")
            row = connection.execute(
                "SELECT count(*) FROM ingest_batch WHERE rolled_up_at IS NULL"
            ).fetchone()
        if row is not None and row[0] == 0:
            return
        time.sleep(1)


def measure(service: Service) -> Iterator[tuple[str, float, int]]:
    """(grouping, 95th percentile in ms, wanted ms), the slowest grouping of each kind."""
    ones = [(one,) for one in DIMENSIONS]
    pairs = list(itertools.combinations(DIMENSIONS, 2))
    users = [("user",), *((one, "user") for one in DIMENSIONS)]
    for name, groupings, wanted_ms in (
        ("one dimension and day", ones, 300),
        ("two dimensions and day", pairs, 800),
        ("user (and one more) and day", users, 1_500),
    ):
        slowest = max((_p95_ms(service, one, "day"), ",".join(one)) for one in groupings)
        yield f"{name} ({slowest[1]} is slowest)", slowest[0], wanted_ms
    for name, groupings, wanted_ms in (
        ("one dimension, no interval", ones, 300),
        ("two, no interval", pairs, 800),
    ):
        slowest = max((_p95_ms(service, one, "none"), ",".join(one)) for one in groupings)
        yield f"{name} ({slowest[1]} is slowest)", slowest[0], wanted_ms


def _p95_ms(service: Service, group_by: tuple[str, ...], interval: str) -> float:
    taken = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        service.call("GET", f"/v1/usage?group_by={','.join(group_by)}&interval={interval}")
        taken.append((time.perf_counter() - begun) * 1000)
    return sorted(taken)[REPEATS * 95 // 100]
