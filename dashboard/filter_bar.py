"""The filter bar: which time and which usage a page shows. It lives in the URL and nowhere else.

Parameters have the names of `GET /v1/usage`: `from`, `to` (days here), `group_by`, `interval`,
`metric`, `compare`, `filter[team]`. `period` names a preset, which moves with the clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.http import QueryDict

from common.values import normal_value
from metering.core.dimensions import MATCHABLE, VALUE_CHARACTERS_MAX
from metering.core.match import WORDS_BY_DIMENSION
from metering.reporting.question import EARLIEST, LATEST

PRESETS: Final = {
    "today": "Today",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
    "last_month": "Last month",
}
DEFAULT_PRESET: Final = "7d"
# Presets that are whole months.
MONTHS: Final = frozenset({"month", "last_month"})
CUSTOM: Final = "custom"
CUSTOM_DAYS_MAX: Final = 366
# What a chart can be split by, in the order in which it is offered.
SPLITS: Final = ("model", "team", "agent", "feature", "customer", "provider", "user")
# By what else a page can group.
GROUPS: Final = (*SPLITS, *(name for name in MATCHABLE if name not in SPLITS))
GROUPS_MAX: Final = 2
INTERVALS: Final = ("hour", "day", "week", "month")
COST: Final = "cost"
CHIPS_MAX: Final = 20
EN_DASH: Final = "\u2013"


Pairs = tuple[tuple[str, str], ...]


class TimeRange(NamedTuple):
    """A stretch of time in the tenant's zone. `until` is where it ends or, if earlier, now."""

    starts_at: datetime
    ends_at: datetime
    until: datetime


