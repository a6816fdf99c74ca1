"""What is wrong with a series, in words. Pure: figures in, sentences out."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
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
from common.money import money

# A value as long as this fills a title, and says no more than its beginning.
VALUE_CHARACTERS_MAX: Final = 80
# More than this many times nothing much is no figure that tells anything.
TIMES_MAX: Final = 1_000
# Whose part is less than this does not explain.
SHARE_MIN: Final = 0.5
# What is said of where the excess comes from, the most telling dimension first.
EXPLAINING_FIRST: Final = ("agent", "model", "feature", "customer", "team")
EXPLAINING_MAX: Final = 3
_BY: Final[Mapping[str, str]] = {
    "agent": "by",
    "model": "by",
    "feature": "in",
    "customer": "for",
    "team": "in",
}
_ARTICLES: Final[Mapping[str, str]] = {"agent": "an agent"}
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


class Story(NamedTuple):
    """What an incident has to say. Money is nano-dollars; `actual` and `expected` are in the
    measure's unit.
    """

    key: SeriesKey
    measure: str
    is_fall: bool
    actual: float
    expected: float
    began_at: datetime
    # Since it began; what was to be expected, and what came on top of it in an hour.
    cost_nanos: int
    excess_nanos: int
    excess_nanos_per_hour: int
    # Values of other dimensions, and which share of the cost is of them.
    shares: Sequence[tuple[SeriesKey, float]] = ()


def subject_of(key: SeriesKey) -> str:
    """The series as a sentence begins with it."""
    if key == TENANT:
        return "This tenant"
    if not key.value:
        return f"Usage without {_ARTICLES.get(key.dimension, f'a {key.dimension}')}"
    return f"{key.dimension.capitalize()} {quoted(key.value)}"


def noun_of(key: SeriesKey) -> str:
    """The series within a sentence."""
    subject = subject_of(key)
    return subject[0].lower() + subject[1:]


def quoted(value: str) -> str:
    """A value as sentences name it."""
    shown = value if len(value) <= VALUE_CHARACTERS_MAX else f"{value[:VALUE_CHARACTERS_MAX]}…"
    return f"'{shown}'"


def title(story: Story) -> str:
    """One line that says what is wrong with what."""
    subject = subject_of(story.key)
    if story.is_fall:
        return "All requests have stopped" if story.key == TENANT else f"{subject} has stopped"
    if story.measure not in (ERROR_RATE, CACHE_HIT_SHARE) and _is_new(story):
        if story.excess_nanos <= 0:
            return f"{subject} is used as never before"
        return f"{subject} costs {money(story.excess_nanos_per_hour)} an hour as never before"
    sentences = _OF_THE_TENANT if story.key == TENANT else _OF_A_SERIES
    return sentences[story.measure].format(
        subject=subject,
        lower=noun_of(story.key),
        times=times_text(story.actual, story.expected),
        actual=share_text(story.actual),
        expected=share_text(story.expected),
    )


def summary(story: Story) -> str:
    """Since when, what it cost and what that is too much, and where it comes from."""
    since = f"Since {story.began_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if story.is_fall:
        return (
            f"{since} there were no requests, where {story.expected:,.0f} in 15 minutes are usual."
        )
    if story.excess_nanos <= 0:
        return " ".join(filter(None, [f"{since}.", _figures(story), shares_text(story.shares)]))
    expected_nanos = max(0, story.cost_nanos - story.excess_nanos)
    spent = (
        f"{since} it cost {money(story.cost_nanos)}, where {money(expected_nanos)} was to be"
        f" expected: {money(story.excess_nanos)} beyond it so far,"
        f" {money(story.excess_nanos_per_hour)} an hour."
    )
    return " ".join(filter(None, [spent, shares_text(story.shares)]))


def shares_text(shares: Sequence[tuple[SeriesKey, float]]) -> str:
    """Where most of it comes from, or nothing where it comes from everywhere."""
    telling = [(key, share) for key, share in shares if key.value and share >= SHARE_MIN]
    telling.sort(key=lambda one: EXPLAINING_FIRST.index(one[0].dimension))
    if not telling:
        return ""
    parts = [
        f"{share_text(share)} {_BY[key.dimension]} {key.dimension} {quoted(key.value)}"
        for key, share in telling[:EXPLAINING_MAX]
    ]
    return f"Of this {', '.join(parts)}."


def over_text(began_at: datetime, ended_at: datetime, excess_nanos: int) -> str:
    """What is said when it is over."""
    minutes = max(1, round((ended_at - began_at).total_seconds() / 60))
    lasted = f"{minutes} minutes" if minutes < 120 else f"{round(minutes / 60)} hours"
    if excess_nanos <= 0:
        return f"Back to the usual after {lasted}."
    return f"Back to the usual after {lasted}; {money(excess_nanos)} was spent beyond the expected."


def times_text(actual: float, expected: float) -> str:
    """How many times as much: 1.5 times, 12 times, 1,000 times and more."""
    if expected <= 0 or actual >= TIMES_MAX * expected:
        return f"more than {TIMES_MAX:,} times"
    times = actual / expected
    text = f"{times:,.0f}" if times >= 9.95 else f"{times:.1f}".removesuffix(".0")
    return f"{text} times"


def share_text(share: float) -> str:
    """A share in percent: 81 %, 0.4 %."""
    percent = 100 * min(1.0, max(0.0, share))
    text = f"{percent:.0f}" if percent >= 9.95 or percent == 0 else f"{percent:.1f}"
    return f"{text.removesuffix('.0')} %"


def _is_new(story: Story) -> bool:
    return story.expected <= 0 or story.actual >= TIMES_MAX * story.expected


def _figures(story: Story) -> str:
    if story.measure in (ERROR_RATE, CACHE_HIT_SHARE):
        return f"It is {share_text(story.actual)}, where {share_text(story.expected)} is usual."
    if story.measure == COST_PER_REQUEST:
        usual = money(round(story.expected))
        return f"A request costs {money(round(story.actual))}, where {usual} is usual."
    return (
        f"It used {story.actual:,.0f} {story.measure} in 15 minutes,"
        f" where {story.expected:,.0f} is usual."
    )
