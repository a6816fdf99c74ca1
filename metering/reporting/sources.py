"""Which part of a range is answered from which roll-up, and which from events. Pure.

Every zone's offset is a multiple of 15 minutes, so buckets of any zone are whole 15-minute buckets;
a UTC day is used where it lies inside one bucket.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from metering.reporting.intervals import Bucket
from metering.rollups.sets import DAY_SECONDS, QUARTER_SECONDS, DimensionSet, find_set


class Stretch(NamedTuple):
    """A range of time and the roll-up that answers it; None: events."""

    source: DimensionSet | None
    starts_at: datetime
    ends_at: datetime


def sets_for(dimensions: frozenset[str]) -> list[DimensionSet]:
    """Return the roll-ups that know exactly these dimensions, the coarse one first."""
    sets = (find_set(dimensions, grain_seconds=grain) for grain in (DAY_SECONDS, QUARTER_SECONDS))
    return [dimension_set for dimension_set in sets if dimension_set is not None]


def stretches(buckets: Iterable[Bucket], sets: Sequence[DimensionSet]) -> list[Stretch]:
    """Cover each bucket with the coarsest sources that fit into it, then join neighbours."""
    joined: list[Stretch] = []
    for bucket in buckets:
        for stretch in _cover(bucket.reads_from, bucket.reads_to, sets):
            if (
                joined
                and joined[-1].source == stretch.source
                and joined[-1].ends_at == stretch.starts_at
            ):
                joined[-1] = joined[-1]._replace(ends_at=stretch.ends_at)
            else:
                joined.append(stretch)
    return joined


def _cover(starts_at: datetime, ends_at: datetime, sets: Sequence[DimensionSet]) -> list[Stretch]:
    if starts_at >= ends_at:
        return []
    if not sets:
        return [Stretch(None, starts_at, ends_at)]
    first = -(-starts_at.timestamp() // sets[0].grain_seconds) * sets[0].grain_seconds
    last = ends_at.timestamp() // sets[0].grain_seconds * sets[0].grain_seconds
    if first >= last:
        return _cover(starts_at, ends_at, sets[1:])
    inner_start, inner_end = datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC)
    return [
        *_cover(starts_at, inner_start, sets[1:]),
        Stretch(sets[0], inner_start, inner_end),
        *_cover(inner_end, ends_at, sets[1:]),
    ]
