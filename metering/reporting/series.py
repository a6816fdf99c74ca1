"""Sums by quarter of an hour for every value of some dimensions: what detectors read.

Each function is one statement, so it sees one snapshot by itself: roll-ups plus the events of
batches that they do not hold yet. Read-only.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from common.queries import Parameters, Rows, fetch_row, fetch_rows
from metering.models import Operation
from metering.reporting.usage_branches import EVENT_MEASURES
from metering.rollups.bins import middle
from metering.rollups.call_sizes import COST, known_model
from metering.rollups.sets import DAY_SECONDS, OTHER, QUARTER_SECONDS, QUARTER_SETS, find_set
from metering.usage.batch_events import select_of_batches

Whole = NDArray[np.int64]
Floats = NDArray[np.float64]

# The dimensions that have sums by quarter; empty: the tenant as a whole.
SERIES_DIMENSIONS: Final = ("", "team", "agent", "feature", "customer", "model")
COMBINED_DIMENSIONS: Final = SERIES_DIMENSIONS[1:]
# What a series is judged by is made of these.
SERIES_MEASURES: Final = (
    "cost_nanos",
    "requests",
    "errors",
    "tool_calls",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
)
_MEASURE_LIST: Final = ", ".join(SERIES_MEASURES)
_EVENT_MEASURE_LIST: Final = ", ".join(
    f"{EVENT_MEASURES.get(name, name)} AS {name}" for name in SERIES_MEASURES
)
_SUM_LIST: Final = ", ".join(f"sum({name}) AS {name}" for name in SERIES_MEASURES)
# Batches beyond these, the newest, are no news.
BATCHES_MAX: Final = 5_000
# Compiling takes longer than running; and the other cores are for those who wait for an answer.
_TUNING: Final = """
    SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL work_mem = '32MB'
"""
# Events that have just come are more than PostgreSQL's statistics know: it would fetch a million of
# them one by one, and sort them to group them.
_BULK_TUNING: Final = f"{_TUNING}; SET LOCAL enable_indexscan = off; SET LOCAL enable_sort = off"
_END_BULK_TUNING: Final = "SET LOCAL enable_indexscan = on; SET LOCAL enable_sort = on"
_SET_OF: Final = {
    "".join(quarters.dimensions): quarters.number
    for quarters in QUARTER_SETS
    if "".join(quarters.dimensions) in SERIES_DIMENSIONS
}
_INDEX_OF_SET: Final = {
    _SET_OF[dimension]: index for index, dimension in enumerate(SERIES_DIMENSIONS)
}
_GROUPING_SETS: Final = ", ".join(
    f"(quarter, {dimension})" if dimension else "(quarter)" for dimension in SERIES_DIMENSIONS
)
# GROUPING answers a bit for each column that a row is not grouped by.
_SET_NUMBER: Final = "CASE {} ELSE {} END".format(
    " ".join(f"WHEN GROUPING({name}) = 0 THEN {_SET_OF[name]}" for name in COMBINED_DIMENSIONS),
    _SET_OF[""],
)
# Batches without events of these times are passed over: most are, where the past is learned.
_WAITING_EVENTS: Final = select_of_batches(
    f"date_bin('{QUARTER_SECONDS} seconds', e.time, 'epoch') AS quarter,"
    + "".join(f' e.{name} COLLATE "C" AS {name},' for name in COMBINED_DIMENSIONS)
    + _EVENT_MEASURE_LIST,
    batches="""
        SELECT id, rolled_up_at IS NULL AND coalesce(first_at < %(ends_at)s, true)
            AND coalesce(last_at >= %(starts_at)s, true) AS is_wanted
        FROM ingest_batch
        WHERE tenant_id = %(tenant_id)s AND id >= (SELECT min(id) FROM ingest_batch
            WHERE tenant_id = %(tenant_id)s AND rolled_up_at IS NULL)
    """,
    condition="e.tenant_id = %(tenant_id)s AND e.time >= %(starts_at)s AND e.time < %(ends_at)s"
    " AND NOT e.is_void",
)
# Few rows where there are many events. MATERIALIZED keeps PostgreSQL from sorting the events for
# what groups these sums in several ways.
_WITH_WAITING: Final = f"""
    WITH waiting AS MATERIALIZED (
        SELECT quarter, {", ".join(COMBINED_DIMENSIONS)}, {_SUM_LIST}
        FROM ({_WAITING_EVENTS}) events GROUP BY quarter, {", ".join(COMBINED_DIMENSIONS)}
    )
