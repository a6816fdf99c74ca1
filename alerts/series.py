"""Which series are watched, what is measured of each, and where what was learned of them is kept.

A series is one value of one dimension; the tenant as a whole is the series of no dimension. Each
has a record of the detector for every measure.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, LiteralString, NamedTuple

import numpy as np
from django.db import connection
from numpy.typing import NDArray
from psycopg import Cursor
from psycopg.rows import TupleRow

from alerts import anomaly
from alerts.anomaly import Verdicts
from metering.reporting.series import SERIES_DIMENSIONS, QuarterSums
from metering.rollups.sets import QUARTER_SECONDS

Numbers = NDArray[np.float64]
States = NDArray[np.void]


class Measure(NamedTuple):
    """What is measured. Without usage sums are zero, and ratios are unknown."""

    name: str
    is_sum: bool
    # Which direction is worth telling: more of it, or less.
    is_bad_above: bool


COST: Final = "cost"
TOKENS: Final = "tokens"
REQUESTS: Final = "requests"
COST_PER_REQUEST: Final = "cost_per_request"
ERROR_RATE: Final = "error_rate"
CACHE_HIT_SHARE: Final = "cache_hit_share"
# Records are stored in this order: the sums first.
MEASURES: Final = (
    Measure(COST, is_sum=True, is_bad_above=True),
    Measure(TOKENS, is_sum=True, is_bad_above=True),
    Measure(REQUESTS, is_sum=True, is_bad_above=True),
    Measure(COST_PER_REQUEST, is_sum=False, is_bad_above=True),
    Measure(ERROR_RATE, is_sum=False, is_bad_above=True),
    Measure(CACHE_HIT_SHARE, is_sum=False, is_bad_above=False),
)
# Their figures are nano-USD.
MONEY_MEASURES: Final = frozenset({COST, COST_PER_REQUEST})
POSITION: Final = {measure.name: index for index, measure in enumerate(MEASURES)}
WIDTH: Final = len(MEASURES)
SUMS: Final = sum(measure.is_sum for measure in MEASURES)
NOWHERE: Final = -1
QUARTER: Final = timedelta(seconds=QUARTER_SECONDS)
_PARTS: Final = (slice(None, SUMS), slice(SUMS, None))
# This many series are in memory simultaneously.
PORTION_SERIES: Final = 1_000


class SeriesKey(NamedTuple):
    """A series: a dimension and a value of it; both empty for the tenant."""

    dimension: str
    value: str


TENANT: Final = SeriesKey("", "")


class Frame(NamedTuple):
    """What some series did in one quarter of an hour: a row each, a column for each measure.

    `weights` is the number of requests a value rests on.
    """

    quarter: int
    values: Numbers
    weights: Numbers


class Watch:
    """The detector on some series: `records` has a row for each, a column for each measure.

    Verdicts are of the same shape.
    """

    def __init__(self, records: States) -> None:
        self._shapes = [(len(records), SUMS), (len(records), WIDTH - SUMS)]
        # Apart, since a ratio is unknown when a sum is zero.
        self._states = [np.array(records[:, part]).reshape(-1) for part in _PARTS]

    def observe(self, frame: Frame) -> Verdicts:
        """Judge a whole quarter and learn from it."""
        return self._both(anomaly.observe, frame)

    def judge(self, frame: Frame) -> Verdicts:
        """Judge a quarter that is under way; learn nothing."""
        return self._both(anomaly.judge, frame)

    def records(self) -> States:
        """What is known now."""
        parts = zip(self._states, self._shapes, strict=True)
        return np.concatenate([part.reshape(shape) for part, shape in parts], axis=1)

    def _both(self, function: Callable[..., Verdicts], frame: Frame) -> Verdicts:
        verdicts = [
            function(
                states,
                at=frame.quarter,
                step_seconds=QUARTER_SECONDS,
                values=np.ascontiguousarray(frame.values[:, part]).reshape(-1),
                weights=np.ascontiguousarray(frame.weights[:, part]).reshape(-1),
                is_ratio=is_ratio,
            )
            for states, part, is_ratio in zip(self._states, _PARTS, (False, True), strict=True)
        ]
        return Verdicts(
            *(
                np.concatenate(
                    [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)],
                    axis=1,
                )
                for parts in zip(*verdicts, strict=True)
            )
        )


class Learned(NamedTuple):
    """What is known of some series: records in the order of MEASURES, and when each was used."""

    keys: list[SeriesKey]
    records: States
    used_at: list[datetime]


class Usage(NamedTuple):
    """Sums by quarter, with the series of each row numbered: `codes` are places in `keys`."""

    sums: QuarterSums
    keys: list[SeriesKey]
    codes: NDArray[np.int64]

    def rows_of(self, keys: Sequence[SeriesKey]) -> NDArray[np.int64]:
        """Return for each row of the sums its index in `keys`; -1 if it is of none of them."""
        index_of = {key: index for index, key in enumerate(keys)}
        indexes = np.array([index_of.get(key, NOWHERE) for key in self.keys], np.int64)
        rows: NDArray[np.int64] = indexes[self.codes]
        return rows

    def bounds(self, keys: Sequence[SeriesKey]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each of `keys` the first and the last quarter with usage; of none the end of time
        and 0.
        """
        rows = self.rows_of(keys)
        chosen = rows != NOWHERE
        first = np.full(len(keys), np.iinfo(np.int64).max)
        last = np.zeros(len(keys), np.int64)
        np.minimum.at(first, rows[chosen], self.sums.quarters[chosen])
        np.maximum.at(last, rows[chosen], self.sums.quarters[chosen])
        return first, last

    def cost_nanos(self, key: SeriesKey, *, since: datetime) -> int:
        """What a series cost in the quarters from `since` on."""
        chosen = (self.rows_of([key]) != NOWHERE) & (self.sums.quarters >= since.timestamp())
        return int(self.sums.cost_nanos[chosen].sum())


