"""Which values of a bucket have rows of their own: the largest, whenever they came.

A bucket keeps `values_max` values and adds the others up as OTHER. When a larger value arrives, the
smallest one loses its row to OTHER; the sum of the bucket stays exact. A value that lost its row
and grows again gets one with what came since: no more than it had when it was among the smallest is
missing from it, and is in OTHER.
"""

from typing import Any, Final, Literal

from metering.models import MEASURES
from metering.rollups.sets import OTHER, SETS

_MEASURE_LIST: Final = ", ".join(MEASURES)
# Buckets that may hold more values than their set keeps. Almost always there are none.
_FIND_CROWDED: Final = """
    WITH touched AS (
        SELECT dimension_set, starts_at, count(*) AS new_count FROM pg_temp.usage_delta
        GROUP BY dimension_set, starts_at
    )
    SELECT t.dimension_set, t.starts_at, s.values_max
    FROM touched t JOIN unnest(%s::smallint[], %s::bigint[]) AS s (dimension_set, values_max)
        USING (dimension_set)
    CROSS JOIN LATERAL (
        SELECT count(*) AS present_count FROM usage_rollup r WHERE r.tenant_id = %s
        AND r.dimension_set = t.dimension_set AND r.starts_at = t.starts_at
    ) p
    WHERE p.present_count + t.new_count > s.values_max
"""
# By cost; those that cost the same by their calls; of equals those that have a row keep it.
_CHOOSE: Final = """
    WITH crowded AS (
        SELECT * FROM unnest(%s::smallint[], %s::timestamptz[], %s::bigint[])
            AS c (dimension_set, starts_at, values_max)
    ), arriving AS (
        SELECT dimension_set, starts_at, value_1, value_2, sum(cost_nanos) AS cost_nanos,
            sum(requests + tool_calls) AS calls
        FROM pg_temp.usage_delta JOIN crowded USING (dimension_set, starts_at)
        GROUP BY dimension_set, starts_at, value_1, value_2
    ), present AS (
        SELECT r.dimension_set, r.starts_at, r.value_1, r.value_2, r.cost_nanos,
            r.requests + r.tool_calls AS calls
        FROM crowded c JOIN usage_rollup r ON r.tenant_id = %s
            AND r.dimension_set = c.dimension_set AND r.starts_at = c.starts_at
        WHERE r.value_1 <> %s
    ), ranked AS (
        SELECT dimension_set, starts_at, value_1, value_2, p.calls IS NOT NULL AS is_present,
            row_number() OVER (
                PARTITION BY dimension_set, starts_at ORDER BY
                    coalesce(p.cost_nanos, 0) + coalesce(a.cost_nanos, 0) DESC,
                    coalesce(p.calls, 0) + coalesce(a.calls, 0) DESC,
                    p.calls IS NULL, value_1, value_2
            ) AS place
        FROM present p FULL JOIN arriving a USING (dimension_set, starts_at, value_1, value_2)
    )
    INSERT INTO pg_temp.usage_folded (dimension_set, starts_at, value_1, value_2, is_present)
    SELECT dimension_set, starts_at, value_1, value_2, is_present
    FROM ranked JOIN crowded USING (dimension_set, starts_at) WHERE place > values_max
"""
# What is taken away of a value without a row was added up as OTHER.
_FIND_FOLDED: Final = """
    INSERT INTO pg_temp.usage_folded (dimension_set, starts_at, value_1, value_2, is_present)
    SELECT DISTINCT d.dimension_set, d.starts_at, d.value_1, d.value_2, false
    FROM pg_temp.usage_delta d JOIN usage_rollup other ON other.tenant_id = %s
        AND other.dimension_set = d.dimension_set AND other.starts_at = d.starts_at
        AND other.value_1 = %s
    WHERE NOT EXISTS (
        SELECT FROM usage_rollup r WHERE r.tenant_id = other.tenant_id
        AND r.dimension_set = d.dimension_set AND r.starts_at = d.starts_at
        AND r.value_1 = d.value_1 AND r.value_2 = d.value_2
    )
"""
_FOLD: Final = """
    UPDATE pg_temp.usage_delta d SET value_1 = %s, value_2 = '' FROM pg_temp.usage_folded f
    WHERE f.dimension_set = d.dimension_set AND f.starts_at = d.starts_at
    AND f.value_1 = d.value_1 AND f.value_2 = d.value_2
"""
_FOLD_HISTOGRAMS: Final = """
    UPDATE pg_temp.usage_histogram_delta d SET value_1 = %s FROM pg_temp.usage_folded f
    WHERE f.dimension_set = d.dimension_set AND f.starts_at = d.starts_at
    AND f.value_1 = d.value_1
"""
_EVICT: Final = f"""
    WITH gone AS (
        DELETE FROM usage_rollup r USING pg_temp.usage_folded f
        WHERE f.is_present AND r.tenant_id = %s AND r.dimension_set = f.dimension_set
        AND r.starts_at = f.starts_at AND r.value_1 = f.value_1 AND r.value_2 = f.value_2
        RETURNING r.*
    )
    INSERT INTO pg_temp.usage_delta (dimension_set, starts_at, value_1, value_2, {_MEASURE_LIST})
    SELECT dimension_set, starts_at, %s, '', {_MEASURE_LIST} FROM gone
"""  # noqa: S608 - built from constants
_EVICT_HISTOGRAMS: Final = """
    WITH gone AS (
        DELETE FROM usage_histogram h USING pg_temp.usage_folded f
        WHERE f.is_present AND h.tenant_id = %s AND h.dimension_set = f.dimension_set
        AND h.starts_at = f.starts_at AND h.value_1 = f.value_1
        RETURNING h.*
    )
    INSERT INTO pg_temp.usage_histogram_delta
        (dimension_set, starts_at, value_1, measure, bin, count)
    SELECT dimension_set, starts_at, %s, measure, bin, count FROM gone
"""


def fold_long_tail(cursor: Any, tenant_id: int, *, sign: Literal[-1, 1]) -> None:
    """Give what the deltas and the rows beside them hold beyond a set's largest values to OTHER."""
    if sign < 0:
        cursor.execute(_FIND_FOLDED, [tenant_id, OTHER])
    else:
        kept = {one.number: one.values_max for one in SETS}
        cursor.execute(_FIND_CROWDED, [list(kept), list(kept.values()), tenant_id])
        crowded = cursor.fetchall()
        if not crowded:
            return
        columns = [list(column) for column in zip(*crowded, strict=True)]
        cursor.execute(_CHOOSE, [*columns, tenant_id, OTHER])
    if not cursor.rowcount:
        return
    cursor.execute(_FOLD, [OTHER])
    cursor.execute(_FOLD_HISTOGRAMS, [OTHER])
    cursor.execute(_EVICT, [tenant_id, OTHER])
    cursor.execute(_EVICT_HISTOGRAMS, [tenant_id, OTHER])