@dataclass(frozen=True)
class FilterBar:
    """What a page was asked to show. `notices` says in words what was not understood; `further`
    are parameters of the page itself, which every link of the bar keeps. `teams` are those whose
    usage the person may see; None: that of the whole tenant.
    """

    preset: str
    days: tuple[date, date] | None
    zone: ZoneInfo
    now: datetime
    group_by: tuple[str, ...]
    has_comparison: bool
    chips: Pairs
    chosen_interval: str | None = None
    metric: str = COST
    further: Pairs = ()
    notices: tuple[str, ...] = ()
    teams: tuple[str, ...] | None = None

    @property
    def split(self) -> str:
        """The dimension that a chart is split by."""
        return self.group_by[0]

    @property
    def range(self) -> TimeRange:
        starts_at, ends_at = self._bounds(0)
        return TimeRange(starts_at, ends_at, max(starts_at, min(ends_at, self.now)))

    @property
    def previous(self) -> TimeRange:
        """The stretch before, as far into it as this one has come."""
        starts_at, ends_at = self._bounds(1)
        elapsed = self.range.until - self.range.starts_at
        return TimeRange(starts_at, ends_at, min(ends_at, starts_at + elapsed))

    def _bounds(self, back: int) -> tuple[datetime, datetime]:
        first, end = self._days(back)
        return self._midnight(first), self._midnight(end)

    def _days(self, back: int) -> tuple[date, date]:
        """The first day, and the day after the last one."""
        today = self.now.astimezone(self.zone).date()
        if self.preset in MONTHS:
            months = back + (self.preset == "last_month")
            return _month(today, -months), _month(today, 1 - months)
        if self.days is not None:
            first, end = self.days[0], self.days[1] + timedelta(days=1)
        else:
            length = {"today": 1, "7d": 7, "30d": 30}[self.preset]
            first, end = today - timedelta(days=length - 1), today + timedelta(days=1)
        shift = (end - first) * back
        return first - shift, end - shift

    def _midnight(self, day: date) -> datetime:
        local = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        return local.astimezone(UTC)

    @property
    def interval(self) -> str:
        """How wide a bar of the chart is."""
        if self.chosen_interval is not None:
            return self.chosen_interval
        length = self.range.ends_at - self.range.starts_at
        if length <= timedelta(days=2, hours=1):
            return "hour"
        return "day" if length <= timedelta(days=100) else "month"

    @property
    def period_words(self) -> str:
        """The days that are shown, with a year only where it is not this one."""
        first, end = self._days(0)
        return days_words(first, end - timedelta(days=1), this_year=self.now.year)

    @property
    def previous_words(self) -> str:
        """The stretch before in words, as in "up 5% from yesterday"."""
        if self.preset == "today":
            return "this time yesterday"
        if self.preset == "month":
            return "this point last month"
        if self.preset == "last_month":
            return "the previous month"
        first, end = self._days(0)
        days = (end - first).days
        return f"the previous {days} days" if days > 1 else "the previous day"

    @property
    def filters(self) -> dict[str, list[str]]:
        """The chips as queries take them: any of the values of each dimension. Where the person
        may see some teams alone, these are among them whatever the chips say.
        """
        values: dict[str, list[str]] = {}
        for name, value in self.chips:
            values.setdefault(name, []).append(value)
        if self.teams is not None:
            values["team"] = [team for team in values.get("team", self.teams) if team in self.teams]
            assert values["team"], "`limited_to` leaves no chip of another team"
        return values

    def query(self, *, path: str = "") -> str:
        """This bar as a query string, without what is the default anyway."""
        return f"{path}?{urlencode(self.pairs, safe='[],')}"

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The parameters of the address."""
        period: list[tuple[str, str]] = []
        if self.days is not None:
            period = [("from", self.days[0].isoformat()), ("to", self.days[1].isoformat())]
        elif self.preset != DEFAULT_PRESET:
            period = [("period", self.preset)]
        return period + self.pairs_without_period

    @property
    def pairs_without_period(self) -> list[tuple[str, str]]:
        """The parameters that the form for other days keeps."""
        pairs: list[tuple[str, str]] = []
        if self.group_by != SPLITS[:1]:
            pairs.append(("group_by", ",".join(self.group_by)))
        if self.chosen_interval is not None:
            pairs.append(("interval", self.chosen_interval))
        if self.metric != COST:
            pairs.append(("metric", self.metric))
        if not self.has_comparison:
            pairs.append(("compare", "off"))
        pairs += [(parameter_of(name), value) for name, value in self.chips]
        return [*pairs, *self.further]

    def with_period(self, preset: str) -> "FilterBar":
        return replace(self, preset=preset, days=None)

    def with_days(self, first: date, last: date) -> "FilterBar":
        return replace(self, preset=CUSTOM, days=(first, last))

    def with_split(self, split: str) -> "FilterBar":
        return replace(self, group_by=(split,))

    def with_interval(self, interval: str) -> "FilterBar":
        return replace(self, chosen_interval=interval)

    def with_comparison(self, has_comparison: bool) -> "FilterBar":
        return replace(self, has_comparison=has_comparison)

    def with_further(self, further: Mapping[str, str]) -> "FilterBar":
        """These parameters of the page, in place of those that it has."""
        return replace(self, further=tuple(further.items()))

    def limited_to(self, teams: tuple[str, ...] | None) -> "FilterBar":
        """The bar of a person who may see these teams alone: chips of others are left out."""
        if teams is None:
            return self
        kept = tuple(
            (name, value) for name, value in self.chips if name != "team" or value in teams
        )
        notices = self.notices
        if kept != self.chips:
            notices = (*notices, "You can see the usage of your own teams only.")
        return replace(self, chips=kept, notices=notices, teams=teams)

    def with_chip(self, name: str, value: str) -> "FilterBar":
        pair = (name, value)
        return self if pair in self.chips else replace(self, chips=(*self.chips, pair))

    def without_chip(self, name: str, value: str) -> "FilterBar":
        return replace(self, chips=tuple(chip for chip in self.chips if chip != (name, value)))

    def without_chips(self) -> "FilterBar":
        return replace(self, chips=())

    def with_only(self, name: str, value: str | None) -> "FilterBar":
        """One value of a dimension, or all of them, in place of what was chosen of it."""
        others = tuple(chip for chip in self.chips if chip[0] != name)
        chosen = () if value is None else ((name, value),)
        return replace(self, chips=(*others, *chosen))


def parameter_of(dimension: str) -> str:
    """The name of a dimension's filter in an address."""
    return f"filter[{dimension}]"


