"""What the same PostgreSQL takes at most: COPY, then insert-on-conflict, into a table as wide as
ours.
"""

import time
from typing import Any

import psycopg

BATCH_ROWS = 1_000
BATCHES = 60


def rows_per_second(connection: psycopg.Connection[Any]) -> float:
    """Rows a second through one connection, a transaction a thousand rows, dedupe by unique key.

    The rows are copies of stored events under new ids, so that they are as wide as real ones.
    """
    with connection.transaction():
        connection.execute("SET LOCAL spendgate.platform = 'benchmark'")
        connection.execute("DROP TABLE IF EXISTS raw_limit")
        connection.execute(
            "CREATE TABLE raw_limit (LIKE usage_event, UNIQUE (tenant_id, source, sent_id))"
        )
        connection.execute(
            "CREATE TEMP TABLE raw_incoming (LIKE usage_event) ON COMMIT DELETE ROWS"
        )
        with connection.cursor().copy(
            f"COPY (SELECT * FROM usage_event LIMIT {BATCH_ROWS}) TO STDOUT"  # noqa: S608
        ) as copy:
            sample = b"".join(bytes(block) for block in copy).decode()
    lines = sample.splitlines()
    place = _place_of_sent_id(connection)
    batches = [_batch(lines, place, number) for number in range(BATCHES)]
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


def _place_of_sent_id(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "SELECT attnum - 1 FROM pg_attribute WHERE attrelid = 'usage_event'::regclass"
        " AND attname = 'sent_id'"
    ).fetchone()
    return int(row[0]) if row is not None else 0


def _batch(lines: list[str], place: int, number: int) -> bytes:
    rows = []
    for line in lines:
        cells = line.split("\t")
        cells[place] = f"{number}-{cells[place]}"
        rows.append("\t".join(cells))
    return ("\n".join(rows) + "\n").encode()
