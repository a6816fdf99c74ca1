"""The proof of the roll-ups: every row recomputed from the events of rolled-up batches.

PostgreSQL adds up again what Python added up on the way in, a day and a statement at a time. Of
days whose events are sealed, and may be gone, every set must add up to the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.conf import settings
from django.utils import timezone

from common.queries import fetch_row, fetch_rows
from metering.audit.combinations import wrong_combinations
from metering.models import BATCH_ID_STRIDE, MEASURES, Operation
from metering.reporting.usage_branches import EVENT_MEASURE_LIST
from metering.rollups.bins import MEASURE_COLUMNS
from metering.rollups.sets import (
    DAY_SECONDS,
    DAY_SETS,
    HISTOGRAM_DIMENSIONS,
    HISTOGRAM_SETS,
    MEASURE_LIST,
    OTHER,
    QUARTER_SECONDS,
    ROLLED_UP_DIMENSIONS,
    SETS,
    DimensionSet,
)

_TUNING: Final = "SET LOCAL jit = off; SET LOCAL work_mem = '64MB'"


class Drift(NamedTuple):
    """A balance that is not what it must be: `subject` says which, both numbers are in its unit."""

    subject: str
    part: str
    expected: int
    stored: int

    def __str__(self) -> str:
        difference = self.stored - self.expected
        return (
            f"{self.subject}: {self.part} is {self.stored:,}, must be {self.expected:,}"
            f" ({difference:+,})"
        )


def _quoted(name: str) -> str:
    return f'"{name}"'


_COLUMNS: Final = ("quarter", "day", *ROLLED_UP_DIMENSIONS)


def _grain(dimension_set: DimensionSet) -> str:
    return "quarter" if dimension_set.grain_seconds == QUARTER_SECONDS else "day"


def _mask(dimension_set: DimensionSet) -> int:
    """Return GROUPING's answer for a set: a bit for each column its rows are not grouped by."""
    grouped = {_grain(dimension_set), *dimension_set.dimensions}
    return sum(1 << index for index, name in enumerate(reversed(_COLUMNS)) if name not in grouped)


def _by_set(index: int) -> str:
    """Return the SQL of the value of a row's first or second dimension, by its set."""
    cases = " ".join(
        f"WHEN {_mask(dimension_set)} THEN {_quoted(dimension_set.dimensions[index])}"
        for dimension_set in SETS
        if len(dimension_set.dimensions) > index
    )
    return f"CASE mask {cases} ELSE '' END"


