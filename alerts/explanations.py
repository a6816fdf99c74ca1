"""Describe what is wrong with a series. Pure: figures in, sentences out."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from alerts.series import (
    CACHE_HIT_SHARE,
    COST,
    COST_PER_REQUEST,
    ERROR_RATE,
    REQUESTS,
    TENANT,
    TOKENS,
    SeriesKey,
)
from common.formats import TIMES_MAX, format_share, format_time, format_times, quote
from common.money import money

# A value with less than this share does not explain the excess.
SHARE_MIN: Final = 0.5
# The most telling dimension first, and how a sentence leads to its value.
_EXPLAINING: Final[Mapping[str, str]] = {
    "agent": "by",
    "model": "by",
    "feature": "in",
    "customer": "for",
    "team": "in",
}
EXPLAINING_MAX: Final = 3
# With the series as a noun before it: "Agent 'research' costs ...".
_OF_A_SERIES: Final[Mapping[str, str]] = {
    COST: "{subject} costs {times} the usual",
    TOKENS: "{subject} uses {times} the usual tokens",
    REQUESTS: "{subject} makes {times} the usual requests",
    COST_PER_REQUEST: "A request of {lower} costs {times} the usual",
    ERROR_RATE: "{actual} of the calls of {lower} fail, usually {expected}",
    CACHE_HIT_SHARE: "{subject} reads {actual} of its input from the cache, usually {expected}",
}
_OF_THE_TENANT: Final[Mapping[str, str]] = {
    COST: "Spend is {times} the usual",
    TOKENS: "Tokens are {times} the usual",
    REQUESTS: "Requests are {times} the usual",
    COST_PER_REQUEST: "A request costs {times} the usual",
    ERROR_RATE: "{actual} of all calls fail, usually {expected}",
    CACHE_HIT_SHARE: "{actual} of all input is read from the cache, usually {expected}",
}


class Narrative(NamedTuple):
    """What an incident reports. Money is nano-dollars; `actual` and `expected` are in the measure's
    unit.
    """

    key: SeriesKey
    measure: str
    is_fall: bool
    actual: float
    expected: float
    began_at: datetime
    # Since it began; what came on top of the expected, and that in an hour.
    cost_nanos: int
    excess_nanos: int
    excess_nanos_per_hour: int
    # Values of other dimensions, and the share of the cost that is theirs.
    shares: Sequence[tuple[SeriesKey, float]] = ()

    @property
    def is_share(self) -> bool:
        """Whether the measure is a share, from 0 to 1."""
        return self.measure in (ERROR_RATE, CACHE_HIT_SHARE)


def subject_of(key: SeriesKey) -> str:
    """Name a series at the beginning of a sentence."""
    if key == TENANT:
        return "This tenant"
    if not key.value:
        article = "an" if key.dimension == "agent" else "a"
        return f"Usage without {article} {key.dimension}"
    return f"{key.dimension.capitalize()} {quote(key.value)}"


def noun_of(key: SeriesKey) -> str:
    """Name a series within a sentence."""
    subject = subject_of(key)
    return subject[0].lower() + subject[1:]


def title(narrative: Narrative) -> str:
    """Say in one line what is wrong with what."""
    key, subject = narrative.key, subject_of(narrative.key)
    if narrative.is_fall:
        return "All requests have stopped" if key == TENANT else f"{subject} has stopped"
    is_new = narrative.expected <= 0 or narrative.actual >= TIMES_MAX * narrative.expected
    if is_new and not narrative.is_share:
        if narrative.excess_nanos <= 0:
            usage = f"Usage of {noun_of(key)}" if key.value or key == TENANT else subject
            return f"{usage} is unlike anything seen before"
        hourly = money(narrative.excess_nanos_per_hour)
        return f"{subject} costs {hourly} an hour, unlike anything seen before"
    sentences = _OF_THE_TENANT if key == TENANT else _OF_A_SERIES
    return sentences[narrative.measure].format(
        subject=subject,
        lower=noun_of(key),
        times=format_times(narrative.actual, narrative.expected),
        actual=format_share(narrative.actual),
        expected=format_share(narrative.expected),
    )


def summary(narrative: Narrative) -> str:
    """Say since when, how much of the cost is too much, and where it comes from."""
    since = f"Since {format_time(narrative.began_at)}"
    if narrative.is_fall:
        usual = f"{narrative.expected:,.0f} in 15 minutes are usual"
        return f"{since} there were no requests; {usual}."
    if narrative.excess_nanos > 0:
        expected_nanos = max(0, narrative.cost_nanos - narrative.excess_nanos)
        figures = (
            f"{since} it has cost {money(narrative.cost_nanos)} instead of the expected"
            f" {money(expected_nanos)}: {money(narrative.excess_nanos)} too much so far,"
            f" {money(narrative.excess_nanos_per_hour)} an hour."
        )
    else:
        figures = f"{since} {_describe_measure(narrative)}"
    return f"{figures} {describe_shares(narrative.shares)}".rstrip()


def describe_shares(shares: Sequence[tuple[SeriesKey, float]]) -> str:
    """Say where most of it comes from; nothing if it comes from everywhere."""
    order = list(_EXPLAINING)
    telling = [(key, share) for key, share in shares if key.value and share >= SHARE_MIN]
    telling.sort(key=lambda pair: order.index(pair[0].dimension))
    parts = [
        f"{format_share(share)} {_EXPLAINING[key.dimension]} {key.dimension} {quote(key.value)}"
        for key, share in telling[:EXPLAINING_MAX]
    ]
    return f"Of this {', '.join(parts)}." if parts else ""


def describe_end(began_at: datetime, ended_at: datetime, excess_nanos: int) -> str:
    """Say how long it lasted, and what it cost."""
    minutes = max(1, round((ended_at - began_at).total_seconds() / 60))
    lasted = f"{minutes} minutes" if minutes < 120 else f"{round(minutes / 60)} hours"
    cost = f"; {money(excess_nanos)} was spent beyond the expected" if excess_nanos > 0 else ""
    return f"Back to the usual after {lasted}{cost}."


def _describe_measure(narrative: Narrative) -> str:
    actual, expected = narrative.actual, narrative.expected
    if narrative.is_share:
        return f"it is {format_share(actual)}; {format_share(expected)} is usual."
    if narrative.measure == COST_PER_REQUEST:
        return f"a request costs {money(round(actual))}; {money(round(expected))} is usual."
    return f"it used {actual:,.0f} {narrative.measure} in 15 minutes; {expected:,.0f} is usual."
