"""What a finding is, whether it is worth reporting, and how severe it is. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from alerts.series import (
    CACHE_HIT_SHARE,
    COST,
    COST_PER_REQUEST,
    ERROR_RATE,
    REQUESTS,
    TOKENS,
    SeriesKey,
)
from common.money import NANOS_PER_USD

# Less than this an hour, or this share of what the tenant spends, is not worth reporting however
# unusual it is: a person's minute costs more.
FLOOR_NANOS_PER_HOUR: Final = NANOS_PER_USD // 10
FLOOR_SHARE: Final = 0.01
# What costs nothing is reported from these on: requests, or failed ones, and tokens in a quarter.
FLOOR_REQUESTS: Final = 10
FLOOR_TOKENS: Final = 100_000
# From these on someone should be called at night.
CRITICAL_NANOS_PER_HOUR: Final = 10 * NANOS_PER_USD
CRITICAL_SHARE: Final = 0.5
# The most telling measure of a series comes first.
TELLING_FIRST: Final = (COST, COST_PER_REQUEST, TOKENS, REQUESTS, ERROR_RATE, CACHE_HIT_SHARE)
SECONDS_PER_HOUR: Final = 3600


class Activity(NamedTuple):
    """What a series did in the quarters that are judged, and what was expected of it.

    A running quarter is expected in full: what it has not reached yet is no lack.
    """

    cost_nanos: float
    expected_nanos: float
    requests: float
    seconds: int

    @property
    def excess_nanos(self) -> float:
        """What it cost beyond the expected."""
        return max(0.0, self.cost_nanos - self.expected_nanos)

    @property
    def excess_nanos_per_hour(self) -> float:
        """The same in an hour."""
        return self.excess_nanos * SECONDS_PER_HOUR / max(1, self.seconds)


# Dimension, value, measure, and whether it is above the expected.
Identity = tuple[str, str, str, bool]


class Finding(NamedTuple):
    """One measure of one series that is not as expected. Numbers are in the measure's unit."""

    key: SeriesKey
    measure: str
    is_above: bool
    score: float
    actual: float
    expected: float
    began_at: datetime
    activity: Activity

    @property
    def identity(self) -> Identity:
        """What tells it, and the anomaly that it becomes, from others."""
        return *self.key, self.measure, self.is_above

    @property
    def is_costly(self) -> bool:
        """Whether it is about money: more of what costs, beyond what was expected to be spent."""
        is_of_money = self.measure not in (ERROR_RATE, CACHE_HIT_SHARE)
        return is_of_money and self.is_above and self.activity.excess_nanos > 0

    @property
    def is_fall(self) -> bool:
        """Whether usage has stopped."""
        return not self.is_above and self.measure == REQUESTS


def is_worth_reporting(finding: Finding, usual_nanos_per_hour: float) -> bool:
    """Whether a finding matters, given what the tenant usually spends in an hour."""
    activity = finding.activity
    if finding.is_fall:
        return finding.actual == 0 and finding.expected >= FLOOR_REQUESTS
    if finding.measure == ERROR_RATE:
        return (finding.actual - finding.expected) * activity.requests >= FLOOR_REQUESTS
    if activity.cost_nanos == 0 and finding.measure in (TOKENS, REQUESTS):
        floor = FLOOR_TOKENS if finding.measure == TOKENS else FLOOR_REQUESTS
        return finding.actual - finding.expected >= floor
    floor_nanos = max(FLOOR_NANOS_PER_HOUR, FLOOR_SHARE * usual_nanos_per_hour)
    if finding.measure == CACHE_HIT_SHARE:
        # What the loss costs is not known apart from what the series costs.
        return activity.cost_nanos * SECONDS_PER_HOUR >= floor_nanos * activity.seconds
    return activity.excess_nanos_per_hour >= floor_nanos


def severity_of(findings: Iterable[Finding], usual_nanos_per_hour: float) -> str:
    """Return how soon someone should look, by the money.

    Critical: 10 USD an hour or more beyond the expected, and at least half of what the tenant as a
    whole usually spends in an hour. Warning: any other money, and requests that fail. Info: usage
    that stopped, and what costs nothing.
    """
    reported = list(findings)
    hourly = (finding.activity.excess_nanos_per_hour for finding in reported if finding.is_costly)
    excess = max(hourly, default=0.0)
    if excess >= max(CRITICAL_NANOS_PER_HOUR, CRITICAL_SHARE * usual_nanos_per_hour):
        return "critical"
    if any(finding.measure in (ERROR_RATE, CACHE_HIT_SHARE) for finding in reported):
        return "warning"
    return "warning" if excess >= FLOOR_NANOS_PER_HOUR else "info"


def most_telling(
    findings: Sequence[Finding], key: SeriesKey, *, reported: str | None = None
) -> Finding:
    """Return the finding to report: of the cause's own series if it has some; of these the measure
    that was reported before (calls that fail also cost a little more), else cost before others.
    """
    own = [finding for finding in findings if finding.key == key] or list(findings)
    order = TELLING_FIRST.index

    def rank(finding: Finding) -> tuple[bool, int, float]:
        return finding.measure != reported, order(finding.measure), -finding.score

    return min(own, key=rank)
