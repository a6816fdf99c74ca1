"""Plain rules beside the detector: what a tenant may set, and when a rule is met. Pure.

Money is whole nano-dollars and compared exactly. Each rule has a floor below which it is not worth
reporting, whatever the ratio: a cent instead of a tenth of a cent is ten times as much too.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import median_high
from typing import Final, NamedTuple, TypedDict

from common.money import NANOS_PER_USD

# What a tenant may set.
COOL_DOWN_SECONDS_MAX: Final = 86_400
THRESHOLD_MAX: Final = 1_000_000

INFO: Final = "info"
WARNING: Final = "warning"

COSTLY_REQUEST: Final = "costly_request"
COSTLY_QUARTER: Final = "costly_quarter"
HOURLY_SPEND: Final = "hourly_spend"
USER_DAY_BUDGET: Final = "user_day_budget"
FEATURE_WEEK: Final = "feature_week"
MONTH_PROJECTION: Final = "month_projection"

# A single request below this is not worth reporting.
REQUEST_NANOS_MIN: Final = NANOS_PER_USD // 10
# An average of fewer calls says nothing about the next one.
CALLS_MIN: Final = 20
# The requests of a quarter of an hour must be more than this.
QUARTER_REQUESTS: Final = 10
QUARTER_NANOS_MIN: Final = NANOS_PER_USD // 10
HOUR_NANOS_MIN: Final = NANOS_PER_USD
# Less than this of a tenant's first day says nothing about its next hour.
BASELINE_HOURS_MIN: Final = 6
DAY_HOURS: Final = 24
WEEK_HOURS: Final = 7 * DAY_HOURS
# An hour is compared with that of this many weeks, or of this many days before the first week.
USUAL_WEEKS: Final = 4
USUAL_DAYS: Final = 7
# An hour is no news if this many of the latest days had one like it.
ALIKE_DAYS: Final = 2
# By how much a feature's week must have grown, besides the share.
WEEK_GROWTH_NANOS_MIN: Final = 5 * NANOS_PER_USD
# A projection from less than this many days would be a guess.
PROJECTED_DAYS_MIN: Final = 3.0


class RuleSpec(NamedTuple):
    """A rule by default.

    Rules about a jump are `info`: the detector finds the same with less noise and calls people.
    """

    description: str
    # What the threshold counts: "times" or "percent".
    unit: str
    threshold: float
    severity: str
    is_on: bool = True


RULES: Final[Mapping[str, RuleSpec]] = {
    COSTLY_REQUEST: RuleSpec(
        "One request costs this many times what such requests (of its agent, feature and model)"
        " cost on average",
        "times",
        10,
        INFO,
    ),
    COSTLY_QUARTER: RuleSpec(
        "The requests of an agent within 15 minutes, more than 10, cost this many times as much"
        " each as they did on average over 24 hours",
        "times",
        3,
        INFO,
    ),
    HOURLY_SPEND: RuleSpec(
        "An hour's spend is this many times the usual for its hour of the week (the median of the 4"
        " weeks before), and further above it than any hour on 6 of the last 7 days",
        "times",
        2,
        INFO,
    ),
    USER_DAY_BUDGET: RuleSpec(
        "A user has used this much of a daily budget", "percent", 90, WARNING
    ),
    FEATURE_WEEK: RuleSpec(
        "A feature cost this much more in 7 days than in the 7 days before", "percent", 50, INFO
    ),
    MONTH_PROJECTION: RuleSpec(
        "A month's spend will reach this much of its budget at the present pace",
        "percent",
        100,
        WARNING,
    ),
}


class RuleValues(TypedDict):
    """What a rule is judged by."""

    threshold: float
    severity: str
    on: bool


class RuleChange(TypedDict, total=False):
    """The parts of a rule that are not as by default, or that change."""

    threshold: float
    severity: str
    on: bool


RuleChanges = Mapping[str, RuleChange | None]


class RuleOverride(NamedTuple):
    """What an active rule is judged by: its defaults, unless the tenant's settings override
    them. The threshold is exact, as its decimal was written.
    """

    threshold: Fraction
    severity: str


class Spend(NamedTuple):
    """What a number of requests cost together."""

    cost_nanos: int
    requests: int


def default_rule(name: str) -> RuleValues:
    """Return what a rule is judged by unless the tenant overrides it."""
    rule = RULES[name]
    return {"threshold": rule.threshold, "severity": rule.severity, "on": rule.is_on}


def rule_values(name: str, stored: Mapping[str, RuleChange]) -> RuleValues:
    """Return what a rule is judged by; `stored` says how it differs from its default."""
    return {**default_rule(name), **stored.get(name, {})}


def differing_rules(
    stored: Mapping[str, RuleChange], changes: RuleChanges
) -> dict[str, dict[str, object]]:
    """Return the rules as they differ from their defaults after the changes."""
    differing = {}
    for name in RULES:
        change = changes.get(name, {})
        wanted = {} if change is None else {**stored.get(name, {}), **change}
        kept = wanted.items() - default_rule(name).items()
        if kept:
            differing[name] = dict(sorted(kept))
    return differing


def active_rules(stored: Mapping[str, RuleChange]) -> dict[str, RuleOverride]:
    """Return the rules that are on, by name; `stored` says how they differ from their defaults."""
    return {
        name: RuleOverride(Fraction(str(values["threshold"])), values["severity"])
        for name in RULES
        if (values := rule_values(name, stored))["on"]
    }


def is_costly_request(*, cost_nanos: int, usual: Spend, times: Fraction) -> bool:
    """Whether a request costs more than `times` the average of enough others like it."""
    return (
        usual.requests >= CALLS_MIN
        and cost_nanos >= REQUEST_NANOS_MIN
        and cost_nanos * usual.requests > times * usual.cost_nanos
    )


def is_costly_quarter(*, quarter: Spend, day: Spend, times: Fraction) -> bool:
    """Whether the requests of a quarter cost more than `times` as much each as those of a day."""
    return (
        quarter.requests > QUARTER_REQUESTS
        and day.requests > QUARTER_REQUESTS
        and quarter.cost_nanos >= QUARTER_NANOS_MIN
        and quarter.cost_nanos * day.requests > times * day.cost_nanos * quarter.requests
    )


def usual_hour_nanos(hours: Sequence[int], index: int | None = None) -> int | None:
    """Return what an hour usually costs: the one after `hours`, or the one at an index of them.

    `hours` are what the hours before it cost, the latest last, since usage began. The usual is the
    median of the same hour of the last weeks; in the first week the most that this hour of the day
    cost, or the average of a day; in the first day the most that any hour cost. What the hours next
    to it cost then is usual too: a nightly job is not punctual. None while too little is known.
    """
    index = len(hours) if index is None else index
    if index < BASELINE_HOURS_MIN:
        return None
    if weeks := _same_hours(hours, index, WEEK_HOURS, USUAL_WEEKS):
        return median_high(weeks)
    latest = hours[max(0, index - DAY_HOURS) : index]
    if days := _same_hours(hours, index, DAY_HOURS, USUAL_DAYS):
        return max(*days, sum(latest) // len(latest))
    return max(latest)


def _same_hours(hours: Sequence[int], index: int, apart: int, count: int) -> list[int]:
    """Return what the same hour cost this many times before, or the dearer of those next to it."""
    indexes = range(index - apart, max(-1, index - apart * count - 1), -apart)
    return [max(hours[max(0, earlier - 1) : earlier + 2]) for earlier in indexes]


def is_high_hour(*, hour_nanos: int, hours: Sequence[int], times: Fraction) -> bool:
    """Whether an hour cost more than `times` what is usual after these hours, and is further above
    it than the hours of nearly all of the latest days: some tenants burst every day.
    """
    usual_nanos = usual_hour_nanos(hours)
    if usual_nanos is None or hour_nanos < HOUR_NANOS_MIN or hour_nanos <= times * usual_nanos:
        return False
    alike = {
        (len(hours) - index - 1) // DAY_HOURS
        for index in range(max(0, len(hours) - USUAL_DAYS * DAY_HOURS), len(hours))
        if hours[index] >= HOUR_NANOS_MIN
        and (before := usual_hour_nanos(hours, index)) is not None
        and hours[index] > before
        and hours[index] * usual_nanos >= hour_nanos * before
    }
    return len(alike) < ALIKE_DAYS


def is_grown_week(*, week_nanos: int, before_nanos: int, percent: Fraction) -> bool:
    """Whether a week cost more than `percent` percent more than one in which there was usage."""
    return (
        before_nanos > 0
        and week_nanos - before_nanos >= WEEK_GROWTH_NANOS_MIN
        and (week_nanos - before_nanos) * 100 > percent * before_nanos
    )


def projected_nanos(
    *,
    spent_nanos: int,
    passed_days: Sequence[float],
    all_days: Sequence[float],
    profile: Sequence[int],
) -> int | None:
    """Return what a month will have cost at its end, if the rest goes like what has passed.

    `passed_days` and `all_days` count the month's days by weekday, from Monday; `profile` is what
    each weekday usually costs, so that a month that begins with a weekend is not underrated. None
    if too little has passed.
    """
    if sum(passed_days) < PROJECTED_DAYS_MIN:
        return None
    weights = profile if min(profile) > 0 else (1,) * 7
    passed = sum(days * weight for days, weight in zip(passed_days, weights, strict=True))
    total = sum(days * weight for days, weight in zip(all_days, weights, strict=True))
    return round(spent_nanos * (total / passed))
