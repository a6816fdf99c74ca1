"""Months of the tenant's calendar, by which pages of billing are read."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from dashboard.filter_bar import Choice, FilterBar, days_words

OFFERED: Final = 3
BACK_MAX: Final = 24
MONTH: Final = "month"


class Month(NamedTuple):
    """A calendar month in the tenant's zone. `until` is its end, or now if it is not over."""

    starts_at: datetime
    ends_at: datetime
    until: datetime
    words: str
    code: str
    first: date
    # How many months lie between it and the present one.
    back: int

    @property
    def is_running(self) -> bool:
        return self.back == 0

    @property
    def spoken(self) -> str:
        """The month within a sentence."""
        return ("this month", "last month")[self.back] if self.back < 2 else f"in {self.words}"


def month_of(bar: FilterBar, back: int) -> Month:
    """Return the month that lies this far back."""
    local = bar.now.astimezone(bar.zone)
    first = _first_of(local.year * 12 + local.month - 1 - back, bar.zone)
    end = _first_of(local.year * 12 + local.month - back, bar.zone)
    starts_at, ends_at = first.astimezone(UTC), end.astimezone(UTC)
    form = "%B" if first.year == local.year else "%B %Y"
    return Month(
        starts_at,
        ends_at,
        min(ends_at, bar.now),
        first.strftime(form),
        f"{first:%Y-%m}",
        first.date(),
        back,
    )


def _first_of(months: int, zone: ZoneInfo) -> datetime:
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=zone)


def chosen_month(text: str, bar: FilterBar) -> Month:
    """Return the month of an address, `2026-11`; the present one for what is none."""
    try:
        wanted = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        return month_of(bar, 0)
    local = bar.now.astimezone(bar.zone)
    back = (local.year - wanted.year) * 12 + local.month - wanted.month
    return month_of(bar, back if 0 <= back <= BACK_MAX else 0)


def month_choices(chosen: Month, bar: FilterBar) -> Sequence[Choice]:
    """Return the newest months as links, and the chosen one where it is older."""
    months = [month_of(bar, back) for back in range(OFFERED)]
    if chosen.back >= OFFERED:
        months.append(chosen)
    further = dict(bar.further)
    return [
        Choice(
            bar.with_further({**further, MONTH: each.code}).query(),
            ("This month", "Last month")[each.back] if each.back < 2 else each.words,
            0,
            each.code == chosen.code,
        )
        for each in months
    ]


def days_of(month: Month, bar: FilterBar) -> str:
    """The days of a month that are shown: Nov 1 to 19."""
    first, last = (
        at.astimezone(bar.zone).date()
        for at in (month.starts_at, month.until - timedelta(microseconds=1))
    )
    return days_words(first, max(first, last), this_year=bar.now.year)
