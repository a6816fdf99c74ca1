"""Find which unusual series have one cause, and which series that is. Pure.

A runaway agent shows in the sums of its team, feature, customer and model and of the whole tenant,
in cost, tokens and requests together. One incident is about the series that is most unusual in
proportion to itself and makes up half of what the others have too much; the rest is its shadow.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alerts.series import REQUESTS, TENANT, TOKENS, SeriesKey
from alerts.severity import Activity, Finding
from metering.reporting.series import COMBINED_DIMENSIONS, Combination

# What is too much of a series is explained by causes that make up this share of it.
EXPLAINED_SHARE: Final = 0.5
# Of series that are about as unusual the most specific one is the cause.
SPECIFIC_FIRST: Final = ("agent", "feature", "customer", "model", "team", "")
ALIKE_MARGIN: Final = 0.2
ALIKE_FACTOR: Final = 2.0
# Of which less than this was to be expected is as unusual as can be.
EXPECTED_MIN: Final = 0.05
# This many series without a finding, those with most too much, are considered as causes.
CANDIDATES_MAX: Final = 50


class Cause(NamedTuple):
    """A series that explains findings, its own among them if it has some."""

    key: SeriesKey
    findings: tuple[Finding, ...]


class Overlaps:
    """How much of one series is another's too, by the combinations of values that were used."""

    def __init__(self, used: Sequence[Combination]) -> None:
        self._values = [
            np.array([row.values[column] for row in used], dtype=object)
            for column in range(len(COMBINED_DIMENSIONS))
        ]
        # Exact whatever their sum: Python's own numbers.
        self._cost_nanos = np.array([row.cost_nanos for row in used], dtype=object)
        self._requests = np.array([row.requests for row in used], np.int64)
        self._known: dict[SeriesKey, NDArray[np.bool_]] = {}

    def cost_nanos(self, series: SeriesKey, other: SeriesKey) -> int:
        """What cost counts in both."""
        return int(self._cost_nanos[self._rows(series) & self._rows(other)].sum())

    def requests(self, series: SeriesKey, other: SeriesKey) -> int:
        """The requests that count in both."""
        return int(self._requests[self._rows(series) & self._rows(other)].sum())

    def shares(self, key: SeriesKey) -> list[tuple[SeriesKey, float]]:
        """For each other dimension the value that most of the series' cost is of, and its share."""
        total = self.cost_nanos(key, TENANT)
        if total <= 0:
            return []
        shares = []
        for column, dimension in enumerate(COMBINED_DIMENSIONS):
            if dimension != key.dimension:
                values = set(self._values[column][self._rows(key)])
                costs = {
                    value: self.cost_nanos(key, SeriesKey(dimension, value)) for value in values
                }
                most = max(costs, key=lambda value: (costs[value], value))
                shares.append((SeriesKey(dimension, most), costs[most] / total))
        return shares

    def _rows(self, key: SeriesKey) -> NDArray[np.bool_]:
        if key not in self._known:
            if key == TENANT:
                rows = np.ones(len(self._cost_nanos), bool)
            else:
                rows = self._values[COMBINED_DIMENSIONS.index(key.dimension)] == key.value
            self._known[key] = np.asarray(rows, bool)
        return self._known[key]


def find_causes(
    *,
    findings: Sequence[Finding],
    activities: Mapping[SeriesKey, Activity],
    overlaps: Overlaps,
    standing: Sequence[SeriesKey] = (),
) -> list[Cause]:
    """Give each finding to one cause. `standing` are the causes of open incidents: what they
    explain is theirs. A cause of `standing` without new findings is not returned.
    """
    activities = {**activities, **{finding.key: finding.activity for finding in findings}}
    explained: dict[SeriesKey, list[Finding]] = {}
    costly = [finding for finding in findings if finding.is_costly]
    by_cost = _Shares(
        joint=overlaps.cost_nanos,
        total=lambda activity: activity.cost_nanos,
        unusual=lambda finding: finding.activity.excess_nanos,
        # A detector gets used to what lasts: of a known cause all counts as too much.
        excess={
            key: activity.cost_nanos if key in standing else activity.excess_nanos
            for key, activity in activities.items()
        },
    )
    suspects = {key: activities[key] for key in _candidates(costly, activities)}
    roots = _assign(costly, suspects, standing, by_cost, explained)
    others = [finding for finding in findings if not (finding.is_costly or finding.is_fall)]
    by_requests = _Shares(
        joint=overlaps.requests,
        total=lambda activity: activity.requests,
        unusual=lambda finding: max(1.0, unusual_requests(finding)),
        # Of the cause of something else all requests may be concerned.
        excess={key: activity.requests for key, activity in activities.items()}
        | {finding.key: unusual_requests(finding) for finding in others},
    )
    _assign(others, {}, [*standing, *roots], by_requests, explained)
    causes = [Cause(key, tuple(own)) for key, own in explained.items()]
    falls = [finding for finding in findings if finding.is_fall]
    if falls:
        # Nothing tells what silence overlaps with: it is one cause.
        key = min((finding.key for finding in falls), key=_specificity_of_fall)
        causes.append(Cause(key, tuple(falls)))
    return causes


def are_apart(series: SeriesKey, other: SeriesKey) -> bool:
    """Whether no call can be of both: they are two values of one dimension."""
    return series.dimension == other.dimension and series != other


