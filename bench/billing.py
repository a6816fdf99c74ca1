"""How long a month end takes: ten thousand customers with a hundred lines each, and how long one of
their drafts takes to read.

Customers and their calls are written by SQL, as copies of what was sent. The calls name models and
features at random, so that the pairs of a day are more than any roll-up keeps. The service's own
worker rolls them up before anything is measured.
"""

import json
import resource
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from bench.events import Load
from bench.kit.database import Connection, fetch_number, seeing_all_tenants
from bench.kit.figures import Row
from bench.kit.load import percentile
from bench.kit.service import Service
from bench.reading import wait_for_roll_ups

MODELS: Final = 60
FEATURES: Final = 20
PAIRS: Final = 20
DRAFTS_READ: Final = 50
EVENTS_PER_BATCH_ID: Final = 16_384
EVENTS_A_BATCH: Final = 5_000
BATCHES_AT_ONCE: Final = 20
WANTED_SECONDS: Final = 300

_COPY_ROWS: Final = {
    "customer": """
        INSERT INTO customer (key, name, next_draft_at, {columns})
        SELECT 'customer-' || n, 'Customer ' || n, now(), {columns}
        FROM customer, generate_series(1, %(count)s) n WHERE key = 'customer-0'
    """,
    "customer_link": """
        INSERT INTO customer_link (customer_id, value, {columns})
        SELECT linked, key, {columns}
        FROM (SELECT id AS linked, key FROM customer WHERE key <> 'customer-0') others,
            (SELECT {columns} FROM customer_link WHERE value = 'customer-0') copied
    """,
    "subscription": """
        INSERT INTO subscription (customer_id, {columns})
        SELECT subscribed, {columns}
        FROM (SELECT id AS subscribed FROM customer WHERE key <> 'customer-0') others,
            (SELECT {columns} FROM subscription) copied
    """,
}
_COPY_BATCHES: Final = """
    INSERT INTO ingest_batch (tenant_id, id, received_at, event_count, first_at, last_at,
        sessions_checked_at)
    SELECT %(tenant)s, nextval('ingest_batch_id'), now(), %(per_batch)s, %(from)s, %(to)s, now()
    FROM generate_series(1, %(batches)s)
    RETURNING id
"""
_COPY_EVENTS: Final = """
    INSERT INTO usage_event (id, time, customer, model, feature, {columns})
    SELECT b.id * %(stride)s + k,
        %(from)s::timestamptz + (%(to)s::timestamptz - %(from)s::timestamptz) * random(),
        'customer-' || 1 + floor(random() * %(customers)s)::int,
        'model-' || floor(random() * %(models)s)::int,
        'feature-' || floor(random() * %(features)s)::int, {columns}
    FROM unnest(%(ids)s::bigint[]) AS b (id), generate_series(0, %(per_batch)s - 1) k,
        (SELECT {columns} FROM usage_event ORDER BY id LIMIT 1) copied
"""


def measure(service: Service, row: Row, *, customers: int, events: int) -> None:
    """Bill last month's calls of as many customers."""
    service.create_tenant("billing")
    month = _last_month()
    _configure(service, month)
    with service.connect() as connection:
        _copy(service, connection, month, customers=customers, events=events)
        wait_for_roll_ups(connection)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        _measure_drafts(service, row, month, customers=customers, events=events)
        begun, used = time.perf_counter(), _processor_seconds(service)
        service.manage("finalise_statements", "--tenant", "billing", "--period", f"{month:%Y-%m}")
        seconds = time.perf_counter() - begun
        used = _processor_seconds(service) - used
        final = fetch_number(connection, "SELECT count(*) FROM statement WHERE state = 'final'")
        lines = fetch_number(connection, "SELECT count(*) FROM statement_line")
        last = fetch_number(connection, "SELECT max(sequence) FROM statement")
    if final != last or final < customers:
        raise SystemExit(f"{final:,} statements are final, and the last number is {last:,}.")
    row(
        f"Month end, {final:,} statements, {lines:,} lines, {events:,} calls",
        f"{seconds:.0f} s, {used:.0f} s of processors",
        f"{WANTED_SECONDS} s",
    )