_GROUPING_SETS: Final = ", ".join(
    f"({', '.join(map(_quoted, (_grain(s), *s.dimensions)))})" for s in SETS
)
_SET_NUMBER: Final = f"CASE mask {' '.join(f'WHEN {_mask(s)} THEN {s.number}' for s in SETS)} END"
_EVENTS: Final = f"""
    SELECT date_bin('{QUARTER_SECONDS} seconds', time, 'epoch') AS quarter,
        date_bin('{DAY_SECONDS} seconds', time, 'epoch') AS day,
        {", ".join(f'{_quoted(name)} COLLATE "C" AS {_quoted(name)}' for name in _COLUMNS[2:])},
        {{measures}}
    FROM usage_event WHERE tenant_id = %(tenant_id)s AND NOT is_void
        AND time >= %(starts_at)s AND time < %(ends_at)s
        AND NOT (id / {BATCH_ID_STRIDE} = ANY(%(waiting)s))
"""
# Of a bucket with a long tail all rows count as one, and no value may have more than its events.
_COMPARE: Final = f"""
    WITH events AS ({_EVENTS.format(measures=EVENT_MEASURE_LIST)}), added_up AS (
        SELECT GROUPING({", ".join(map(_quoted, _COLUMNS))}) AS mask,
            {", ".join(map(_quoted, _COLUMNS))},
            {", ".join(f"sum({name}) AS sum_{name}" for name in MEASURES)}
        FROM events GROUP BY GROUPING SETS ({_GROUPING_SETS})
    ), expected (number, starts_at, value_1, value_2, {MEASURE_LIST}) AS (
        SELECT {_SET_NUMBER}, coalesce(quarter, day), {_by_set(0)}, {_by_set(1)},
            {", ".join(f"sum_{name}" for name in MEASURES)}
        FROM added_up
    ), stored AS MATERIALIZED (
        SELECT dimension_set AS number, starts_at, value_1, value_2, {MEASURE_LIST}
        FROM usage_rollup WHERE tenant_id = %(tenant_id)s
            AND starts_at >= %(starts_at)s AND starts_at < %(ends_at)s
    ), crowded AS (
        SELECT number, starts_at FROM stored WHERE value_1 = %(other)s
    ), compared AS (
        SELECT number, starts_at, value_1, value_2, c.number IS NOT NULL AS is_crowded,
            {", ".join(f"coalesce(e.{name}, 0) AS e_{name}" for name in MEASURES)},
            {", ".join(f"coalesce(s.{name}, 0) AS s_{name}" for name in MEASURES)}
        FROM expected e FULL JOIN stored s USING (number, starts_at, value_1, value_2)
        LEFT JOIN crowded c USING (number, starts_at)
    )
    SELECT number, starts_at, value_1, value_2,
        {", ".join(f"e_{name}" for name in MEASURES)}, {", ".join(f"s_{name}" for name in MEASURES)}
    FROM compared
    WHERE NOT is_crowded AND ({" OR ".join(f"e_{name} <> s_{name}" for name in MEASURES)})
        OR is_crowded AND value_1 <> %(other)s
            AND ({" OR ".join(f"e_{name} < s_{name}" for name in MEASURES)})
    UNION ALL
    SELECT number, starts_at, %(other)s, '',
        {", ".join(f"sum(e_{name})" for name in MEASURES)},
        {", ".join(f"sum(s_{name})" for name in MEASURES)}
    FROM compared WHERE is_crowded GROUP BY number, starts_at
    HAVING {" OR ".join(f"sum(e_{name}) <> sum(s_{name})" for name in MEASURES)}
    ORDER BY 2, 1, 3, 4
"""
# Bins are cut a little differently in PostgreSQL; the number of calls is the same.
_COUNT: Final = f"""
    WITH events AS ({
    _EVENTS.format(
        measures=", ".join(
            f"({column} IS NOT NULL)::int AS has_{number}"
            for number, column in MEASURE_COLUMNS.items()
        )
        + ", operation"
    )
}), expected AS (
        SELECT s.number, day AS starts_at, m.measure, sum(m.is_known) AS count
        FROM events, (VALUES {", ".join(f"({s.number})" for s in HISTOGRAM_SETS)}) s (number),
            LATERAL (VALUES {
    ", ".join(f"({number}, has_{number})" for number in MEASURE_COLUMNS)
}) m (measure, is_known)
        WHERE operation <> {Operation.TOOL.value} GROUP BY 1, 2, 3
    ), stored AS (
        SELECT dimension_set AS number, starts_at, measure, sum(count) AS count
        FROM usage_histogram WHERE tenant_id = %(tenant_id)s
            AND starts_at >= %(starts_at)s AND starts_at < %(ends_at)s GROUP BY 1, 2, 3
    )
    SELECT number, starts_at, measure, coalesce(e.count, 0), coalesce(s.count, 0)
    FROM expected e FULL JOIN stored s USING (number, starts_at, measure)
    WHERE coalesce(e.count, 0) <> coalesce(s.count, 0) ORDER BY 2, 1, 3
"""
# The days of roll-ups by their distinct values, and those of events by leaps through the index.
_DAYS: Final = f"""
    WITH RECURSIVE leaps (at) AS (
        SELECT min(time) FROM usage_event WHERE tenant_id = %(tenant_id)s
        UNION ALL
        SELECT (SELECT min(time) FROM usage_event WHERE tenant_id = %(tenant_id)s
            AND time >= date_bin('{DAY_SECONDS} seconds', l.at, 'epoch') + interval '1 day')
        FROM leaps l WHERE l.at IS NOT NULL
    )
    SELECT DISTINCT date_bin('{DAY_SECONDS} seconds', at, 'epoch') FROM (
        SELECT at FROM leaps WHERE at IS NOT NULL
        UNION SELECT starts_at FROM usage_rollup WHERE tenant_id = %(tenant_id)s
        UNION SELECT starts_at FROM usage_histogram WHERE tenant_id = %(tenant_id)s
        UNION SELECT starts_at FROM usage_combination WHERE tenant_id = %(tenant_id)s
    ) known ORDER BY 1
"""