class _Shares(NamedTuple):
    """How far one series explains what is too much of another: by money, or by requests."""

    # What counts in both of two series, and in one as a whole.
    joint: Callable[[SeriesKey, SeriesKey], int]
    total: Callable[[Activity], float]
    # What is too much: of a finding, and of each series that may explain findings.
    unusual: Callable[[Finding], float]
    excess: Mapping[SeriesKey, float]

    def of(self, cause: SeriesKey, finding: Finding) -> float:
        """Return the share of a finding that a series explains, from 0 on; 1: all of it."""
        if cause == finding.key:
            return 1.0
        excess = self.excess.get(cause, 0.0)
        if are_apart(cause, finding.key) or excess <= 0:
            return 0.0
        joint = float(self.joint(cause, finding.key))
        if self.joint(finding.key, TENANT) < EXPLAINED_SHARE * self.total(finding.activity):
            # Which events these were is not known: what is too much alike is taken for the same.
            joint = excess
        return min(excess, joint) / self.unusual(finding)

    def suspect(self, key: SeriesKey, activity: Activity) -> "_Suspect":
        """Return the series as one that may be the cause."""
        excess = self.excess[key]
        return _Suspect(key, excess / max(1.0, self.total(activity)), excess)


def unusual_requests(finding: Finding) -> float:
    """Return about how many of a series' requests are not as expected."""
    share = abs(finding.actual - finding.expected)
    if finding.measure in (TOKENS, REQUESTS):
        share /= max(1.0, finding.actual)
    return share * finding.activity.requests


class _Suspect(NamedTuple):
    """A series that may be a cause: which share of itself is too much, and how much that is."""

    key: SeriesKey
    share: float
    excess: float

    def is_like(self, other: "_Suspect") -> bool:
        """Whether it is about as unusual as another, more unusual one: chance may have made the
        difference.
        """
        expected, least = 1.0 - self.share, max(1.0 - other.share, EXPECTED_MIN)
        return self.share >= other.share - ALIKE_MARGIN and expected <= ALIKE_FACTOR * least

    @property
    def rank(self) -> tuple[int, float, str]:
        """Among those alike the likeliest first: the most specific, then the largest."""
        return (_specificity(self.key), -self.excess, self.key.value)


def _likeliest(suspects: Iterable[_Suspect]) -> Iterator[SeriesKey]:
    """The most unusual series first; of those that are about as unusual as the most unusual one
    that is left, the most specific.
    """
    left = list(suspects)
    while left:
        most = max(left, key=lambda suspect: suspect.share)
        first = min(
            (suspect for suspect in left if suspect.is_like(most)), key=lambda suspect: suspect.rank
        )
        left.remove(first)
        yield first.key


def _candidates(
    findings: Sequence[Finding], activities: Mapping[SeriesKey, Activity]
) -> list[SeriesKey]:
    """Series that may be the cause without a finding of their own: new ones, of which nothing can
    be unusual yet, with a good part of what is too much.
    """
    if not findings:
        return []
    least_nanos = EXPLAINED_SHARE * min(finding.activity.excess_nanos for finding in findings)
    keys = [
        key
        for key, activity in activities.items()
        if (key.value or key == TENANT) and activity.excess_nanos >= least_nanos
    ]
    keys.sort(key=lambda key: (-activities[key].excess_nanos, key))
    return keys[:CANDIDATES_MAX]


# A finding that no cause explains yet, and how much of it those so far do.
_Unexplained = tuple[Finding, dict[SeriesKey, float]]


def _assign(
    findings: Sequence[Finding],
    candidates: Mapping[SeriesKey, Activity],
    standing: Sequence[SeriesKey],
    shares: _Shares,
    explained: dict[SeriesKey, list[Finding]],
) -> list[SeriesKey]:
    """Give the findings to causes, the likeliest first; return the new causes."""
    left = _take_explained([(finding, {}) for finding in findings], standing, shares, explained)
    own = {finding.key: finding.activity for finding in findings}
    new: list[SeriesKey] = []
    suspects = [
        shares.suspect(key, activity)
        for key, activity in {**candidates, **own}.items()
        if key not in standing
    ]
    for key in _likeliest(suspects):
        if key in own and all(finding.key != key for finding, _ in left):
            continue
        if any(shares.of(key, finding) >= EXPLAINED_SHARE for finding, _ in left):
            new.append(key)
            left = _take_explained(left, [key], shares, explained)
    return new


def _take_explained(
    left: Sequence[_Unexplained],
    causes: Sequence[SeriesKey],
    shares: _Shares,
    explained: dict[SeriesKey, list[Finding]],
) -> list[_Unexplained]:
    """Hand over the findings that these causes, with those before, explain: each to the one with
    the largest share.
    """
    kept = []
    for finding, parts in left:
        parts.update((key, shares.of(key, finding)) for key in causes)
        if sum(parts.values()) < EXPLAINED_SHARE:
            kept.append((finding, parts))
        else:
            explained.setdefault(max(parts, key=lambda key: parts[key]), []).append(finding)
    return kept


def _specificity(key: SeriesKey) -> int:
    """Where a dimension stands from specific to general; having no value explains nothing."""
    if key.dimension and not key.value:
        return len(SPECIFIC_FIRST)
    return SPECIFIC_FIRST.index(key.dimension)


def _specificity_of_fall(key: SeriesKey) -> tuple[bool, int, str]:
    return (key != TENANT, _specificity(key), key.value)