def _processor_seconds(service: Service) -> float:
    """Return for how long processors worked for commands that ended, and for their sessions."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    sessions = sum(
        each.cpu_times().children_user + each.cpu_times().children_system
        for each in service.postmasters()
    )
    return spent.ru_utime + spent.ru_stime + sessions


def _last_month() -> datetime:
    first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first - timedelta(days=1)).replace(day=1)


def _configure(service: Service, month: datetime) -> None:
    """Make a plan of a hundred charges, one customer on it, and one call."""
    plan = {"name": "Everything", "currency": "USD", "charges": list(_charges())}
    created = service.call("POST", "/v1/plans", {**plan, "timezone": "UTC"})
    customer = {"key": "customer-0", "name": "Customer 0", "timezone": "UTC"}
    service.call("POST", "/v1/customers", {**customer, "currency": "USD"})
    starts_at = month.isoformat()
    subscription = {"customer": "customer-0", "plan": str(created["id"]), "starts_at": starts_at}
    service.call("POST", "/v1/subscriptions", subscription)
    (body,) = Load(seed=1, name="billing", days=1).bodies(batches=1, size=1)
    service.call("POST", "/v1/events", json.loads(body))


def _charges() -> Iterator[dict[str, object]]:
    each = {"kind": "usage", "model": "per_unit"}
    for number in range(MODELS):
        priced = {"metric": "input_tokens", "unit_amount": f"1.{number:02}", "per": 1_000_000}
        yield {**each, **priced, "name": f"M{number}", "filter": {"model": f"model-{number}"}}
    for number in range(FEATURES):
        priced = {"metric": "requests", "unit_amount": f"0.0{number + 1:02}"}
        yield {**each, **priced, "name": f"F{number}", "filter": {"feature": f"feature-{number}"}}
    tiers = [{"up_to": "1000", "unit_amount": "0.003"}, {"up_to": None, "unit_amount": "0.002"}]
    for number in range(PAIRS):
        wanted = {"model": f"model-{number}", "feature": f"feature-{number % FEATURES}"}
        yield {
            "kind": "usage",
            "model": "graduated",
            "metric": "output_tokens",
            "tiers": tiers,
            "name": f"P{number}",
            "filter": wanted,
        }


def _copy(
    service: Service, connection: Connection, month: datetime, *, customers: int, events: int
) -> None:
    tenant_id = fetch_number(connection, "SELECT max(id) FROM tenant")
    with seeing_all_tenants(connection):
        for table, statement in _COPY_ROWS.items():
            own = ("id", "key", "name", "next_draft_at", "customer_id")
            skipped = (*own, "value") if table == "customer_link" else own
            columns = _columns(connection, table, skipped)
            connection.execute(statement.format(columns=columns).encode(), {"count": customers})
    columns = _columns(connection, "usage_event", ("id", "time", "customer", "model", "feature"))
    batches = -(-events // EVENTS_A_BATCH)
    length = timedelta(days=28) / batches
    for first in range(0, batches, BATCHES_AT_ONCE):
        count = min(BATCHES_AT_ONCE, batches - first)
        values = {
            "tenant": tenant_id,
            "per_batch": EVENTS_A_BATCH,
            "batches": count,
            "from": month + first * length,
            "to": month + (first + count) * length,
            "customers": customers,
            "models": MODELS,
            "features": FEATURES,
            "stride": EVENTS_PER_BATCH_ID,
        }
        with seeing_all_tenants(connection):
            ids = [row[0] for row in connection.execute(_COPY_BATCHES, values)]
            statement = _COPY_EVENTS.format(columns=columns)
            connection.execute(statement.encode(), {**values, "ids": ids})


def _columns(connection: Connection, table: str, without: Sequence[str]) -> str:
    names = connection.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
        " AND column_name <> ALL(%s) ORDER BY ordinal_position",
        [table, list(without)],
    )
    return ", ".join(f'"{name}"' for (name,) in names)


def _measure_drafts(
    service: Service, row: Row, month: datetime, *, customers: int, events: int
) -> None:
    taken = []
    for number in range(1, DRAFTS_READ + 1):
        key = f"customer-{number * customers // DRAFTS_READ}"
        path = f"/v1/statements?customer={key}&period={month:%Y-%m}"
        service.call("GET", path)
        begun = time.perf_counter()
        service.call("GET", path)
        taken.append((time.perf_counter() - begun) * 1000)
    ms = percentile(sorted(taken), 95)
    row(f"A draft of 100 lines among {events:,} calls, p95", f"{ms:,.0f} ms", "100 ms")
