"""When people are left in peace. Pure: times in, times out.

Quiet hours are local: on the days on which clocks change they are as long as the clock makes them.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, time, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

ONE_DAY: Final = timedelta(days=1)


class Pause(NamedTuple):
    """A time in which what matches is not told."""

    starts_at: datetime
    ends_at: datetime
    match: Mapping[str, Any]


def quiet_until(now: datetime, *, begins: time, ends: time, timezone: str) -> datetime | None:
    """When the quiet hours end in which `now` lies; None outside of them.

    They go past midnight where they end before they begin; of equal ends there are none.
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
    now: datetime, pauses: Iterable[Pause], match: Mapping[str, Any]
) -> datetime | None:
    """When the last of the pauses ends that cover this moment and what an incident is about.

    A pause that begins as another ends goes on from it.
    """
    ends_at = now
    for pause in sorted(pauses, key=lambda one: one.starts_at):
        if pause.starts_at <= ends_at and covers(pause.match, match):
            ends_at = max(ends_at, pause.ends_at)
    return ends_at if ends_at > now else None


def covers(wanted: Mapping[str, Any], match: Mapping[str, Any]) -> bool:
    """Whether an incident about `match` lies within `wanted` (empty: everything does).

    Values are one or a list; an incident that does not say a dimension is not covered by it.
    """
    return all(
        name in match and values_of(match[name]) <= values_of(value)
        for name, value in wanted.items()
    )


def values_of(value: object) -> frozenset[str]:
    """The values that a match names; None is the missing value."""
    values = value if isinstance(value, list | tuple) else [value]
    return frozenset("" if one is None else str(one) for one in values)
