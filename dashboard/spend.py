"""What the overview shows of spending: totals, series over time, and who spends most."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Final

from dashboard.colors import SERIES_MAX
from dashboard.filter_bar import MONTHS, FilterBar, TimeRange
from metering.models import IngestBatch
from metering.reporting.change import Change, what_moved_it
from metering.reporting.comparison import range_before
from metering.reporting.intervals import buckets
from metering.reporting.question import InvalidQuestion, UsageQuestion
from metering.reporting.usage import Measures, UsageRow, total_usage, usage

SPENDERS_MAX: Final = 10
# More values of a dimension are not counted one by one.
VALUES_MAX: Final = 1_000
CURVE_DAYS: Final = 14
# Every bucket times every series: a year of days, or two days of hours.
POINTS_MAX: Final = 5_000


@dataclass(frozen=True)
class Spender:
    """One value of a dimension, with what it spent in the period and in the one before, and on each
    of the last days.
    """

    value: str
    measures: Measures
    before_nanos: int | None
    is_other: bool = False
    days: Sequence[int] = ()

    @property
    def calls(self) -> int:
        """Model calls and tool calls."""
        return calls_of(self.measures)

    @property
    def tokens(self) -> int:
        return tokens_of(self.measures)

    @property
    def per_call_nanos(self) -> int:
        return per_call(self.measures)

    @property
    def is_only_unpriced(self) -> bool:
        """Whether there is no cost because no call has a price."""
        return self.measures.unpriced > 0 and self.measures.unpriced == self.calls


@dataclass(frozen=True)
class Spending:
    """What was spent in a period, by whom, and in the same time before (None: not compared).

    `values` is how many values of the split there are, at least, where there `are_more`; all that
    are not shown are the last of `spenders`.
    """

    total: Measures
    before: Measures | None
    spenders: Sequence[Spender]
    values: int
    are_more: bool

    @property
    def named(self) -> list[Spender]:
        """The spenders that are shown by themselves."""
        return [spender for spender in self.spenders if not spender.is_other]


def calls_of(measures: Measures) -> int:
    """Model calls and tool calls."""
    return measures.requests + measures.tool_calls


def tokens_of(measures: Measures) -> int:
    return measures.input_tokens + measures.output_tokens


def per_call(measures: Measures) -> int:
    """What a call cost on average, in whole nano-dollars."""
    calls = calls_of(measures)
    return (2 * measures.cost_nanos + calls) // (2 * calls) if calls else 0


@dataclass(frozen=True)
class Series:
    """Spend over time. `amounts` has a list per shown value; `others` is all the rest, if any.

    `unfinished` is the place of the bucket that is still running. `before` is the total of the same
    places one period earlier.
    """

    starts: list[datetime]
    interval: str
    amounts: dict[str, list[int]]
    others: list[int] | None
    unfinished: int | None
    before: list[int] | None

    @property
    def totals(self) -> list[int]:
        columns = [*self.amounts.values(), *([self.others] if self.others is not None else [])]
        return [sum(column[index] for column in columns) for index in range(len(self.starts))]


def has_usage(tenant_id: int) -> bool:
    """Whether the tenant has ever reported anything."""
    return IngestBatch.objects.filter(tenant_id=tenant_id).exists()


def question(
    tenant_id: int, bar: FilterBar, span: TimeRange, *, group_by: str | None, interval: str
) -> UsageQuestion:
    """The page's question in a form that the domain answers."""
    return UsageQuestion(
        tenant_id=tenant_id,
        starts_at=span.starts_at,
        ends_at=span.until,
        group_by=(group_by,) if group_by else (),
        interval=interval,
        timezone=str(bar.zone),
        filters={name: tuple(values) for name, values in bar.filters.items()},
    )


def compared_question(tenant_id: int, bar: FilterBar) -> UsageQuestion | None:
    """The period as a question whose range is compared: with as many months before where it is a
    month, else with as many days. None where nothing is compared.
    """
    span = bar.range
    if not bar.has_comparison or span.starts_at >= span.until:
        return None
    interval = "month" if bar.preset in MONTHS else "none"
    asked = question(tenant_id, bar, span, group_by=None, interval=interval)
    return replace(asked, ends_at=span.ends_at)


