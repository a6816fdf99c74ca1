"""Which batches are rolled up when, and the one writer of roll-up rows."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import repeat
from typing import Final, Literal

import numpy as np
from django.db import connection, transaction
from psycopg import Cursor
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

from common.queries import Rows, fetch_row, fetch_rows
from metering.models import MEASURES
from metering.rollups.call_sizes import learn
from metering.rollups.combinations import (
    COPY_DELTA,
    CREATE_DELTA,
    EMPTY_DELTA,
    CombinationRows,
    add_combinations,
    combinations_of,
    find_times,
)
from metering.rollups.long_tail import fold_long_tail
from metering.rollups.sets import MEASURE_LIST, QUARTER_SECONDS, TEXTS
from metering.rollups.sums import (
    EVENT_COLUMNS,
    EventColumns,
    SetRows,
    Whole,
    counts_by_set,
    sums_by_set,
)
from metering.usage.batch_events import events_of_batches
from tenants.claims import ClaimSize

# One transaction per tenant writes roll-ups at a time, so that two never fold the same value
# differently.
ROLL_UP_LOCK: Final = 7303
# The number of events in memory at a time, at about 1 KB each.
PORTION_EVENTS_MAX: Final = 80_000
# The number of events added up in one transaction: the more, the fewer rows are written for each.
# Fewer than the least make a transaction hardly shorter where they are scattered over a month.
CLAIM_EVENTS: Final = ClaimSize(least=4_000, first=10_000, most=200_000)
# What a transaction costs by itself is most of what it costs to add up fewer events. Until they are
# added up they are read one by one, which takes a millisecond or two.
FEW_EVENTS: Final = 500
# What is worth gathering before it is added up: less than a transaction's events, of more than a
# span.
COMPACT_SPAN: Final = timedelta(days=1)

# Times and values come again in many sets: this many are remembered as COPY reads them.
WORDS_REMEMBERED: Final = 1 << 15

CREATE_DELTAS: Final = f"""
    CREATE TEMPORARY TABLE IF NOT EXISTS usage_delta ON COMMIT DELETE ROWS AS
        SELECT dimension_set, starts_at, value_1, value_2, {MEASURE_LIST} FROM usage_rollup
        WITH NO DATA;
    CREATE TEMPORARY TABLE IF NOT EXISTS usage_histogram_delta ON COMMIT DELETE ROWS AS
        SELECT dimension_set, starts_at, value_1, measure, bin, count FROM usage_histogram
        WITH NO DATA;
    CREATE TEMPORARY TABLE IF NOT EXISTS usage_folded ON COMMIT DELETE ROWS AS
        SELECT dimension_set, starts_at, value_1, value_2, true AS is_present FROM usage_rollup
        WITH NO DATA
"""
EMPTY_DELTAS: Final = (
    "TRUNCATE pg_temp.usage_delta, pg_temp.usage_histogram_delta, pg_temp.usage_folded"
)
COPY_DELTAS: Final = f"""
    COPY pg_temp.usage_delta (dimension_set, starts_at, value_1, value_2, {MEASURE_LIST}) FROM STDIN
"""
COPY_HISTOGRAMS: Final = """
    COPY pg_temp.usage_histogram_delta (dimension_set, starts_at, value_1, measure, bin, count)
    FROM STDIN
"""
# Deltas are distinct, and in the order of the index, so that its neighbors are written together.
ADD_DELTAS: Final = f"""
    INSERT INTO usage_rollup AS r
        (tenant_id, dimension_set, starts_at, value_1, value_2, {MEASURE_LIST})
    SELECT %s, dimension_set, starts_at, value_1, value_2, {MEASURE_LIST} FROM pg_temp.usage_delta
    ON CONFLICT (tenant_id, dimension_set, starts_at, value_1, value_2) DO UPDATE SET
        {", ".join(f"{name} = r.{name} + excluded.{name}" for name in MEASURES)}
"""
ADD_HISTOGRAMS: Final = """
    INSERT INTO usage_histogram AS h
        (tenant_id, dimension_set, starts_at, value_1, measure, bin, count)
    SELECT %s, dimension_set, starts_at, value_1, measure, bin, count
    FROM pg_temp.usage_histogram_delta
    ON CONFLICT (tenant_id, dimension_set, starts_at, value_1, measure, bin)
        DO UPDATE SET count = h.count + excluded.count