"""
_QUARTER_SUMS: Final = f"""
    {_WITH_WAITING}
    SELECT set_number, quarter, value, {_SUM_LIST} FROM (
        SELECT dimension_set AS set_number, extract(epoch FROM starts_at)::bigint AS quarter,
            value_1 AS value, {_MEASURE_LIST}
        FROM usage_rollup
        WHERE tenant_id = %(tenant_id)s AND dimension_set = ANY(%(sets)s)
            AND starts_at >= %(starts_at)s AND starts_at < %(ends_at)s
        UNION ALL
        SELECT {_SET_NUMBER}, extract(epoch FROM quarter)::bigint,
            coalesce({", ".join(COMBINED_DIMENSIONS)}, ''), {_SUM_LIST}
        FROM waiting GROUP BY GROUPING SETS ({_GROUPING_SETS})
    ) parts WHERE value <> %(other)s GROUP BY set_number, quarter, value
"""
_SERIES_COSTS: Final = f"""
    {_WITH_WAITING}, waiting_series AS MATERIALIZED (
        SELECT {_SET_NUMBER} AS set_number, quarter AS at,
            coalesce({", ".join(COMBINED_DIMENSIONS)}, '') AS value, sum(cost_nanos) AS cost_nanos
        FROM waiting GROUP BY GROUPING SETS ({_GROUPING_SETS})
    )
    SELECT (
        SELECT coalesce(sum(cost_nanos), 0) FROM usage_rollup
        WHERE tenant_id = %(tenant_id)s AND dimension_set = a.set_number
            AND starts_at >= a.starts_at AND starts_at < %(ends_at)s AND value_1 = a.value
    ) + (
        SELECT coalesce(sum(cost_nanos), 0) FROM waiting_series w
        WHERE w.set_number = a.set_number AND w.value = a.value AND w.at >= a.starts_at
    )
    FROM unnest(%(sets)s::smallint[], %(values)s::text[], %(starts)s::timestamptz[])
        WITH ORDINALITY AS a (set_number, value, starts_at, number)
    ORDER BY number
"""
_VALUE_SUMS: Final = f"""
    SELECT value, width_bucket(at, %(bounds)s::timestamptz[]) - 1, sum(cost_nanos),
        sum(requests)
    FROM (
        SELECT value_1 AS value, starts_at AS at, cost_nanos, requests FROM usage_rollup
        WHERE tenant_id = %(tenant_id)s AND dimension_set = %(set)s
            AND starts_at >= %(starts_at)s AND starts_at < %(ends_at)s
        UNION ALL
        SELECT {{value}}, quarter, cost_nanos, requests
        FROM ({_WAITING_EVENTS}) waiting
    ) parts WHERE value <> %(other)s GROUP BY 1, 2
"""
_COSTLY_COLUMNS: Final = "agent, feature, model, cost_nanos, session, source, sent_id"
_RECENT_EVENTS: Final = select_of_batches(
    _COSTLY_COLUMNS,
    batches="""
        SELECT id, received_at >= %(received_from)s AS is_wanted FROM ingest_batch
        WHERE tenant_id = %(tenant_id)s ORDER BY id DESC LIMIT %(batches_max)s
    """,
    condition="e.tenant_id = %(tenant_id)s AND NOT is_void AND cost_nanos >= %(nanos_min)s"
    " AND operation = ANY(%(operations)s)",
)
_COSTLIEST: Final = f"""
    SELECT DISTINCT ON (agent, feature, model) {_COSTLY_COLUMNS} FROM ({_RECENT_EVENTS}) recent
    ORDER BY agent, feature, model, cost_nanos DESC LIMIT %(limit)s
"""
_USUAL_COST: Final = """
    SELECT c.agent, c.feature, c.model, c.bin, c.count
    FROM unnest(%s::text[], %s::text[], %s::text[]) AS k (agent, feature, model)
    JOIN call_size c ON c.tenant_id = %s AND c.agent = k.agent AND c.feature = k.feature
        AND c.model = k.model AND c.measure = %s