def previous_range(tenant_id: int, bar: FilterBar) -> TimeRange | None:
    """The stretch before, up to the same time as this one has come to. None: not compared."""
    asked = compared_question(tenant_id, bar)
    if asked is None:
        return None
    try:
        starts_at, until = range_before(asked, now=bar.now)
    except InvalidQuestion:  # so early that no usage is stored
        return None
    ends_at = bar.previous.ends_at
    return TimeRange(starts_at, ends_at, until) if starts_at < until else None


def read_change(tenant_id: int, bar: FilterBar) -> Change | None:
    """What moved spending against the period before, by the split. None where that is not compared,
    or cannot be told: what is that old is no longer kept, or there are too many values.
    """
    asked = compared_question(tenant_id, bar)
    if asked is None:
        return None
    try:
        return what_moved_it(asked, dimension=bar.split, now=bar.now)
    except InvalidQuestion:
        return None


def read_spending(tenant_id: int, bar: FilterBar, change: Change | None) -> Spending:
    """The total, and the values of the split that spent most, then all others as one."""
    span, earlier = bar.range, previous_range(tenant_id, bar)
    if span.starts_at >= span.until:
        return Spending(Measures(), None, [], 0, False)
    asked = question(tenant_id, bar, span, group_by=bar.split, interval="none")
    page = usage(asked, limit=VALUES_MAX)
    rows = [row for row in page.rows if not row.is_other]
    days = _read_days(tenant_id, bar, [row.group[bar.split] for row in rows[:SPENDERS_MAX]])
    before = {group.value: group.before.cost_nanos for group in change.groups} if change else {}
    spenders = [
        Spender(value, row.measures, before.get(value, 0) if change else None, days=days[value])
        for value, row in zip(days, rows, strict=False)
    ]
    rest = _rest(page.total, [group.measures for group in spenders])
    if calls_of(rest):
        rest_before = sum(before.values()) - sum(before.get(value, 0) for value in days)
        spenders.append(Spender("", rest, rest_before if change else None, is_other=True))
    return Spending(
        total=page.total,
        before=read_total(tenant_id, bar, earlier) if earlier else None,
        spenders=spenders,
        values=len(rows),
        are_more=page.next_cursor is not None or len(rows) < len(page.rows),
    )


def read_total(tenant_id: int, bar: FilterBar, span: TimeRange) -> Measures:
    """All usage in a stretch of time."""
    return total_usage(question(tenant_id, bar, span, group_by=None, interval="none"))


def _read_days(tenant_id: int, bar: FilterBar, values: Sequence[str]) -> dict[str, list[int]]:
    """What these values spent on each of the days that end with the period, for small curves."""
    span = bar.range
    days: dict[str, list[int]] = {value: [0] * CURVE_DAYS for value in values}
    if not values:
        return days
    last = local(span.until - datetime.resolution, bar).date()
    dates = [last - timedelta(days=back) for back in range(CURVE_DAYS)][::-1]
    first = datetime.combine(dates[0], time(), tzinfo=bar.zone).astimezone(UTC)
    asked = question(
        tenant_id, bar, TimeRange(first, span.until, span.until), group_by=bar.split, interval="day"
    )
    asked = replace(asked, filters={**asked.filters, bar.split: tuple(values)})
    index_of = {day: index for index, day in enumerate(dates)}
    for row in usage(asked, limit=CURVE_DAYS * len(values)).rows:
        index = index_of[local(row.start, bar).date()]
        days[row.group[bar.split]][index] = row.measures.cost_nanos
    return days


def _rest(totals: Measures, parts: Sequence[Measures]) -> Measures:
    return Measures(
        *(whole - sum(part[index] for part in parts) for index, whole in enumerate(totals))
    )


