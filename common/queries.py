"""Reading rows by a statement of one's own, on Django's connection."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Protocol, cast
from uuid import UUID

from django.db import connection

Row = tuple[Any, ...]
Rows = list[Row]
# What a cursor takes.
Parameter = str | bytes | int | float | Decimal | date | UUID | list[Any] | tuple[Any, ...] | None
Parameters = Sequence[object] | Mapping[str, object]


class TakesStatements(Protocol):
    """A cursor, or what sends statements whose answers no one waits for."""

    def execute(self, statement: str, parameters: Sequence[Parameter], /) -> object: ...


def fetch_rows(
    statement: str, parameters: Parameters | None = None, *, tuning: str | None = None
) -> Rows:
    """Return every row of a statement. `tuning` is run before it, as `SET LOCAL` is."""
    with connection.cursor() as cursor:
        if tuning is not None:
            cursor.execute(tuning)
        # Django's types leave out some that psycopg adapts.
        cursor.execute(statement, cast(Any, parameters))
        rows: Rows = cursor.fetchall()
        return rows


def fetch_row(statement: str, parameters: Parameters | None = None) -> Row:
    """Return the only row of a statement."""
    (row,) = fetch_rows(statement, parameters)
    return row
