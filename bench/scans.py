"""How long a scan takes while very many small batches wait, and how old transactions become then.

Roll-ups are held off by the lock that they take. The batches are written by SQL, as copies of what
was sent: reservations and settles make as many in an hour. The service's own schedule scans them;
everything else that it does continues beside it.
"""

import json
import time
from typing import Final, NamedTuple

from bench.events import Load
from bench.kit.database import Connection, fetch_number, seeing_all_tenants
from bench.kit.figures import Row
from bench.kit.service import Service

# The first of the two numbers of the lock under which a tenant is rolled up.
ROLL_UP_LOCK: Final = 7303
EVENTS_PER_BATCH_ID: Final = 16_384
LOOK_SECONDS: Final = 0.01
SCANNED_WITHIN_SECONDS: Final = 600.0
COPIED: Final = 1_000
# Times of the copies: within so long, up to now.
SPREAD_SECONDS: Final = 1_800

_COPY_BATCHES: Final = """
    INSERT INTO ingest_batch (tenant_id, id, received_at, event_count, first_at, last_at)
    SELECT %(tenant)s, nextval('ingest_batch_id'), now(), %(per_batch)s,
        now() - make_interval(secs => %(spread)s), now()
    FROM generate_series(1, %(batches)s)
    RETURNING id
"""
_COPY_EVENTS: Final = """
    WITH copied AS (
        SELECT row_number() OVER (ORDER BY id) - 1 AS number, * FROM usage_event
        ORDER BY id LIMIT %(copied)s
    )
    INSERT INTO usage_event (id, time, session, {columns})
    SELECT b.id * %(stride)s + k, now() - make_interval(secs => %(spread)s * random()),
        'copy-' || b.id || '-' || k / 12, {columns}
    FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS b (id, place),
        generate_series(0, %(per_batch)s - 1) k
    JOIN copied ON true WHERE copied.number = (b.place * %(per_batch)s + k) %% %(copied)s
"""
_ACTIVITY: Final = """
    SELECT extract(epoch FROM clock_timestamp() - xact_start)::float8,
        CASE WHEN state = 'active'
            THEN extract(epoch FROM clock_timestamp() - query_start)::float8 ELSE 0 END,
        query
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> ALL(%s)
"""


class Scan(NamedTuple):
    """A scan as it was seen from outside."""

    seconds: float
    slowest_seconds: float
    slowest: str
    oldest_transaction_seconds: float


def measure(service: Service, row: Row, *, batches: int, events: int) -> None:
    """Queue a number of batches of events, and note how the service scans them."""
    service.create_tenant("scans")
    with service.connect() as connection:
        tenant_id = fetch_number(connection, "SELECT max(id) FROM tenant")
        connection.execute("SELECT pg_advisory_lock(%s, %s)", [ROLL_UP_LOCK, tenant_id])
        # Of a day: there is something to learn before anything is judged.
        (body,) = Load(seed=1, name="scans", days=1).bodies(batches=1, size=COPIED)
        service.call("POST", "/v1/events", json.loads(body))
        newest = _copy(connection, tenant_id, batches=batches, events=events)
        scan = _watch(service, connection, tenant_id, newest)
    what = f"Scan, {events:,} events in {batches:,} batches waiting"
    row(what, f"{scan.seconds:.1f} s", "5 s")
    row("Slowest statement meanwhile", f"{scan.slowest_seconds:.1f} s ({scan.slowest})", "2 s")
    row("Oldest transaction meanwhile", f"{scan.oldest_transaction_seconds:.1f} s", "3 s")


def _copy(connection: Connection, tenant_id: int, *, batches: int, events: int) -> int:
    """Write the batches that wait; return the newest."""
    per_batch = max(1, events // batches)
    with seeing_all_tenants(connection):
        columns = ", ".join(
            f'"{name}"'
            for (name,) in connection.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_name = 'usage_event'"
                " AND column_name NOT IN ('id', 'time', 'session')"
            )
        )
        values = {
            "tenant": tenant_id,
            "per_batch": per_batch,
            "batches": batches,
            "spread": SPREAD_SECONDS,
            "copied": COPIED,
            "stride": EVENTS_PER_BATCH_ID,
        }
        ids = [row[0] for row in connection.execute(_COPY_BATCHES, values)]
        statement = _COPY_EVENTS.format(columns=columns)
        connection.execute(statement.encode(), {**values, "ids": ids})
    return int(ids[-1])


def _watch(service: Service, connection: Connection, tenant_id: int, newest: int) -> Scan:
    """Look at what runs until a scan has seen the newest batch."""
    begun_at: float | None = None
    slowest, oldest = (0.0, ""), 0.0
    end = time.monotonic() + SCANNED_WITHIN_SECONDS
    with service.connect() as own:
        own_pids = [connection.info.backend_pid, own.info.backend_pid]
        while time.monotonic() < end:
            for age, seconds, query in own.execute(_ACTIVITY, [own_pids]):
                oldest = max(oldest, age)
                slowest = max(slowest, (seconds, " ".join(query.split())[:60]))
                if begun_at is None and "WITH waiting AS MATERIALIZED" in query:
                    begun_at = time.monotonic()
            seen = fetch_number(
                own,
                "SELECT coalesce(max(batch_id), 0) FROM scan_progress WHERE tenant_id = %s",
                tenant_id,
            )
            if seen >= newest:
                took = 0.0 if begun_at is None else time.monotonic() - begun_at
                return Scan(took, *slowest, oldest)
            time.sleep(LOOK_SECONDS)
    raise SystemExit("The batches were not scanned.")