"""


@transaction.atomic
def roll_up(
    *,
    tenant_id: int,
    patience: timedelta = timedelta(),
    grace: timedelta = timedelta(),
) -> int:
    """Add waiting batches, oldest first, to the roll-ups; return their number, 0 if there is
    nothing to do now.

    Call it inside the tenant's scope, again and again: one transaction takes as many batches as it
    can in about a second, at least one. Safe to run twice, by several at the same time and killed
    anywhere: the batches are marked in the same transaction. Batches that a correction holds are
    left for later. Batches younger than `grace` wait: further reports of their calls are about to
    come. Few events of many days (old ones that are sent late) are left to gather for as long as
    `patience`: what is added up together writes fewer rows.
    """
    (is_locked,) = fetch_row("SELECT pg_try_advisory_xact_lock(%s, %s)", [ROLL_UP_LOCK, tenant_id])
    if not is_locked:
        return 0
    find_times(tenant_id)
    if _shall_gather(tenant_id, patience):
        return 0
    counts = _claim(tenant_id, CLAIM_EVENTS.of(tenant_id), grace)
    if not counts:
        return 0
    with (
        CLAIM_EVENTS.measured(tenant_id, count=sum(counts.values())),
        connection.cursor() as cursor,
    ):
        _post(tenant_id, _portions(tenant_id, counts), sign=1)
        cursor.execute(
            "UPDATE ingest_batch SET rolled_up_at = now() WHERE tenant_id = %s AND id = ANY(%s)",
            [tenant_id, list(counts)],
        )
    return len(counts)


def lock_batches(*, tenant_id: int, batch_ids: Iterable[int]) -> set[int]:
    """Keep these batches as they are, rolled up or not, until this transaction ends; return those
    that are rolled up.

    Code that changes events' rating or voids them calls this first and posts deltas for the events
    of those batches; the others count as they are when their turn comes.
    """
    rows = fetch_rows(
        "SELECT id, rolled_up_at IS NOT NULL FROM ingest_batch"
        " WHERE tenant_id = %s AND id = ANY(%s) ORDER BY id FOR SHARE",
        [tenant_id, sorted(set(batch_ids))],
    )
    return {batch_id for batch_id, is_rolled_up in rows if is_rolled_up}


def post_deltas(*, tenant_id: int, event_ids: Sequence[int], sign: Literal[-1, 1]) -> None:
    """Add (1) or take away (-1) what these stored events count now, in every roll-up.

    In one transaction: lock their batches, take the rolled-up ones' events away, change the events,
    add them again. Void events count nothing, so voiding is the same three steps. Events of batches
    that are not rolled up must not be named.
    """
    if not event_ids:
        return
    fetch_row("SELECT pg_advisory_xact_lock(%s, %s)", [ROLL_UP_LOCK, tenant_id])
    events = _read_events(tenant_id, "id = ANY(%s)", [list(event_ids)])
    _post(tenant_id, [] if events is None else [events], sign=sign)


def tenants_waiting(grace: timedelta = timedelta(), patience: timedelta = timedelta()) -> list[int]:
    """Return tenants with batches to roll up that are older than `grace`: FEW_EVENTS events at
    least, or one that is older than `patience`. Needs a platform scope.
    """
    rows = fetch_rows(
        "SELECT tenant_id FROM ingest_batch"
        " WHERE rolled_up_at IS NULL AND received_at <= now() - %s"
        " GROUP BY tenant_id HAVING sum(event_count) >= %s OR min(received_at) <= now() - %s",
        [grace, FEW_EVENTS, patience],
    )
    return sorted(tenant_id for (tenant_id,) in rows)


def _shall_gather(tenant_id: int, patience: timedelta) -> bool:
    """Whether what waits is scattered over time, is not much yet, and has not waited for long."""
    if not patience:
        return False
    (is_scattered,) = fetch_row(
        "SELECT sum(event_count) < %s AND max(last_at) - min(first_at) > %s"
        " AND min(received_at) > now() - %s"
        " FROM ingest_batch WHERE tenant_id = %s AND rolled_up_at IS NULL",
        [CLAIM_EVENTS.of(tenant_id), COMPACT_SPAN, patience, tenant_id],
    )
    return bool(is_scattered)


def _claim(tenant_id: int, events_max: int, grace: timedelta) -> dict[int, int]:
    """Lock waiting batches in id order as long as they hold `events_max` events, or the first.

    Return the number of events of each.
    """
    waiting = fetch_rows(
        """
        SELECT id FROM (
            SELECT id, event_count,
                sum(event_count) OVER (ORDER BY id) - event_count AS events_before
            FROM (
                SELECT id, event_count FROM ingest_batch
                WHERE tenant_id = %s AND rolled_up_at IS NULL
                AND received_at <= now() - %s ORDER BY id LIMIT %s
            ) oldest
        ) waiting WHERE events_before = 0 OR events_before + event_count <= %s
        """,
        [tenant_id, grace, events_max, events_max],
    )
    return dict(
        fetch_rows(
            "SELECT id, event_count FROM ingest_batch WHERE tenant_id = %s AND id = ANY(%s)"
            " AND rolled_up_at IS NULL ORDER BY id FOR UPDATE SKIP LOCKED",
            [tenant_id, [batch_id for (batch_id,) in waiting]],
        )
    )


def _portions(tenant_id: int, counts: dict[int, int]) -> Iterator[EventColumns]:
    """Read the batches' events in portions that fit into memory, and learn from each.

    Cut by time, not by batch: events that are near each other in time share most of their sums.
    """
    condition, parameters = events_of_batches(list(counts))
    if sum(counts.values()) <= PORTION_EVENTS_MAX:
        spans: Sequence[Sequence[int]] = [()]
        within = condition
    else:
        quarters = fetch_rows(
            "SELECT floor(extract(epoch FROM time) / %s)::bigint * %s AS quarter, count(*)"
            f" FROM usage_event WHERE tenant_id = %s AND {condition}"
            " GROUP BY quarter ORDER BY quarter",
            [QUARTER_SECONDS, QUARTER_SECONDS, tenant_id, *parameters],
        )
        spans = list(_cut(quarters))
        within = f"time >= to_timestamp(%s) AND time < to_timestamp(%s) AND {condition}"
    for span in spans:
        events = _read_events(tenant_id, within, [*span, *parameters])
        if events is not None:
            learn(tenant_id=tenant_id, events=events)
            yield events


def _cut(counts: Rows) -> Iterator[tuple[int, int]]:
    """Yield spans of whole quarters, in epoch seconds: each of a portion's events or of one
    quarter.
    """
    starts_at, total = counts[0][0], 0
    for quarter, count in counts:
        if total and total + count > PORTION_EVENTS_MAX:
            yield starts_at, quarter
            starts_at, total = quarter, 0
        total += count
    yield starts_at, counts[-1][0] + QUARTER_SECONDS


def _read_events(
    tenant_id: int, condition: str, parameters: Sequence[object]
) -> EventColumns | None:
    """Read the events as columns; None if there are none."""
    connection.ensure_connection()
    # Django's own cursor transfers numbers as text; arrays of binary ones are read in one go.
    with Cursor(connection.connection) as cursor:
        cursor.adapters.register_loader(cursor.adapters.types["int8"].array_oid, _WholeLoader)
        arrays = ", ".join(f"array_agg({column})" for column in EVENT_COLUMNS)
        cursor.execute(
            f"SELECT {arrays} FROM usage_event"
            f" WHERE tenant_id = %s AND {condition} AND NOT is_void",
            [tenant_id, *parameters],
            binary=True,
        )
        columns = cursor.fetchone()
    if columns is None or columns[0] is None:
        return None
    width = len(TEXTS)
    return EventColumns(texts=columns[:width], numbers=columns[width:])


class _WholeLoader(Loader):
    """Reads a bigint[] without NULL: 20 bytes of head, then a length and a number each."""

    format = Format.BINARY
    ITEM = np.dtype([("length", ">i4"), ("number", ">i8")])

    def load(self, data: Buffer) -> Whole:
        items = np.frombuffer(data, self.ITEM, offset=20)
        return items["number"].astype(np.int64)


def _post(tenant_id: int, portions: Iterable[EventColumns], *, sign: Literal[-1, 1]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(CREATE_DELTAS)
        cursor.execute(CREATE_DELTA)
        for events in portions:
            cursor.execute(EMPTY_DELTAS)
            cursor.execute(EMPTY_DELTA)
            for statement, add_up in (
                (COPY_DELTAS, sums_by_set),
                (COPY_HISTOGRAMS, counts_by_set),
            ):
                with connection.wrap_database_errors, cursor.cursor.copy(statement) as copy:
                    for rows in add_up(events, sign=sign):
                        copy.write(_lines(rows, str(rows.set_number)))
            with connection.wrap_database_errors, cursor.cursor.copy(COPY_DELTA) as copy:
                copy.write(_lines(combinations_of(events, sign=sign)))
            fold_long_tail(cursor, tenant_id, sign=sign)
            cursor.execute(ADD_DELTAS, [tenant_id])
            cursor.execute(ADD_HISTOGRAMS, [tenant_id])
            add_combinations(cursor, tenant_id, sign=sign)


def _lines(rows: SetRows | CombinationRows, *first: str) -> str:
    """Return rows as COPY reads them, each after the same first columns."""
    columns = (
        *map(repeat, first),
        map(_timestamp, rows.starts),
        *(map(_escape, values) for values in rows.values),
        *(map(str, numbers) for numbers in rows.numbers),
    )
    lines = map("\t".join, zip(*columns, strict=False))
    return "\n".join([*lines, ""])


@lru_cache(maxsize=WORDS_REMEMBERED)
def _timestamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@lru_cache(maxsize=WORDS_REMEMBERED)
def _escape(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("\t", "\\t")
    return escaped.replace("\n", "\\n").replace("\r", "\\r")
