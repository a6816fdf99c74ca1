"""Stored events in the order of time and id, read a stretch at a time."""

from datetime import datetime
from typing import Final, NamedTuple

from django.db import connection
from psycopg import sql

from metering.models import CostSource

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
    with connection.cursor() as cursor:
        cursor.execute(
            # The condition on time alone leaves out partitions, which the one on both does not.
            "SELECT count(*) OVER (), time, id FROM (SELECT time, id FROM usage_event"
            " WHERE tenant_id = %s AND time >= %s AND (time, id) > (%s, %s)"
            " AND time < coalesce(%s, 'infinity'::timestamptz)"
            " ORDER BY time, id LIMIT %s) s ORDER BY time DESC, id DESC LIMIT 1",
            [tenant_id, after.time, *after, to, limit],
        )
        row = cursor.fetchone()
    return None if row is None else Stretch(row[0], Position(row[1], row[2]))


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
    with connection.cursor() as cursor:
        cursor.execute(
            # The number is written out, so that the partial index of unpriced events fits.
            "SELECT FROM usage_event WHERE tenant_id = %s"
            f" AND cost_source = {CostSource.UNPRICED.value} OFFSET %s LIMIT 1",
            [tenant_id, AT_ONCE_MAX],
        )
        return cursor.fetchone() is None
