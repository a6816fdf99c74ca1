"""How the measure that an incident is about went before, during and after it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from django.utils.dateparse import parse_datetime

from alerts.models import Anomaly, Incident, IncidentKind
from dashboard.amounts import count, exact_money, money, percent_text
from dashboard.spend import POINTS_MAX
from metering.core.dimensions import MATCHABLE
from metering.core.match import wanted_values
from metering.reporting.question import VALUES_MAX, UsageQuestion
from metering.reporting.usage import Measures, usage

# What was not seen in a series or a budget's period (a loop, a breaker) came of the time before.
LOOK_BACK: Final = timedelta(days=1)
# A budget's period may have begun long ago.
PERIOD_MAX: Final = timedelta(days=92)
# Of a session or a whole lifetime, the latest is looked at.
ENDLESS_LOOK_BACK: Final = timedelta(days=7)
AFTERWARDS: Final = timedelta(hours=2)
WEEK: Final = timedelta(weeks=1)
DEFAULT_MEASURE: Final = "cost"

# A number as measured: nano-dollars, tokens, requests, or a share from 0 to 1.
Amount = int | float


class Measure(NamedTuple):
    """Something that is watched: its name for people, and how it comes from what was counted."""

    words: str
    unit: str
    of: Callable[[Measures], Amount | None]

    @property
    def is_sum(self) -> bool:
        """Whether two buckets add up; a ratio of two does not."""
        return self.unit in {"money", "count"} and self.words != "Cost per request"

    def text(self, amount: Amount | None) -> str:
        """An amount in its unit; what is missing is said."""
        if amount is None:
            return "no requests"
        if self.unit == "money":
            return money(round(amount))
        if self.unit == "count":
            return count(round(amount))
        return percent_text(Decimal(amount) * 100)

    def exact(self, amount: Amount | None) -> str:
        """The same with nothing rounded that is stored whole."""
        if amount is not None and self.unit == "money":
            return exact_money(round(amount))
        return f"{amount:,}" if isinstance(amount, int) else self.text(amount)


def _per(part: str, whole: str) -> Callable[[Measures], Amount | None]:
    def ratio(measures: Measures) -> Amount | None:
        base = getattr(measures, whole)
        return getattr(measures, part) / base if base else None

    return ratio


# By the names that anomalies have.
MEASURES: Final[Mapping[str, Measure]] = {
    "cost": Measure("Cost", "money", lambda measures: measures.cost_nanos),
    "tokens": Measure(
        "Tokens", "count", lambda measures: measures.input_tokens + measures.output_tokens
    ),
    "requests": Measure("Requests", "count", lambda measures: measures.requests),
    "cost_per_request": Measure("Cost per request", "money", _per("cost_nanos", "requests")),
    "error_rate": Measure("Share of errors", "share", _per("errors", "requests")),
    "cache_hit_share": Measure(
        "Share read from cache", "share", _per("cache_read_tokens", "input_tokens")
    ),
}


class Stretch(NamedTuple):
    """A stretch of time."""

    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True)
class Course:
    """A measure by time. `before` has the same hours of the week before, where there was usage.

    `cause` is when it was unusual; `expected` is what was expected at the most unusual moment of
    it, as far as that compares with a bucket.
    """

    measure: Measure
    interval: str
    starts: list[datetime]
    actual: list[Amount | None]
    before: list[Amount | None] | None
    cause: Stretch
    expected: Amount | None


def cause_of(incident: Incident, anomalies: Sequence[Anomaly], now: datetime) -> Stretch:
    """When what people look at happened: the anomalies, the budget's period up to where it was
    seen, or the day before.
    """
    ends_at = incident.resolved_at or now
    if anomalies:
        return Stretch(min(anomaly.began_at for anomaly in anomalies), ends_at)
    period_start = parse_datetime(str(incident.facts.get("window_start", "")))
    if incident.kind == IncidentKind.CROSSING and period_start is not None:
        longest = PERIOD_MAX if incident.facts.get("window_end") else ENDLESS_LOOK_BACK
        return Stretch(max(period_start, incident.opened_at - longest), ends_at)
    return Stretch(incident.opened_at - LOOK_BACK, ends_at)


def filters_of(match: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """A match as questions about usage take it."""
    return {
        name: tuple(sorted(wanted_values(value)))[:VALUES_MAX]
        for name, value in match.items()
        if name in MATCHABLE
    }


def read_course(
    incident: Incident, anomalies: Sequence[Anomaly], *, zone: ZoneInfo, now: datetime
) -> Course:
    """The course of the measure that the incident speaks of; of cost where there is none."""
    spoken = tuple(incident.facts.get(name) for name in ("dimension", "value", "measure"))
    told = (
        anomaly
        for anomaly in anomalies
        if (anomaly.dimension, anomaly.value, anomaly.measure) == spoken
    )
    first = next(told, anomalies[0] if anomalies else None)
    name = first.measure if first else DEFAULT_MEASURE
    measure = MEASURES.get(name, MEASURES[DEFAULT_MEASURE])
    cause = cause_of(incident, anomalies, now)
    interval, around = _around(cause, now)
    question = UsageQuestion(
        tenant_id=incident.tenant_id,
        starts_at=around.starts_at,
        ends_at=around.ends_at,
        interval=interval,
        timezone=str(zone),
        filters=filters_of(incident.match),
    )
    starts = _starts(question)
    before = _read(_a_week_before(question), measure, [start - WEEK for start in starts])
    return Course(
        measure=measure,
        interval=interval,
        starts=starts,
        actual=_read(question, measure, starts),
        before=before if any(before) else None,
        cause=cause,
        expected=_expected(first, measure, interval),
    )


def _around(cause: Stretch, now: datetime) -> tuple[str, Stretch]:
    """How wide a bucket is, and from when to when the chart goes."""
    length = cause.ends_at - cause.starts_at
    ends_at = min(now, cause.ends_at + AFTERWARDS)
    if length <= timedelta(hours=26):
        return "15min", Stretch(cause.starts_at - timedelta(hours=12), ends_at)
    if length <= timedelta(days=10):
        return "hour", Stretch(cause.starts_at - timedelta(days=2), ends_at)
    return "day", Stretch(cause.starts_at - timedelta(days=14), ends_at)


def _a_week_before(question: UsageQuestion) -> UsageQuestion:
    return replace(question, starts_at=question.starts_at - WEEK, ends_at=question.ends_at - WEEK)


def _starts(question: UsageQuestion) -> list[datetime]:
    return [bucket.start for bucket in question.buckets()]


def _read(
    question: UsageQuestion, measure: Measure, starts: Sequence[datetime]
) -> list[Amount | None]:
    measures = {row.start: row.measures for row in usage(question, limit=POINTS_MAX).rows}
    return [measure.of(measures.get(start, Measures())) for start in starts]


def _expected(first: Anomaly | None, measure: Measure, interval: str) -> Amount | None:
    """What a bucket was expected to be. Anomalies know it of a quarter of an hour."""
    if first is None:
        return None
    return first.expected if interval == "15min" or not measure.is_sum else None