def usage_of(sums: QuarterSums) -> Usage:
    """The sums with their series."""
    numbers: dict[SeriesKey, int] = {}
    codes = np.empty(len(sums.values), np.int64)
    for row, (dimension, value) in enumerate(
        zip(sums.dimensions.tolist(), sums.values, strict=True)
    ):
        key = SeriesKey(SERIES_DIMENSIONS[dimension], value)
        codes[row] = numbers.setdefault(key, len(numbers))
    return Usage(sums, list(numbers), codes)


def frames(usage: Usage, keys: Sequence[SeriesKey], quarters: Sequence[int]) -> Iterator[Frame]:
    """What these series did in each of the quarters, in order.

    A quarter without a row of a series is one in which it was not used.
    """
    rows = usage.rows_of(keys)
    chosen = np.flatnonzero(rows != NOWHERE)
    order = chosen[np.argsort(usage.sums.quarters[chosen], kind="stable")]
    values, weights = measured(usage.sums, order)
    starts = np.searchsorted(usage.sums.quarters[order], quarters, side="left")
    ends = np.searchsorted(usage.sums.quarters[order], quarters, side="right")
    for quarter, start, end in zip(quarters, starts.tolist(), ends.tolist(), strict=True):
        frame = _unused(quarter, len(keys))
        frame.values[rows[order[start:end]]] = values[start:end]
        frame.weights[rows[order[start:end]]] = weights[start:end]
        yield frame


def measured(sums: QuarterSums, rows: NDArray[np.int64]) -> tuple[Numbers, Numbers]:
    """The measures of these rows, and the number of requests that each rests on."""
    # In the order of SERIES_MEASURES.
    cost, requests, errors, tool_calls, input_tokens, output_tokens, cache_read_tokens = (
        sums.measures[rows].T
    )
    tokens, calls = input_tokens + output_tokens, requests + tool_calls
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (cost / requests, errors / calls, cache_read_tokens / input_tokens)
    values = np.column_stack((cost, tokens, requests, *ratios))
    values[~np.isfinite(values)] = np.nan
    return values, np.column_stack((calls, requests, requests, requests, calls, requests))


def _unused(quarter: int, count: int) -> Frame:
    values = np.zeros((count, WIDTH))
    values[:, SUMS:] = np.nan
    return Frame(quarter, values, np.zeros((count, WIDTH)))


