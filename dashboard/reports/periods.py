"""Which period a report is of, and when it is due: by the clock of the tenant's zone. Pure."""

from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta

from dashboard.models import Cadence

_LENGTH: Final = {
    Cadence.DAILY.value: relativedelta(days=1),
    Cadence.WEEKLY.value: relativedelta(weeks=1),
    Cadence.MONTHLY.value: relativedelta(months=1),
}


class Period(NamedTuple):
    """The days that a report is of: a day, a week from Monday on, or a month."""

    first: date
    last: date


def period_of(cadence: str, day: date) -> Period:
    """The period that a day is in."""
    first = day
    if cadence == Cadence.WEEKLY:
        first = day - timedelta(days=day.weekday())
    elif cadence == Cadence.MONTHLY:
        first = day.replace(day=1)
    return Period(first, first + _LENGTH[cadence] - timedelta(days=1))


def period_before(cadence: str, day: date) -> Period:
    """The last whole period before a day."""
    return period_of(cadence, period_of(cadence, day).first - timedelta(days=1))


def due_after(cadence: str, hour: int, zone: ZoneInfo, now: datetime) -> datetime:
    """The first moment after `now` at which a report is due: the hour of the first day after its
    period.

    Where the clock skips that hour it is due when the skipped hour would have begun by the old
    offset; an hour that comes twice counts when it comes first.
    """
    first = period_of(cadence, now.astimezone(zone).date()).first
    while True:
        due = datetime(first.year, first.month, first.day, hour, tzinfo=zone).astimezone(UTC)
        if due > now:
            return due
        first = first + _LENGTH[cadence]
