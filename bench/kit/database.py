"""Statements that see all tenants."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import TupleRow

Connection = psycopg.Connection[TupleRow]
Row = tuple[Any, ...]


@contextmanager
def seeing_all_tenants(connection: Connection) -> Iterator[None]:
    """Open a transaction that row-level security does not bind to a tenant."""
    with connection.transaction():
        connection.execute("SET LOCAL spendgate.platform = 'bench'")
        yield


def fetch_rows(
    connection: Connection, query: str, values: Sequence[object] | Mapping[str, object] = ()
) -> list[Row]:
    """Return the rows that a query finds among all tenants."""
    with seeing_all_tenants(connection):
        return connection.execute(query.encode(), values).fetchall()


def fetch_number(connection: Connection, query: str, *values: object) -> int:
    """Return the number that a query finds among all tenants."""
    ((number,),) = fetch_rows(connection, query, values)
    return int(number)
