"""When a page is shown before its figures: of so much usage that to count or to read it may take
longer than a first look.
"""

from datetime import datetime
from typing import Final

from dashboard.filter_bar import FilterBar
from metering.rollups.counts import estimated_events

# Sums take no longer for more events; what is counted does.
COUNTED_AT_ONCE_MAX: Final = 200_000
# What is made of calls one by one.
READ_AT_ONCE_MAX: Final = 20_000


def is_counted_later(tenant_id: int, bar: FilterBar) -> bool:
    """Whether figures that are no sums come after a page with this bar."""
    spans = [bar.range, *([bar.previous] if bar.has_comparison else [])]
    events = sum(
        estimated_events(tenant_id=tenant_id, from_=span.starts_at, to=span.ends_at)
        for span in spans
    )
    return events > COUNTED_AT_ONCE_MAX


def are_read_later(tenant_id: int, starts_at: datetime, ends_at: datetime) -> bool:
    """Whether what is made of the calls of this time, one by one, comes after its page."""
    return estimated_events(tenant_id=tenant_id, from_=starts_at, to=ends_at) > READ_AT_ONCE_MAX
