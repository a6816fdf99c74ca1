"""Reading rows by a statement of one's own, on Django's connection."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection

Row = tuple[Any, ...]
Rows = list[Row]
Parameters = Sequence[Any] | Mapping[str, Any]


def fetch_rows(
    statement: str, parameters: Parameters | None = None, *, tuning: str | None = None
) -> Rows:
    """Return every row of a statement. `tuning` is run before it, as `SET LOCAL` is."""
    with connection.cursor() as cursor:
        if tuning is not None:
            cursor.execute(tuning)
        cursor.execute(statement, parameters)
        rows: Rows = cursor.fetchall()
        return rows


def fetch_row(statement: str, parameters: Parameters | None = None) -> Row:
    """Return the only row of a statement."""
    (row,) = fetch_rows(statement, parameters)
    return row