# Each event is in a row of every set of days, and each measured call in every histogram.
_DAY_TOTALS: Final = f"""
    WITH totals AS (
        SELECT dimension_set AS number, starts_at,
            {", ".join(f"sum({name}) AS {name}" for name in MEASURES)}
        FROM usage_rollup WHERE tenant_id = %(tenant_id)s AND dimension_set = ANY(%(sets)s)
            AND starts_at >= %(starts_at)s AND starts_at < %(ends_at)s GROUP BY 1, 2
    ), keys AS (
        SELECT number, starts_at FROM (SELECT DISTINCT starts_at FROM totals) days,
            unnest(%(sets)s) AS sets (number)
    )
    SELECT k.number, k.starts_at, '', '',
        {", ".join(f"coalesce(whole.{name}, 0)" for name in MEASURES)},
        {", ".join(f"coalesce(part.{name}, 0)" for name in MEASURES)}
    FROM keys k
    LEFT JOIN totals whole ON whole.number = %(whole)s AND whole.starts_at = k.starts_at
    LEFT JOIN totals part ON part.number = k.number AND part.starts_at = k.starts_at
    ORDER BY 2, 1
"""
_HISTOGRAM_TOTALS: Final = """
    WITH totals AS (
        SELECT dimension_set AS number, starts_at, measure, sum(count) AS count
        FROM usage_histogram WHERE tenant_id = %(tenant_id)s AND dimension_set = ANY(%(sets)s)
            AND starts_at >= %(starts_at)s AND starts_at < %(ends_at)s GROUP BY 1, 2, 3
    ), keys AS (
        SELECT number, starts_at, measure
        FROM (SELECT DISTINCT starts_at, measure FROM totals) days,
            unnest(%(sets)s) AS sets (number)
    )
    SELECT k.number, k.starts_at, k.measure, coalesce(whole.count, 0), coalesce(part.count, 0)
    FROM keys k
    LEFT JOIN totals whole ON whole.number = %(whole)s AND whole.starts_at = k.starts_at
        AND whole.measure = k.measure
    LEFT JOIN totals part ON part.number = k.number AND part.starts_at = k.starts_at
        AND part.measure = k.measure
    WHERE whole.count IS DISTINCT FROM part.count ORDER BY 2, 1, 3
"""


def rollup_drifts(tenant_id: int, sealed_until: datetime) -> Iterator[Drift]:
    """Yield every row of a tenant that is not the sum of its events, day by day; before
    `sealed_until` every set of a day that does not add up to what the whole day does. A bucket with
    a long tail counts as one row.

    Call it in the tenant's scope, in a snapshot: batches become rolled up meanwhile.
    """
    oldest = timezone.now() - settings.RETENTION_HISTORY
    (waiting,) = fetch_row(
        "SELECT coalesce(array_agg(id), '{}') FROM ingest_batch"
        " WHERE tenant_id = %s AND rolled_up_at IS NULL",
        [tenant_id],
    )
    half = len(MEASURES)
    for (starts_at,) in fetch_rows(_DAYS, {"tenant_id": tenant_id}, tuning=_TUNING):
        if starts_at < oldest:
            continue  # retention removes what there still is of it
        parameters = {
            "tenant_id": tenant_id,
            "starts_at": starts_at,
            "ends_at": starts_at + timedelta(days=1),
            "waiting": waiting,
            "other": OTHER,
            "whole": HISTOGRAM_DIMENSIONS[()],
        }
        compare, count = _COMPARE, _COUNT
        if starts_at < sealed_until:
            compare, count = _DAY_TOTALS, _HISTOGRAM_TOTALS
        for row in fetch_rows(compare, {**parameters, "sets": [days.number for days in DAY_SETS]}):
            number, at, value_1, value_2, *sums = row
            for name, expected, stored in zip(MEASURES, sums[:half], sums[half:], strict=True):
                if expected != stored:
                    yield Drift(_subject(number, at, (value_1, value_2)), name, expected, stored)
        rows = fetch_rows(count, {**parameters, "sets": [days.number for days in HISTOGRAM_SETS]})
        for number, at, measure, expected, stored in rows:
            name = f"calls with {MEASURE_COLUMNS[measure]}"
            yield Drift(_subject(number, at, ("", "")), name, expected, stored)
        yield from _combination_drifts(parameters) if starts_at >= sealed_until else ()


def _combination_drifts(parameters: Mapping[str, object]) -> Iterator[Drift]:
    day = parameters["starts_at"]
    for values, expected, stored in wrong_combinations(parameters):
        subject = f"combination {values!r} of {day:%Y-%m-%d} UTC, against its events"
        yield Drift(subject, "calls or their times", expected, stored)


def _subject(number: int, starts_at: datetime, values: Sequence[str]) -> str:
    dimension_set = next(each for each in SETS if each.number == number)
    named = " ".join(
        f"{name}={value.strip()!r}"
        for name, value in zip(dimension_set.dimensions, values, strict=False)
    )
    grain = "day" if dimension_set.grain_seconds == DAY_SECONDS else "quarter of an hour"
    return (
        f"roll-up of the {grain} from {starts_at:%Y-%m-%d %H:%M} UTC"
        f"{f', {named}' if named else ''}, against its events"
    )
