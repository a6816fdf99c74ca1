"""The proof of combinations: every one counted again from the events of rolled-up batches."""

from collections.abc import Mapping
from typing import Final

from common.queries import Rows, fetch_rows
from metering.models import BATCH_ID_STRIDE
from metering.rollups.combinations import COLUMN_LIST

_EVENT_COLUMNS: Final = ", ".join(f'{name} COLLATE "C"' for name in COLUMN_LIST.split(", "))
# A time that is not known may be too wide, never too narrow.
_COMPARE: Final = f"""
    WITH expected AS (
        SELECT {_EVENT_COLUMNS}, count(*) AS e_calls, min(time) AS e_first, max(time) AS e_last
        FROM usage_event WHERE tenant_id = %(tenant_id)s AND NOT is_void
            AND time >= %(starts_at)s AND time < %(ends_at)s
            AND NOT (id / {BATCH_ID_STRIDE} = ANY(%(waiting)s))
        GROUP BY {_EVENT_COLUMNS}
    ), stored AS (
        SELECT * FROM usage_combination
        WHERE tenant_id = %(tenant_id)s AND starts_at = %(starts_at)s
    )
    SELECT array_to_string(ARRAY[{COLUMN_LIST}], ' / ', '-'), coalesce(e_calls, 0),
        coalesce(calls, 0)
    FROM expected FULL JOIN stored USING ({COLUMN_LIST})
    WHERE e_calls IS DISTINCT FROM calls
        OR CASE WHEN is_first_known THEN e_first <> first_at ELSE e_first < first_at END
        OR CASE WHEN is_last_known THEN e_last <> last_at ELSE e_last > last_at END
    ORDER BY 1
"""


def wrong_combinations(parameters: Mapping[str, object]) -> Rows:
    """Return the values, the number of calls and the stored number of combinations of a day that
    are not what their events make them, calls or times.
    """
    return fetch_rows(_COMPARE, parameters)
