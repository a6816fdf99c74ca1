"""Which combinations of values were used on a day of UTC, and from when until when.

How many different users, sessions or customers there were is counted from these: the times of the
first and the last call tell whether a combination was used in the part of a day that lies in some
zone's day, so no bucket of whole days has to read events.

Whoever takes the first or last call away leaves a time that may be too wide; it is not known then
until `find_times` has looked for the calls that remain.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

import numpy as np
from django.db import connection
from django.db.backends.utils import CursorWrapper

from metering.models import BATCH_ID_STRIDE
from metering.rollups.sets import COMBINED, DAY_SECONDS
from metering.rollups.sums import WHOLE_MAX, EventColumns

# Rows whose times are looked for in one transaction: each may read a day of a tenant's events.
SEARCHED_MAX: Final = 10

COLUMN_LIST: Final = ", ".join(f'"{name}"' for name in COMBINED)
_TIMES: Final = "first_microsecond, last_microsecond"
CREATE_DELTA: Final = f"""
    CREATE TEMPORARY TABLE IF NOT EXISTS combination_delta ON COMMIT DELETE ROWS AS
        SELECT starts_at, {COLUMN_LIST}, id, calls, calls AS first_microsecond,
            calls AS last_microsecond
        FROM usage_combination WITH NO DATA
"""
EMPTY_DELTA: Final = "TRUNCATE pg_temp.combination_delta"
COPY_DELTA: Final = f"""
    COPY pg_temp.combination_delta (starts_at, {COLUMN_LIST}, id, calls, {_TIMES}) FROM STDIN
"""
# Values of up to 200 characters each are too long for an index.
ID_BYTES: Final = 16
_AT: Final = "'epoch'::timestamptz + {} * interval '1 microsecond'"
ADD_DELTA: Final = f"""
    INSERT INTO usage_combination AS c (tenant_id, starts_at, id, {COLUMN_LIST}, calls,
        first_at, last_at, is_first_known, is_last_known)
    SELECT %s, starts_at, id, {COLUMN_LIST}, calls, {_AT.format("first_microsecond")},
        {_AT.format("last_microsecond")}, true, true
    FROM pg_temp.combination_delta
    ON CONFLICT (tenant_id, starts_at, id) DO UPDATE SET
        calls = c.calls + excluded.calls,
        first_at = CASE WHEN excluded.calls > 0
            THEN least(c.first_at, excluded.first_at) ELSE c.first_at END,
        last_at = CASE WHEN excluded.calls > 0
            THEN greatest(c.last_at, excluded.last_at) ELSE c.last_at END,
        is_first_known = CASE WHEN excluded.calls > 0
            THEN c.is_first_known OR excluded.first_at <= c.first_at
            ELSE c.is_first_known AND excluded.first_at > c.first_at END,
        is_last_known = CASE WHEN excluded.calls > 0
            THEN c.is_last_known OR excluded.last_at >= c.last_at
            ELSE c.is_last_known AND excluded.last_at < c.last_at END
"""
_REMOVE_UNUSED: Final = """
    DELETE FROM usage_combination c
    USING (SELECT starts_at, id FROM pg_temp.combination_delta OFFSET 0) d
    WHERE c.tenant_id = %s AND c.starts_at = d.starts_at AND c.id = d.id AND c.calls = 0
"""
_FIND_TIMES: Final = f"""
    UPDATE usage_combination c SET first_at = found.first_at, last_at = found.last_at,
        is_first_known = true, is_last_known = true
    FROM (
        SELECT * FROM usage_combination
        WHERE tenant_id = %(tenant)s AND NOT (is_first_known AND is_last_known) LIMIT %(limit)s
    ) searched CROSS JOIN LATERAL (
        SELECT min(e.time) AS first_at, max(e.time) AS last_at FROM usage_event e
        WHERE e.tenant_id = %(tenant)s
            AND e.time >= searched.first_at AND e.time <= searched.last_at AND NOT e.is_void
            AND {" AND ".join(f'e."{name}" = searched."{name}"' for name in COMBINED)}
            AND EXISTS (
                SELECT FROM ingest_batch b WHERE b.tenant_id = %(tenant)s
                AND b.id = e.id / {BATCH_ID_STRIDE} AND b.rolled_up_at IS NOT NULL
            )
    ) found
    WHERE c.tenant_id = %(tenant)s AND c.starts_at = searched.starts_at AND c.id = searched.id
        AND found.first_at IS NOT NULL
"""


class CombinationRows(NamedTuple):
    """Combinations as columns, in the order of the index: each day's start in seconds since the
    epoch, the values of COMBINED, and last the id, the number of calls and the microseconds of the
    first and the last.
    """

    starts: list[int]
    values: list[list[str]]
    numbers: list[Sequence[int | str]]


def combinations_of(events: EventColumns, *, sign: int) -> CombinationRows:
    """Return the combinations of the events with their calls times `sign`."""
    days = events.buckets[DAY_SECONDS]
    key, size = days.codes, len(days.values)
    for name in COMBINED:
        column = events.dimensions[name]
        if size * len(column.values) > WHOLE_MAX:
            present, key = np.unique(key, return_inverse=True)
            size = present.size
        key = key * len(column.values) + column.codes
        size *= len(column.values)
    _, places, group = np.unique(key, return_index=True, return_inverse=True)
    calls = np.bincount(group)
    first = np.full(places.size, WHOLE_MAX, np.int64)
    last = np.full(places.size, -WHOLE_MAX, np.int64)
    np.minimum.at(first, group, events.microseconds)
    np.maximum.at(last, group, events.microseconds)
    columns = [events.dimensions[name] for name in COMBINED]
    ids = _ids([column.chosen(places) for column in columns])
    # In the order of the index, which halves the time of writing them; the first half of an id
    # tells its place.
    halves = np.frombuffer(b"".join(ids), ">u8")[::2]
    order = np.lexsort((halves, days.codes[places]))
    places = places[order]
    return CombinationRows(
        days.chosen(places),
        [column.chosen(places) for column in columns],
        [
            [ids[index].hex() for index in order.tolist()],
            (calls * sign)[order].tolist(),
            first[order].tolist(),
            last[order].tolist(),
        ],
    )


def _ids(columns: Sequence[Sequence[str]]) -> list[bytes]:
    """Return what the values of each combination are found by. No value holds NUL."""
    return [
        blake2b("\x00".join(values).encode(), digest_size=ID_BYTES).digest()
        for values in zip(*columns, strict=True)
    ]


def add_combinations(cursor: CursorWrapper, tenant_id: int, *, sign: Literal[-1, 1]) -> None:
    """Add the rows of the temporary table; what is used no more goes."""
    cursor.execute(ADD_DELTA, [tenant_id])
    if sign < 0:
        cursor.execute(_REMOVE_UNUSED, [tenant_id])


def find_times(tenant_id: int) -> None:
    """Find the first and last calls of a few combinations of which they are not known. Call it with
    the lock on the tenant's roll-ups.
    """
    with connection.cursor() as cursor:
        cursor.execute(_FIND_TIMES, {"tenant": tenant_id, "limit": SEARCHED_MAX})
