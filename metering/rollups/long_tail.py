"""Which values of a bucket have rows of their own: the largest, whenever they came.

A bucket keeps `values_max` values and adds the others up as OTHER. When a larger value arrives, the
smallest one loses its row to OTHER; the sum of the bucket stays exact. A value that lost its row
and grows again gets one with what came since: no more than it had when it was among the smallest is
missing from it, and is in OTHER.
"""

from typing import Final, Literal

from django.db.backends.utils import CursorWrapper

from metering.rollups.sets import MEASURE_LIST, OTHER, SETS, SUM_LIST

# The set that adds up a whole bucket, by its grain.
_WHOLE_SETS: Final = {whole.grain_seconds: whole.number for whole in SETS if not whole.dimensions}
# Buckets that may hold more values than their set keeps. Almost always there are none. A bucket has
# no more values than events, so these are looked up first; rows of values whose events were all
# taken away again do not count.
_FIND_CROWDED: Final = """
    WITH large AS (
        SELECT s.dimension_set, w.starts_at, s.values_max
        FROM unnest(%s::smallint[], %s::smallint[], %s::bigint[])
            AS s (dimension_set, whole, values_max)
        JOIN (
            SELECT d.dimension_set, d.starts_at, d.requests + d.tool_calls + coalesce((
                SELECT r.requests + r.tool_calls FROM usage_rollup r WHERE r.tenant_id = %s
                AND r.dimension_set = d.dimension_set AND r.starts_at = d.starts_at
                AND r.value_1 = '' AND r.value_2 = ''
            ), 0) AS event_count
            FROM pg_temp.usage_delta d WHERE d.dimension_set = ANY(%s)
        ) w ON w.dimension_set = s.whole AND w.event_count > s.values_max
    ), touched AS (
        SELECT dimension_set, starts_at, values_max, count(*) AS new_count
        FROM pg_temp.usage_delta JOIN large USING (dimension_set, starts_at)
        GROUP BY dimension_set, starts_at, values_max
    )
    SELECT t.dimension_set, t.starts_at, t.values_max FROM touched t
    CROSS JOIN LATERAL (
        SELECT count(*) AS present_count FROM usage_rollup r WHERE r.tenant_id = %s
        AND r.dimension_set = t.dimension_set AND r.starts_at = t.starts_at
    ) p
    WHERE p.present_count + t.new_count > t.values_max
"""
# By cost; those that cost the same by their calls; of equals those that have a row keep it.
_CHOOSE: Final = """
    WITH crowded AS (
        SELECT * FROM unnest(%s::smallint[], %s::timestamptz[], %s::bigint[])
            AS c (dimension_set, starts_at, values_max)
    ), arriving AS (
        SELECT dimension_set, starts_at, value_1, value_2, cost_nanos,
            requests + tool_calls AS calls
        FROM pg_temp.usage_delta JOIN crowded USING (dimension_set, starts_at)
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
    SELECT d.dimension_set, d.starts_at, d.value_1, d.value_2, false
    FROM pg_temp.usage_delta d JOIN usage_rollup other ON other.tenant_id = %s
        AND other.dimension_set = d.dimension_set AND other.starts_at = d.starts_at
        AND other.value_1 = %s
    WHERE NOT EXISTS (
        SELECT FROM usage_rollup r WHERE r.tenant_id = other.tenant_id
        AND r.dimension_set = d.dimension_set AND r.starts_at = d.starts_at
        AND r.value_1 = d.value_1 AND r.value_2 = d.value_2
    )
"""
_FOLD: Final = f"""
    WITH unkept AS (
        DELETE FROM pg_temp.usage_delta d USING pg_temp.usage_folded f
        WHERE f.dimension_set = d.dimension_set AND f.starts_at = d.starts_at
        AND f.value_1 = d.value_1 AND f.value_2 = d.value_2
        RETURNING d.*
    ), evicted AS (
        DELETE FROM usage_rollup r USING pg_temp.usage_folded f
        WHERE f.is_present AND r.tenant_id = %s AND r.dimension_set = f.dimension_set
        AND r.starts_at = f.starts_at AND r.value_1 = f.value_1 AND r.value_2 = f.value_2
        RETURNING r.*
    )
    INSERT INTO pg_temp.usage_delta (dimension_set, starts_at, value_1, value_2, {MEASURE_LIST})
    SELECT dimension_set, starts_at, %s, '', {SUM_LIST}
    FROM (
        SELECT dimension_set, starts_at, {MEASURE_LIST} FROM unkept
        UNION ALL SELECT dimension_set, starts_at, {MEASURE_LIST} FROM evicted
    ) gone GROUP BY dimension_set, starts_at
"""
_FOLD_HISTOGRAMS: Final = """
    WITH unkept AS (
        DELETE FROM pg_temp.usage_histogram_delta d USING pg_temp.usage_folded f
        WHERE f.dimension_set = d.dimension_set AND f.starts_at = d.starts_at
        AND f.value_1 = d.value_1
        RETURNING d.*
    ), evicted AS (
        DELETE FROM usage_histogram h USING pg_temp.usage_folded f
        WHERE f.is_present AND h.tenant_id = %s AND h.dimension_set = f.dimension_set
        AND h.starts_at = f.starts_at AND h.value_1 = f.value_1
        RETURNING h.*
    )
    INSERT INTO pg_temp.usage_histogram_delta
        (dimension_set, starts_at, value_1, measure, bin, count)
    SELECT dimension_set, starts_at, %s, measure, bin, sum(count)
    FROM (
        SELECT dimension_set, starts_at, measure, bin, count FROM unkept
        UNION ALL SELECT dimension_set, starts_at, measure, bin, count FROM evicted
    ) gone GROUP BY dimension_set, starts_at, measure, bin
"""


def fold_long_tail(cursor: CursorWrapper, tenant_id: int, *, sign: Literal[-1, 1]) -> None:
    """Give what the deltas and the rows beside them hold beyond a set's largest values to OTHER."""
    if sign < 0:
        cursor.execute(_FIND_FOLDED, [tenant_id, OTHER])
    else:
        columns = [
            [dimension_set.number for dimension_set in SETS],
            [_WHOLE_SETS[dimension_set.grain_seconds] for dimension_set in SETS],
            [dimension_set.values_max for dimension_set in SETS],
        ]
        wholes = list(_WHOLE_SETS.values())
        cursor.execute(_FIND_CROWDED, [*columns, tenant_id, wholes, tenant_id])
        crowded = cursor.fetchall()
        if not crowded:
            return
        cursor.execute(_CHOOSE, [*map(list, zip(*crowded, strict=True)), tenant_id, OTHER])
    if not cursor.rowcount:
        return
    cursor.execute(_FOLD, [tenant_id, OTHER])
    cursor.execute(_FOLD_HISTOGRAMS, [tenant_id, OTHER])
