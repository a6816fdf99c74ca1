"""How a window was used up: its spend over time, the limit that held, and where it is going."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from dashboard.amounts import percent_text
from metering.core.match import wanted_values
from metering.core.periods import ROLLING_SECONDS
from metering.models import Crossing, LimitIncrease, LimitIncreaseStatus
from metering.reporting.budget_windows import WatchedWindow
from metering.reporting.intervals import buckets
from metering.reporting.question import VALUES_MAX, UsageQuestion
from metering.reporting.usage import Measures, usage

# Of a window that never ends, as much is drawn.
DRAWN_MAX: Final = timedelta(days=92)
POINTS_MAX: Final = 2_000
CROSSINGS_MAX: Final = 50
INCREASES_MAX: Final = 100


@dataclass(frozen=True)
class Burn:
    """What was used of a window by time, as whole amounts of its fullest part.

    `limits` are the limit from a time on; `ahead` is where the window will be at this rate.
    """

    interval: str
    starts_at: datetime
    ends_at: datetime
    times: Sequence[datetime]
    used: Sequence[int]
    limits: Sequence[tuple[datetime, int]]
    crossings: Sequence[tuple[datetime, int, str]]
    ahead: tuple[datetime, int] | None


def filters_of(window: WatchedWindow) -> dict[str, tuple[str, ...]] | None:
    """What the window counts, as questions about usage take it; None where that is too much."""
    match = {name: wanted_values(wanted) for name, wanted in window.rule.match.items()}
    match |= {name: frozenset({value}) for name, value in window.group}
    if any(len(values) > VALUES_MAX for values in match.values()):
        return None
    return {name: tuple(sorted(values)) for name, values in match.items()}


def span_of(window: WatchedWindow, now: datetime) -> tuple[datetime, datetime]:
    """The stretch of time that is drawn: the period, or as far as one without end has come."""
    rule, state = window.rule, window.state
    if rule.is_rolling:
        return now - timedelta(seconds=ROLLING_SECONDS[rule.period]), now
    if state.ends_at is not None:
        return state.starts_at, state.ends_at
    return now - DRAWN_MAX, now


def question_of(window: WatchedWindow, *, tenant_id: int, now: datetime) -> UsageQuestion | None:
    """The usage that the window counts, up to now; None where it cannot be asked for."""
    filters = filters_of(window)
    starts_at, ends_at = span_of(window, now)
    # What was used before the budget counts is not in its window.
    starts_at, until = max(starts_at, window.rule.counts_from), min(ends_at, now)
    if filters is None or starts_at >= until or window.part == "seconds":
        return None
    return UsageQuestion(
        tenant_id=tenant_id, starts_at=starts_at, ends_at=until, interval="none", filters=filters
    )


def read_burn(
    window: WatchedWindow, *, tenant_id: int, zone: ZoneInfo, now: datetime
) -> Burn | None:
    """What is drawn of a window; None where its usage cannot be asked for."""
    question = question_of(window, tenant_id=tenant_id, now=now)
    if question is None:
        return None
    starts_at, ends_at = span_of(window, now)
    is_endless = window.state.ends_at is None and not window.rule.is_rolling
    if is_endless:
        starts_at = _first_use(question, zone)
        question = replace(question, starts_at=starts_at)
    interval = _interval(ends_at - starts_at)
    asked = UsageQuestion(
        tenant_id=tenant_id,
        starts_at=question.starts_at,
        ends_at=question.ends_at,
        interval=interval,
        timezone=zone.key,
        filters=question.filters,
    )
    measured = {row.start: row.measures for row in usage(asked, limit=POINTS_MAX).rows}
    until = question.ends_at
    times, used = [question.starts_at], [0]
    for bucket in buckets(
        interval=interval, timezone=zone.key, starts_at=asked.starts_at, ends_at=until
    ):
        times.append(bucket.reads_to)
        used.append(used[-1] + _amount(window.part, measured.get(bucket.start, Measures())))
    # The ledger has the last word, also on what was spent before the stretch that is drawn.
    before = 0 if used[-1] > window.spent else window.spent - used[-1]
    used = [amount + before if is_endless else min(amount, window.spent) for amount in used]
    used[-1] = window.spent
    return Burn(
        interval=interval,
        starts_at=starts_at,
        ends_at=ends_at,
        times=times,
        used=used,
        limits=_limits(window, tenant_id, starts_at, ends_at),
        crossings=_crossings(window, tenant_id),
        ahead=_ahead(window),
    )


def _first_use(question: UsageQuestion, zone: ZoneInfo) -> datetime:
    """The first day of the range with usage, by the times of the calls: the window itself knows
    when the first was reported. It is an hour ago at the latest.
    """
    days = usage(replace(question, interval="day", timezone=zone.key), limit=POINTS_MAX).rows
    first = min((day.start for day in days), default=question.ends_at)
    latest = question.ends_at - timedelta(hours=1)
    return max(question.starts_at, min(first, latest))


def _interval(length: timedelta) -> str:
    if length <= timedelta(days=1, hours=2):
        return "15min"
    return "hour" if length <= timedelta(days=15) else "day"


def _amount(part: str, measures: Measures) -> int:
    if part == "tokens":
        return measures.input_tokens + measures.output_tokens
    amount: int = getattr(measures, part)
    return amount


def _limits(
    window: WatchedWindow, tenant_id: int, starts_at: datetime, ends_at: datetime
) -> list[tuple[datetime, int]]:
    """The limit from a time on: limit increases make steps."""
    rows = LimitIncrease.objects.filter(
        tenant_id=tenant_id,
        budget_id=window.rule.id,
        status=LimitIncreaseStatus.APPROVED,
        group_key__in=["", window.state.group_key],
        starts_at__lt=ends_at,
        ends_at__gt=starts_at,
    )
    raises = [
        (row.starts_at, row.ends_at, int(getattr(row, f"add_{window.part}")))
        for row in rows.order_by("starts_at", "id")[:INCREASES_MAX]
        if row.starts_at is not None
    ]
    in_force = sum(getattr(increase, window.part) for increase in window.raises)
    plain = window.limit - in_force
    moments = {starts_at, *(max(first, starts_at) for first, _, _ in raises)}
    moments |= {last for _, last, _ in raises if last < ends_at}
    return [
        (at, plain + sum(amount for first, last, amount in raises if first <= at < last))
        for at in sorted(moments)
    ]


def _crossings(window: WatchedWindow, tenant_id: int) -> list[tuple[datetime, int, str]]:
    rows = Crossing.objects.filter(tenant_id=tenant_id, window_id=window.state.id)
    return [
        (
            row.crossed_at,
            int(row.spent_nanos)
            if window.part == "cost_nanos"
            else window.limit * row.percent // 100,
            f"{row.percent}%",
        )
        for row in rows.order_by("crossed_at")[:CROSSINGS_MAX]
    ]


def _ahead(window: WatchedWindow) -> tuple[datetime, int] | None:
    outlook, ends_at = window.outlook, window.state.ends_at
    if outlook.runs_out_at is not None:
        return outlook.runs_out_at, window.limit
    if outlook.end_percent is not None and ends_at is not None:
        return ends_at, int(Decimal(window.limit) * outlook.end_percent / 100)
    return None


def burn_rows(burn: Burn, window: WatchedWindow) -> list[tuple[datetime, int, str]]:
    """The numbers behind the chart, the newest first: time, amount, share of the limit."""
    return [
        (at, amount, percent_text(Decimal(amount) * 100 / window.limit) if window.limit else "")
        for at, amount in zip(reversed(burn.times), reversed(burn.used), strict=True)
    ]