"""
_COMBINATIONS: Final = f"""
    SELECT {", ".join(COMBINED_DIMENSIONS)}, sum(cost_nanos), sum(requests), sum(errors),
        sum(input_tokens + output_tokens)
    FROM (
        SELECT {", ".join(COMBINED_DIMENSIONS)}, {_EVENT_MEASURE_LIST} FROM usage_event
        WHERE tenant_id = %s AND time >= %s AND time < %s AND NOT is_void
    ) events GROUP BY {", ".join(COMBINED_DIMENSIONS)}
    ORDER BY sum(cost_nanos) DESC, sum(requests) DESC LIMIT %s
"""


class QuarterSums(NamedTuple):
    """Sums as columns, a row for each series and quarter that has usage; in no order.

    `dimensions` holds places in SERIES_DIMENSIONS, `quarters` the seconds since the epoch at which
    each begins, `measures` a column for each of SERIES_MEASURES: floats, since sums may
    pass 64 bits.
    """

    dimensions: Whole
    values: list[str]
    quarters: Whole
    measures: Floats
    # Nano-dollars, exact whatever their sum: Python's own numbers.
    cost_nanos: NDArray[np.object_]


class SeriesSince(NamedTuple):
    """A series, from the quarter `starts_at` on."""

    dimension: str
    value: str
    starts_at: datetime


class Spent(NamedTuple):
    """What a number of requests cost together."""

    cost_nanos: int = 0
    requests: int = 0


class CostlyCall(NamedTuple):
    """The costliest of the model calls with these values, and what such calls usually cost."""

    agent: str
    feature: str
    model: str
    cost_nanos: int
    session: str
    source: str
    sent_id: str
    usual: Spent


class Combination(NamedTuple):
    """What one combination of values used; `values` in the order of COMBINED_DIMENSIONS."""

    values: tuple[str, ...]
    cost_nanos: int
    requests: int
    errors: int
    tokens: int


def quarter_sums(*, tenant_id: int, starts_at: datetime, ends_at: datetime) -> QuarterSums:
    """Return the usage of every series in whole quarters from `starts_at` up to but not including
    `ends_at`.

    The long tail of values that roll-ups keep as one is left out: it is another set of values in
    every quarter.
    """
    parameters = {
        "tenant_id": tenant_id,
        "starts_at": starts_at,
        "ends_at": ends_at,
        "sets": list(_INDEX_OF_SET),
        "other": OTHER,
    }
    rows = _fetch_bulk(_QUARTER_SUMS, parameters)
    if not rows:
        nothing = np.zeros(0, np.int64)
        return QuarterSums(
            nothing, [], nothing, np.zeros((0, len(SERIES_MEASURES))), np.zeros(0, object)
        )
    sets, quarters, values, *measures = zip(*rows, strict=True)
    return QuarterSums(
        np.array([_INDEX_OF_SET[number] for number in sets], np.int64),
        list(values),
        np.array(quarters, np.int64),
        np.array(measures, np.float64).T,
        np.array(measures[SERIES_MEASURES.index("cost_nanos")], object),
    )


def series_costs(
    *, tenant_id: int, series: Sequence[SeriesSince], ends_at: datetime
) -> dict[SeriesSince, int]:
    """Return what each of these series cost from a quarter on, in nano-dollars.

    A value that was part of the long tail in some quarter counts without it.
    """
    if not series:
        return {}
    parameters = {
        "tenant_id": tenant_id,
        "sets": [_SET_OF[each.dimension] for each in series],
        "values": [each.value for each in series],
        "starts": [each.starts_at for each in series],
        "starts_at": min(each.starts_at for each in series),
        "ends_at": ends_at,
    }
    rows = _fetch_bulk(_SERIES_COSTS, parameters)
    return {each: int(nanos) for each, (nanos,) in zip(series, rows, strict=True)}


def value_sums(
    *, tenant_id: int, dimension: str, bounds: Sequence[datetime]
) -> dict[str, list[Spent]]:
    """Return what each value of a dimension cost between neighbors of `bounds`, which are starts of
    quarters. Values that were not used in all that time are left out.

    If all bounds are starts of UTC days, reads sums of days, of which there are fewer.
    """
    assert dimension in SERIES_DIMENSIONS, dimension
    are_days = all(at.timestamp() % DAY_SECONDS == 0 for at in bounds)
    dimension_set = find_set(
        frozenset({dimension} - {""}), grain_seconds=DAY_SECONDS if are_days else QUARTER_SECONDS
    )
    assert dimension_set is not None, "each of these dimensions has sums of both grains"
    parameters = {
        "tenant_id": tenant_id,
        "set": dimension_set.number,
        "bounds": list(bounds),
        "starts_at": bounds[0],
        "ends_at": bounds[-1],
        "other": OTHER,
    }
    statement = _VALUE_SUMS.format(value=dimension or "''")
    sums: dict[str, list[Spent]] = {}
    for value, span, cost_nanos, requests in fetch_rows(statement, parameters, tuning=_TUNING):
        spans = sums.setdefault(value, [Spent()] * (len(bounds) - 1))
        spans[span] = Spent(cost_nanos, requests)
    return sums


def costly_calls(
    *, tenant_id: int, received_from: datetime, nanos_min: int, limit: int
) -> list[CostlyCall]:
    """Return, for each agent, feature and model, the costliest call that was received since then,
    if it cost `nanos_min` or more.
    """
    parameters = {
        "tenant_id": tenant_id,
        "received_from": received_from,
        "batches_max": BATCHES_MAX,
        "nanos_min": nanos_min,
        "operations": [Operation.LLM.value, Operation.EMBEDDING.value],
        "limit": limit,
    }
    rows = fetch_rows(_COSTLIEST, parameters, tuning=_TUNING)
    keys = [(agent, feature, known_model(model)) for agent, feature, model, *_ in rows]
    columns = [list(column) for column in zip(*keys, strict=True)] or [[], [], []]
    usual: dict[tuple[str, str, str], Spent] = {}
    for row in fetch_rows(_USUAL_COST, [*columns, tenant_id, COST]):
        agent, feature, model, bin_number, count = row
        nanos, requests = usual.get((agent, feature, model), Spent())
        usual[agent, feature, model] = Spent(nanos + middle(bin_number) * count, requests + count)
    return [
        CostlyCall._make((*row, usual.get(key, Spent())))
        for row, key in zip(rows, keys, strict=True)
    ]


def combinations(
    *, tenant_id: int, starts_at: datetime, ends_at: datetime, limit: int
) -> list[Combination]:
    """Return the combinations of values that were used, the costly ones first.

    Reads the events of the range: meant for an hour, not for a month.
    """
    parameters = [tenant_id, starts_at, ends_at, limit]
    width = len(COMBINED_DIMENSIONS)
    return [
        Combination(row[:width], *row[width:]) for row in _fetch_bulk(_COMBINATIONS, parameters)
    ]


def first_usage_at(*, tenant_id: int, since: datetime) -> datetime | None:
    """Return the first quarter with usage at or after `since`; None if there is none."""
    first_at: datetime | None
    (first_at,) = fetch_row(
        "SELECT least((SELECT min(starts_at) FROM usage_rollup WHERE tenant_id = %(tenant_id)s"
        " AND dimension_set = %(set)s AND starts_at >= %(since)s),"
        " (SELECT min(greatest(first_at, %(since)s)) FROM ingest_batch"
        " WHERE tenant_id = %(tenant_id)s AND rolled_up_at IS NULL AND last_at >= %(since)s))",
        {"tenant_id": tenant_id, "set": _SET_OF[""], "since": since},
    )
    return first_at


def newest_batch(*, tenant_id: int) -> int:
    """Return the highest id of the tenant's batches; 0 if there is none."""
    (batch_id,) = fetch_row(
        "SELECT coalesce(max(id), 0) FROM ingest_batch WHERE tenant_id = %s", [tenant_id]
    )
    return int(batch_id)


def _fetch_bulk(statement: str, parameters: Parameters) -> Rows:
    """Return the rows of a statement that adds up events; what follows is planned as usual."""
    rows = fetch_rows(statement, parameters, tuning=_BULK_TUNING)
    with connection.cursor() as cursor:
        cursor.execute(_END_BULK_TUNING)
    return rows
