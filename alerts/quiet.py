"""When people are left in peace. Pure: times in, times out.

Quiet hours are local: on the days on which clocks change they are as long as the clock makes them.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from alerts.models import MaintenanceWindow

ONE_DAY: Final = timedelta(days=1)


def quiet_until(now: datetime, *, begins: time, ends: time, timezone: str) -> datetime | None:
    """Return when the quiet hours end in which `now` lies; None outside of them.

    They go past midnight if they end before they begin; with equal ends there are none.
    """
    zone = ZoneInfo(timezone)
    today = now.astimezone(zone).date()
    for day in (today - ONE_DAY, today):
        last = day if begins <= ends else day + ONE_DAY
        starts_at = datetime.combine(day, begins, zone)
        ends_at = datetime.combine(last, ends, zone)
        # Compared in UTC: two times of one zone would be compared by their clock faces.
        if starts_at.timestamp() <= now.timestamp() < ends_at.timestamp():
            return ends_at.astimezone(now.tzinfo)
    return None


def paused_until(
    now: datetime, windows: Iterable[MaintenanceWindow], match: Mapping[str, object]
) -> datetime | None:
    """Return when the last of the windows ends that cover this time and what an incident is about.

    A window that begins as another ends extends it.
    """
    ends_at = now
    for window in sorted(windows, key=lambda window: window.starts_at):
        if window.starts_at <= ends_at and covers(window.match, match):
            ends_at = max(ends_at, window.ends_at)
    return ends_at if ends_at > now else None


def covers(wanted: Mapping[str, object], match: Mapping[str, object]) -> bool:
    """Whether an incident about `match` lies within `wanted` (empty: all do).

    Values are one or a list; an incident that does not name a dimension is not covered by it.
    """
    return all(
        name in match and values_of(match[name]) <= values_of(value)
        for name, value in wanted.items()
    )


def values_of(value: object) -> frozenset[str]:
    """Return the values that a match names; None is the missing value."""
    values = value if isinstance(value, list | tuple) else [value]
    return frozenset("" if item is None else str(item) for item in values)