def days_words(first: date, last: date, *, this_year: int) -> str:
    """Two days and what lies between, the year only where it is another one."""
    year = "" if first.year == last.year == this_year else f", {last.year}"
    if first == last:
        return f"{first:%b %-d}{year}"
    if (first.year, first.month) == (last.year, last.month):
        return f"{first:%b %-d}{EN_DASH}{last.day}{year}"
    first_year = f", {first.year}" if first.year != last.year else ""
    return f"{first:%b %-d}{first_year} {EN_DASH} {last:%b %-d}{year}"


def _month(day: date, months: int) -> date:
    """Return the first day of the month a number of months after a day's own."""
    years, month = divmod(day.month - 1 + months, 12)
    return date(day.year + years, month + 1, 1)


def read_filter_bar(query: QueryDict, *, timezone: str, now: datetime) -> FilterBar:
    """The bar that a query string asks for. What is not understood is left out and said."""
    notices: list[str] = []
    preset, days = _read_period(query, notices)
    interval = query.get("interval")
    if interval is not None and interval not in INTERVALS:
        notices.append("This interval is not known, so the usual one is shown.")
        interval = None
    return FilterBar(
        preset=preset,
        days=days,
        zone=ZoneInfo(timezone),
        now=now,
        group_by=_read_groups(query, notices),
        has_comparison=query.get("compare") != "off",
        chips=_read_chips(query, notices),
        chosen_interval=interval,
        metric=query.get("metric", COST),
        notices=tuple(notices),
    )


def _read_groups(query: QueryDict, notices: list[str]) -> tuple[str, ...]:
    names = tuple(query.get("group_by", SPLITS[0]).split(","))
    if len(set(names)) == len(names) <= GROUPS_MAX and set(names) <= set(GROUPS):
        return names
    notices.append("Spend cannot be split that way, so it is split by model.")
    return SPLITS[:1]


def _read_period(
    query: Mapping[str, str], notices: list[str]
) -> tuple[str, tuple[date, date] | None]:
    if query.get("from") or query.get("to"):
        days = _read_days(query.get("from", ""), query.get("to", ""))
        if days is not None:
            return CUSTOM, days
        notices.append(
            "These dates could not be read, so the last 7 days are shown. "
            f"Give two dates, the earlier one first, at most {CUSTOM_DAYS_MAX} days apart."
        )
        return DEFAULT_PRESET, None
    preset = query.get("period", DEFAULT_PRESET)
    if preset in PRESETS:
        return preset, None
    notices.append("This period is not known, so the last 7 days are shown.")
    return DEFAULT_PRESET, None


def _read_days(first: str, last: str) -> tuple[date, date] | None:
    try:
        days = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        return None
    is_usable = days[0] <= days[1] and (days[1] - days[0]).days < CUSTOM_DAYS_MAX
    # In every zone within the times that can be asked for.
    is_known = days[0].year > EARLIEST.year and days[1].year < LATEST.year
    return days if is_usable and is_known else None


def _read_chips(query: QueryDict, notices: list[str]) -> Pairs:
    """The chips of the address, and the one that the form "Add a filter" asks for."""
    added = query.get("dimension", ""), query.get("value", "")
    pairs = [
        (name, value)
        for name in MATCHABLE
        for value, given in _values_of(query, name, added).items()
        if is_possible(name, value) and bool(value) == bool(given)
    ]
    if len(pairs) > CHIPS_MAX:
        notices.append(f"Only the first {CHIPS_MAX} filters are used.")
    return tuple(pairs[:CHIPS_MAX])


def _values_of(query: QueryDict, name: str, added: tuple[str, str]) -> dict[str, str]:
    """The values of a dimension as they are stored, and as they were given."""
    given = query.getlist(parameter_of(name)) + [value for of, value in [added] if of == name]
    return {normal_value(value): value for value in given}


def is_possible(name: str, value: str) -> bool:
    """Whether an event can have this value."""
    words = WORDS_BY_DIMENSION.get(name)
    if words is not None:
        return value in words
    return len(value) <= VALUE_CHARACTERS_MAX and "\0" not in value


class Choice(NamedTuple):
    """One of several that a page offers, with how many rows it would show."""

    query: str
    words: str
    number: int
    is_chosen: bool


def choices(bar: FilterBar) -> list[Choice]:
    """The presets."""
    return [
        Choice(bar.with_period(name).query(), words, 0, name == bar.preset)
        for name, words in PRESETS.items()
    ]
