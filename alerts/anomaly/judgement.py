"""Is this value surprising? Compared with what several experts expect, and with the usual range."""

from typing import Final, NamedTuple

import numpy as np

from alerts.anomaly.record import HOURS_OF_DAY, HOURS_OF_WEEK, Bools, Floats, States
from alerts.anomaly.scales import HANDFUL, Step, chance_width, from_scale, noise_of, to_scale

WARM_UP_HOURS: Final = 6.0  # of age, and of anything going on, before the first alarm
YOUNG_HOURS: Final = 48.0  # while days repeat for the first time, margins are wider by up to
YOUNG_MARGIN: Final = 0.7
MISS_FLOOR: Final = 0.45  # the least margin round expectations,
MISS_FACTOR: Final = 5.0  # and how many usual misses it spans
EXCESS_FLOOR: Final = 0.4  # the same for leaving the usual range
EXCESS_FACTOR: Final = 3.3
RATIO_SHARE: Final = 0.7  # of all that, in ratios: what chance does to them is known
LEAST_GAP: Final = 0.25  # between expectation and limit
MOMENT: Final = 4
CORRECTION_MAX: Final = 1_000.0  # beyond it, what is reported and what came have nothing in common
IDLE_SHARE: Final = 0.05  # of the high end of the range; below it a series is idle


class Judgement(NamedTuple):
    """Places on the scale, except `surprise`: 0 as expected, 1 at the limit, negative below."""

    noise: Floats
    usual: Floats  # what is reported as expected, in the measure's own unit
    middle: Floats  # of this hour of the week, this hour of the day and the last hour
    position: Floats  # of the value, drawn towards expectation when it rests on few requests
    lowest: Floats  # what the experts expect, widened by chance
    highest: Floats
    range_low: Floats  # the usual range, not widened
    range_high: Floats
    miss: Floats  # signed distance from expectation,
    excess: Floats  # and from the usual range
    low_margin: Floats  # what misses are usual or nearly so
    high_margin: Floats
    low_limit: Floats  # where an anomaly opens
    high_limit: Floats
    surprise: Floats
    is_idle: Bools


def judge_step(states: States, step: Step) -> Judgement:
    """Judge without learning. A value passes when any expert expects it."""
    noise = noise_of(states, step)
    lowest, highest = _expected(states, step, noise)
    low, high = states["low"], states["high"]
    range_low, range_high = to_scale(low, noise), to_scale(high, noise)
    wide_low = to_scale(low - _below(states, step, low), noise)
    wide_high = to_scale(high + chance_width(states, step, high), noise)
    position = _weighed(step, to_scale(step.values, noise), lowest, highest)
    is_idle = (np.abs(states["recent"]) < IDLE_SHARE * np.abs(high)) & (not step.is_ratio)
    low_margins, high_margins = _margins(states, step)
    # A series that wakes up is judged by its range alone: no one expected just this hour.
    by_range = _beyond_range(highest, wide_high, high_margins)
    high_limit = np.where(is_idle, by_range, np.minimum(highest + high_margins[0], by_range))
    # An idle step is outside the range of busy ones, which proves nothing.
    by_range = -_beyond_range(-lowest, -wide_low, low_margins)
    low_limit = lowest - low_margins[0]
    low_limit = np.where(step.is_busy, np.maximum(low_limit, by_range), low_limit)
    middle = _middle(states, step, noise)
    miss = position - np.clip(position, lowest, highest)
    gap = np.where(miss > 0, high_limit - highest, lowest - low_limit)
    has_history = (states["age_hours"] >= WARM_UP_HOURS) & (states["busy_hours"] >= WARM_UP_HOURS)
    return Judgement(
        noise=noise,
        usual=np.clip(
            _usual(states, middle, noise),
            from_scale(low_limit, noise),
            from_scale(high_limit, noise),
        ),
        middle=middle,
        position=position,
        lowest=lowest,
        highest=highest,
        range_low=range_low,
        range_high=range_high,
        miss=np.where(step.is_known, miss, 0.0),
        excess=np.where(step.is_busy, position - np.clip(position, wide_low, wide_high), 0.0),
        low_margin=low_margins[0],
        high_margin=high_margins[0],
        low_limit=low_limit,
        high_limit=high_limit,
        surprise=np.where(step.is_known & has_history, miss / gap, 0.0),
        is_idle=is_idle,
    )


