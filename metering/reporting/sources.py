"""Which part of a range is answered from which roll-up, and which from events. Pure.

Every zone's offset is a multiple of 15 minutes, so buckets of any zone are whole 15-minute buckets;
a UTC day is used where it lies inside one bucket.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from metering.core.periods import floor_seconds
from metering.reporting.intervals import Bucket
from metering.rollups.sets import DAY_SECONDS, QUARTER_SECONDS, DimensionSet, find_set


class Stretch(NamedTuple):
    """A range of time and the roll-up that answers it; None: events.

    `bucket` says which one (from 1) all of it counts in; None: each time in its own. One that
    `overlaps` is a roll-up that reaches beyond its bucket, or the events there, to be subtracted.
    """

    source: DimensionSet | None
    starts_at: datetime
    ends_at: datetime
    bucket: int | None = None
    overlaps: bool = False


def sets_for(dimensions: frozenset[str]) -> list[DimensionSet]:
    """Return the roll-ups that know exactly these dimensions, the coarse one first."""
    sets = (find_set(dimensions, grain_seconds=grain) for grain in (DAY_SECONDS, QUARTER_SECONDS))
    return [dimension_set for dimension_set in sets if dimension_set is not None]


def has_quarters(sets: Iterable[DimensionSet]) -> bool:
    """Whether some of these roll-ups are by quarter of an hour: few rows, cut at almost any time.
    Others are of whole days, beside events where a day is cut.
    """
    return any(each.grain_seconds == QUARTER_SECONDS for each in sets)


def stretches(
    buckets: Sequence[Bucket], sets: Sequence[DimensionSet], *, now: datetime | None = None
) -> list[Stretch]:
    """Cover each bucket with the coarsest sources that fit into it, then join neighbours.

    With `now`, an edge that no roll-up fits into is covered by one that overlaps, and by the events
    to subtract, where these are fewer.
    """
    joined: list[Stretch] = []
    for number, bucket in enumerate(buckets, 1):
        cover = _cover(bucket.reads_from, bucket.reads_to, sets)
        if now is not None and sets:
            of_bucket = number if len(buckets) > 1 else None
            cover = [
                piece for part in cover for piece in _overlapped(part, sets[-1], now, of_bucket)
            ]
        for stretch in cover:
            last = joined[-1] if joined else None
            if last is not None and last == stretch._replace(
                starts_at=last.starts_at, ends_at=stretch.starts_at
            ):
                joined[-1] = last._replace(ends_at=stretch.ends_at)
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


def _overlapped(
    part: Stretch, finest: DimensionSet, now: datetime, bucket: int | None
) -> list[Stretch]:
    """Return the part as it is read with the fewest events.

    How many there are is taken to go by the time that is over: clocks that are ahead bring few.
    """
    if part.source is not None:
        return [part]
    pieces: list[Stretch] = []
    starts_at, grain = part.starts_at, timedelta(seconds=finest.grain_seconds)
    while starts_at < part.ends_at:
        first = floor_seconds(starts_at, finest.grain_seconds)
        last = first + grain
        ends_at = min(last, part.ends_at)
        inside = min(ends_at, now) - starts_at
        if min(last, now) - first < 2 * inside:
            beyond = ((first, starts_at), (ends_at, last))
            pieces.append(Stretch(finest, first, last, bucket, overlaps=True))
            pieces += [Stretch(None, *edge, bucket, True) for edge in beyond if edge[0] < edge[1]]
        else:
            pieces.append(Stretch(None, starts_at, ends_at))
        starts_at = ends_at
    return pieces