def read_greatest(tenant_id: int, bar: FilterBar) -> list[str]:
    """The values of the split that spent most lately, whatever the filter: they own the colors."""
    month = replace(bar, preset="30d", days=None, chips=()).range
    asked = question(tenant_id, replace(bar, chips=()), month, group_by=bar.split, interval="none")
    return [row.group[bar.split] for row in usage(asked, limit=SERIES_MAX).rows if not row.is_other]


def read_series(tenant_id: int, bar: FilterBar) -> Series:
    """Spend over time, split by at most eight values and all others."""
    span = bar.range
    starts = bucket_starts(bar, span)
    blank = [0] * len(starts)
    if span.starts_at >= span.until:
        return Series(starts, bar.interval, {}, None, None, None)
    whole = question(tenant_id, bar, span, group_by=bar.split, interval="none")
    rows = usage(whole, limit=SERIES_MAX + 1).rows
    values = [row.group[bar.split] for row in rows if not row.is_other][:SERIES_MAX]
    amounts = {value: list(blank) for value in values}
    index_of = {start: index for index, start in enumerate(starts)}
    if values:
        by_time = replace(whole, interval=bar.interval)
        by_time = replace(by_time, filters={**whole.filters, bar.split: tuple(values)})
        for row in usage(by_time, limit=POINTS_MAX).rows:
            amounts[row.group[bar.split]][index_of[row.start]] = row.measures.cost_nanos
    totals = read_amounts(tenant_id, bar, span, starts)
    others = [
        total - sum(column[index] for column in amounts.values())
        for index, total in enumerate(totals)
    ]
    return Series(
        starts=starts,
        interval=bar.interval,
        amounts=amounts,
        others=others if any(others) else None,
        unfinished=unfinished_bucket(starts, span),
        before=_amounts_before(tenant_id, bar, len(starts)),
    )


def read_rows(tenant_id: int, bar: FilterBar) -> Iterator[UsageRow]:
    """What each value of the split used in each bucket, all of it."""
    span = bar.range
    if span.starts_at >= span.until:
        return
    asked = question(tenant_id, bar, span, group_by=bar.split, interval=bar.interval)
    cursor = None
    while True:
        page = usage(asked, limit=POINTS_MAX, cursor=cursor)
        yield from page.rows
        cursor = page.next_cursor
        if cursor is None:
            return


def _amounts_before(tenant_id: int, bar: FilterBar, length: int) -> list[int] | None:
    # Cut at the same elapsed time: a whole day beside half of one would look like a fall.
    span = previous_range(tenant_id, bar)
    if span is None:
        return None
    amounts = read_amounts(tenant_id, bar, span, bucket_starts(bar, span))
    # Months and days of a clock change differ in length; what has no counterpart is left out.
    return (amounts + [0] * length)[:length] if any(amounts) else None


def read_amounts(
    tenant_id: int, bar: FilterBar, span: TimeRange, starts: Sequence[datetime]
) -> list[int]:
    """The total of each bucket."""
    asked = question(tenant_id, bar, span, group_by=None, interval=bar.interval)
    amounts = {row.start: row.measures.cost_nanos for row in usage(asked, limit=POINTS_MAX).rows}
    return [amounts.get(start, 0) for start in starts]


def bucket_starts(bar: FilterBar, span: TimeRange) -> list[datetime]:
    """Where the bars of a chart begin, those of the rest of the period included."""
    return [
        bucket.start
        for bucket in buckets(
            interval=bar.interval,
            timezone=str(bar.zone),
            starts_at=span.starts_at,
            ends_at=span.ends_at,
        )
    ]


def places_before(starts: Sequence[datetime], first_at: datetime | None) -> int:
    """How many of the buckets end before the first event of all: there is no data for them."""
    if first_at is None:
        return 0
    return max(0, sum(start <= first_at for start in starts) - 1)


def unfinished_bucket(starts: Sequence[datetime], span: TimeRange) -> int | None:
    """The bucket that now falls into; None when the stretch is over."""
    if span.until >= span.ends_at or not starts:
        return None
    return max(index for index, start in enumerate(starts) if start <= span.until)


def local(moment: datetime, bar: FilterBar) -> datetime:
    """A moment by the tenant's clock."""
    return moment.astimezone(UTC).astimezone(bar.zone)