# Portions are read in the order of the key, each after the last of the one before.
_READ_PORTION: Final = """
    SELECT dimension, value, records, used_at FROM series_state
    WHERE tenant_id = %s AND (%s OR (dimension, value) > (%s, %s COLLATE "C"))
    ORDER BY dimension, value LIMIT %s
"""
_READ_KEYS: Final = """
    SELECT s.dimension, s.value, s.records, s.used_at
    FROM unnest(%s::text[], %s::text[]) AS k (dimension, value)
    JOIN series_state s ON s.tenant_id = %s AND s.dimension = k.dimension AND s.value = k.value
"""
_SAVE: Final = """
    INSERT INTO series_state AS s (tenant_id, dimension, value, records, used_at)
    SELECT %s, * FROM unnest(%s::text[], %s::text[], %b::bytea[], %s::timestamptz[])
    ON CONFLICT (tenant_id, dimension, value)
        DO UPDATE SET records = excluded.records, used_at = excluded.used_at
"""
NEVER: Final = datetime(2000, 1, 1, tzinfo=UTC)


def stored_portions(*, tenant_id: int) -> Iterator[Learned]:
    """All series of which something is known, in portions. What is saved meanwhile is not read
    again.
    """
    is_first, after = True, TENANT
    while rows := _read(_READ_PORTION, [tenant_id, is_first, *after, PORTION_SERIES]):
        yield _learned([SeriesKey(*row[:2]) for row in rows], rows)
        is_first, after = False, SeriesKey(*rows[-1][:2])


def read_states(*, tenant_id: int, keys: Sequence[SeriesKey]) -> Learned:
    """What is known of these series, in their order; the others are new."""
    columns = [[key.dimension for key in keys], [key.value for key in keys]]
    return _learned(keys, _read(_READ_KEYS, [*columns, tenant_id]))


def new_records(count: int) -> States:
    """The records of series of which nothing is known."""
    records: States = anomaly.new_states(count * WIDTH).reshape(count, WIDTH)
    return records


def save(*, tenant_id: int, learned: Learned) -> None:
    """Keep what is known of these series."""
    records = [row.tobytes() for row in np.ascontiguousarray(learned.records)]
    values = [key.value for key in learned.keys]
    with _plain_cursor() as cursor:
        cursor.execute(
            _SAVE,
            [tenant_id, [key.dimension for key in learned.keys], values, records, learned.used_at],
        )


def count_series(*, tenant_id: int) -> int:
    """Return the number of series of which something is known."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM series_state WHERE tenant_id = %s", [tenant_id])
        return int(cursor.fetchone()[0])


def forget_idle(*, tenant_id: int, before: datetime) -> int:
    """Forget the series that were last used before then; return their number."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM series_state WHERE tenant_id = %s AND used_at < %s", [tenant_id, before]
        )
        return int(cursor.rowcount)


def forget_other_version(*, tenant_id: int) -> bool:
    """Forget what another version of the detector has learned, which this one cannot read; return
    whether there was any.

    One record tells of all: a version that learns writes all of the tenant's again.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT records FROM series_state WHERE tenant_id = %s LIMIT 1", [tenant_id])
        row = cursor.fetchone()
        if row is None or _restored(bytes(row[0])) is not None:
            return False
        cursor.execute("DELETE FROM series_state WHERE tenant_id = %s", [tenant_id])
    return True


def _plain_cursor() -> Cursor[TupleRow]:
    # Django's own cursor transfers bytes as text twice as long.
    connection.ensure_connection()
    return Cursor(connection.connection)


def _read(query: LiteralString, parameters: list[object]) -> list[TupleRow]:
    with _plain_cursor() as cursor:
        cursor.execute(query, parameters, binary=True)
        return cursor.fetchall()


def _learned(keys: Sequence[SeriesKey], rows: Sequence[TupleRow]) -> Learned:
    """Series with what is stored of them. Records of another version are begun again."""
    stored = {SeriesKey(*row[:2]): row[2:] for row in rows}
    records = new_records(len(keys))
    used_at = []
    for index, key in enumerate(keys):
        known, used = stored.get(key, (b"", NEVER))
        used_at.append(used)
        if (restored := _restored(known)) is not None:
            records[index] = restored
    return Learned(list(keys), records, used_at)


def _restored(known: bytes) -> States | None:
    """The records of one series as they were saved; None where another version did."""
    fresh = new_records(1)[0]
    if len(known) != fresh.nbytes:
        return None
    restored: States = np.frombuffer(known, anomaly.RECORD)
    return restored if (restored["version"] == fresh["version"]).all() else None
