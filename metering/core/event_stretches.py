"""Stored events in the order of time and id, read a stretch at a time."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from django.db import connection
from psycopg import sql

from common.queries import Rows, fetch_rows
from metering.models import CostSource
from tenants.scope import tenant_scope

# Work on at most this many events is done while a client waits.
AT_ONCE_MAX: Final = 5_000


class Position(NamedTuple):
    """A place in the order of events: that of an event, or just before all of a moment."""

    time: datetime
    id: int = 0


class Stretch(NamedTuple):
    """Events that follow each other: how many, and the place of the last."""

    events: int
    end: Position


def next_stretch(
    *, tenant_id: int, after: Position, limit: int, to: datetime | None = None
) -> Stretch | None:
    """The next events after a position, `limit` at most, void ones included; None: there are no
    more.
    """
    # The condition on time alone leaves out partitions, which the one on both does not.
    rows = fetch_rows(
        "SELECT count(*) OVER (), time, id FROM (SELECT time, id FROM usage_event"
        " WHERE tenant_id = %s AND time >= %s AND (time, id) > (%s, %s)"
        " AND time < coalesce(%s, 'infinity'::timestamptz)"
        " ORDER BY time, id LIMIT %s) s ORDER BY time DESC, id DESC LIMIT 1",
        [tenant_id, after.time, *after, to, limit],
    )
    return next((Stretch(count, Position(time, id_)) for count, time, id_ in rows), None)


def read_stretches(
    statement: str,
    parameters: Sequence[object] = (),
    *,
    tenant_id: int,
    after: Position,
    to: datetime,
    limit: int,
) -> Iterator[tuple[Position, Rows]]:
    """Run a statement for one stretch of events after another; yield where each ended, and its
    rows. `{within}` in the statement stands for the stretch.

    Each is read in a transaction of its own, unless the caller has one, so that reading a long time
    keeps no old rows alive and takes no more memory.
    """
    while True:
        with tenant_scope(tenant_id), connection.cursor() as cursor:
            stretch = next_stretch(tenant_id=tenant_id, after=after, to=to, limit=limit)
            if stretch is None:
                return
            within = within_stretch(after, stretch.end).as_string(cursor.cursor)
            rows = fetch_rows(statement.format(within=within), parameters)
        yield stretch.end, rows
        after = stretch.end


def within_stretch(after: Position, end: Position) -> sql.Composable:
    """A condition on `e` for events after one position, up to another."""
    return sql.SQL(
        "e.time >= {time} AND e.time <= {end_time}"
        " AND (e.time, e.id) > ({time}, {id}) AND (e.time, e.id) <= ({end_time}, {end_id})"
    ).format(
        time=sql.Literal(after.time),
        id=sql.Literal(after.id),
        end_time=sql.Literal(end.time),
        end_id=sql.Literal(end.id),
    )


def are_few_events(*, tenant_id: int, from_: datetime, to: datetime) -> bool:
    """Whether work on the events of a time can be done while a client waits."""
    stretch = next_stretch(tenant_id=tenant_id, after=Position(from_), to=to, limit=AT_ONCE_MAX + 1)
    return stretch is None or stretch.events <= AT_ONCE_MAX


def are_few_unpriced(tenant_id: int) -> bool:
    """The same of the events without a price."""
    # The number is written out, so that the partial index of unpriced events fits.
    rows = fetch_rows(
        "SELECT FROM usage_event WHERE tenant_id = %s"
        f" AND cost_source = {CostSource.UNPRICED.value} OFFSET %s LIMIT 1",
        [tenant_id, AT_ONCE_MAX],
    )
    return not rows
