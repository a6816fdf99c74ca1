"""Estimates of the number of events, by what is rolled up."""

from datetime import datetime

from common.queries import fetch_row
from metering.rollups.sets import QUARTER_SECONDS, find_set
from tenants.scope import once_a_snapshot


@once_a_snapshot
def estimated_events(
    *, tenant_id: int, from_: datetime, to: datetime | None = None, is_unpriced: bool = False
) -> int:
    """Estimate the number of events in a range, by its quarters of an hour and the batches that are
    not rolled up yet: reading them all to count them would take as long as the work itself.
    """
    quarters = find_set(frozenset(), grain_seconds=QUARTER_SECONDS)
    assert quarters is not None
    measure = "unpriced" if is_unpriced else "requests + tool_calls"
    parameters = {"tenant": tenant_id, "set": quarters.number, "from": from_, "to": to}
    (count,) = fetch_row(
        f"""
        SELECT coalesce((SELECT sum({measure}) FROM usage_rollup WHERE tenant_id = %(tenant)s
            AND dimension_set = %(set)s AND starts_at >= %(from)s - interval '15 minutes'
            AND starts_at < coalesce(%(to)s, 'infinity'::timestamptz)), 0)
        + coalesce((SELECT sum(event_count) FROM ingest_batch WHERE tenant_id = %(tenant)s
            AND rolled_up_at IS NULL AND last_at >= %(from)s
            AND first_at < coalesce(%(to)s, 'infinity'::timestamptz)), 0)
        """,
        parameters,
    )
    return int(count)
