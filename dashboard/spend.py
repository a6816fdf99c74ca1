"""What the overview shows of spending: totals, series over time, and who spends most."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from dashboard.colors import SERIES_MAX
from dashboard.filter_bar import FilterBar, TimeRange
from metering.models import IngestBatch
from metering.reporting.intervals import buckets
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import Measures, UsageRow, total_usage, usage

SPENDERS_MAX: Final = 10
# Every bucket times every series: a year of days, or two days of hours.
POINTS_MAX: Final = 5_000


@dataclass(frozen=True)
class Spender:
    """One value of a dimension, with what it spent in the period and in the one before."""

    value: str
    measures: Measures
    before_nanos: int | None
    is_other: bool = False

    @property
    def calls(self) -> int:
        """Model calls and tool calls."""
        return self.measures.requests + self.measures.tool_calls

    @property
    def tokens(self) -> int:
        return self.measures.input_tokens + self.measures.output_tokens

    @property
    def is_only_unpriced(self) -> bool:
        """Whether there is no cost because no call has a price."""
        return self.measures.unpriced > 0 and self.measures.unpriced == self.calls


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
        return [sum(column[place] for column in columns) for place in range(len(self.starts))]


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


def read_totals(tenant_id: int, bar: FilterBar, span: TimeRange) -> Measures:
    """Everything in a stretch of time."""
    if span.starts_at >= span.until:
        return Measures()
    return total_usage(question(tenant_id, bar, span, group_by=None, interval="none"))


def read_spenders(tenant_id: int, bar: FilterBar, totals: Measures) -> list[Spender]:
    """The values of the chosen split that spent most, then all others as one."""
    span = bar.range
    if span.starts_at >= span.until:
        return []
    asked = question(tenant_id, bar, span, group_by=bar.split, interval="none")
    rows = usage(asked, limit=SPENDERS_MAX + 1).rows
    shown = [row for row in rows if not row.is_other][:SPENDERS_MAX]
    before = _before(tenant_id, bar, [row.group[bar.split] for row in shown])
    spenders = [
        Spender(
            value=row.group[bar.split],
            measures=row.measures,
            before_nanos=before.get(row.group[bar.split], 0) if before is not None else None,
        )
        for row in shown
    ]
    rest = _rest(totals, [one.measures for one in spenders])
    if rest.requests or rest.tool_calls:
        spenders.append(Spender("", rest, before_nanos=None, is_other=True))
    return spenders


def _before(tenant_id: int, bar: FilterBar, values: Sequence[str]) -> dict[str, int] | None:
    """What these values spent in the period before; None when it is not compared."""
    span = bar.previous
    if not bar.has_comparison or not values or span.starts_at >= span.until:
        return None
    asked = question(tenant_id, bar, span, group_by=bar.split, interval="none")
    asked = replace(asked, filters={**asked.filters, bar.split: tuple(values)})
    rows = usage(asked, limit=len(values)).rows
    return {row.group[bar.split]: row.measures.cost_nanos for row in rows}


def _rest(totals: Measures, parts: Sequence[Measures]) -> Measures:
    return Measures(
        *(whole - sum(part[place] for part in parts) for place, whole in enumerate(totals))
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
    place_of = {start: place for place, start in enumerate(starts)}
    if values:
        by_time = replace(whole, interval=bar.interval)
        by_time = replace(by_time, filters={**whole.filters, bar.split: tuple(values)})
        for row in usage(by_time, limit=POINTS_MAX).rows:
            amounts[row.group[bar.split]][place_of[row.start]] = row.measures.cost_nanos
    totals = read_amounts(tenant_id, bar, span, starts)
    others = [
        total - sum(column[place] for column in amounts.values())
        for place, total in enumerate(totals)
    ]
    return Series(
        starts=starts,
        interval=bar.interval,
        amounts=amounts,
        others=others if any(others) else None,
        unfinished=unfinished_place(starts, span),
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
    span = bar.previous
    if not bar.has_comparison or span.starts_at >= span.ends_at:
        return None
    # Cut at the same elapsed time: a whole day beside half of one would look like a fall.
    amounts = read_amounts(tenant_id, bar, span, bucket_starts(bar, span))
    # Months and days of a clock change differ in length; what has no counterpart is left out.
    return (amounts + [0] * length)[:length] if any(amounts) else None


def read_amounts(
    tenant_id: int, bar: FilterBar, span: TimeRange, starts: Sequence[datetime]
) -> list[int]:
    """The total of each bucket."""
    asked = question(tenant_id, bar, span, group_by=None, interval=bar.interval)
    found = {row.start: row.measures.cost_nanos for row in usage(asked, limit=POINTS_MAX).rows}
    return [found.get(start, 0) for start in starts]


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


def unfinished_place(starts: Sequence[datetime], span: TimeRange) -> int | None:
    """The bucket that now falls into; None when the stretch is over."""
    if span.until >= span.ends_at or not starts:
        return None
    return max(place for place, start in enumerate(starts) if start <= span.until)


def local(moment: datetime, bar: FilterBar) -> datetime:
    """A moment by the tenant's clock."""
    return moment.astimezone(UTC).astimezone(bar.zone)