def _middle(states: States, step: Step, noise: Floats) -> Floats:
    """Return the median of this hour of the week, this hour of the day and the last hour."""
    rows = np.arange(len(states))
    hours = step.at // 3600
    recent = to_scale(states["recent"], noise)
    day = to_scale(states["day"][rows, hours % HOURS_OF_DAY], noise)
    day = np.where(np.isnan(day), recent, day)
    week = to_scale(states["week"][rows, hours % HOURS_OF_WEEK], noise)
    week = np.where(np.isnan(week), (day + recent) / 2, week)
    lower, upper = np.minimum(day, week), np.maximum(day, week)
    return np.clip(recent, lower, upper)


def _usual(states: States, middle: Floats, noise: Floats) -> Floats:
    """Return the middle as an amount, corrected by how far it was off over the last day.

    A mean on the scale of factors is less than the mean of the amounts, by much where most steps
    are zero; and the seasons need days to follow a new level.
    """
    middles, values = states["mean_middle"], states["mean_value"]
    is_alike = (middles != 0) & (np.sign(middles) * values >= 0)
    is_alike &= np.abs(values) < CORRECTION_MAX * np.abs(middles)
    factor = np.divide(values, middles, out=np.ones(len(middles)), where=is_alike)
    usual: Floats = from_scale(middle, noise) * factor
    return usual


def _expected(states: States, step: Step, noise: Floats) -> tuple[Floats, Floats]:
    """Return the lowest and the highest expectation, each beyond by what chance does."""
    rows = np.arange(len(states))
    hours = step.at // 3600
    experts = [states["last"], states["recent"]]
    for near in (-1, 0, 1):  # seasons are not punctual
        day = states["day"][rows, (hours + near) % HOURS_OF_DAY]
        week = states["week"][rows, (hours + near) % HOURS_OF_WEEK]
        # Else a quiet weekend would have to become as busy as a weekday to be noticed.
        middle = from_scale((to_scale(day, noise) + to_scale(week, noise)) / 2, noise)
        experts += [week, np.where(np.isnan(week), day, middle)]
    lowest = highest = experts[0]
    for expert in experts[1:]:  # unlike minimum and maximum these pass over hours never seen
        lowest, highest = np.fmin(lowest, expert), np.fmax(highest, expert)
    lowest = lowest - _below(states, step, lowest)
    highest = highest + chance_width(states, step, highest)
    return to_scale(lowest, noise), to_scale(highest, noise)


def _below(states: States, step: Step, level: Floats) -> Floats:
    """Return how far chance reaches down; sums that fall are no matter of chance here."""
    if step.is_ratio:
        return chance_width(states, step, level)
    return np.zeros(len(level))


def _weighed(step: Step, position: Floats, lowest: Floats, highest: Floats) -> Floats:
    """Draw a place towards expectation by as much as a handful of requests is too few."""
    if step.weights is None:
        return position
    expected = np.clip(position, lowest, highest)
    trust = step.weights / (step.weights + HANDFUL)
    drawn: Floats = expected + (position - expected) * trust
    return drawn if step.is_ratio else np.where(position > expected, drawn, position)


def _margins(states: States, step: Step) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Return the margins below and above, each for expectation and for the usual range."""
    youth = YOUNG_MARGIN * np.maximum(0.0, 1 - states["busy_hours"] / YOUNG_HOURS)
    share = RATIO_SHARE if step.is_ratio else 1.0
    below, above = (
        (
            youth + share * (MISS_FLOOR + MISS_FACTOR * states["surprise_" + side] ** (1 / MOMENT)),
            youth
            + share * (EXCESS_FLOOR + EXCESS_FACTOR * states["excess_" + side] ** (1 / MOMENT)),
        )
        for side in ("below", "above")
    )
    return below, above


def _beyond_range(expected: Floats, range_end: Floats, margins: tuple[Floats, Floats]) -> Floats:
    """Return where values leave the usual range by far: never where they are expected."""
    beyond: Floats = np.maximum(expected + LEAST_GAP, range_end + margins[1])
    return beyond
