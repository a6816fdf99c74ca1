"""What a step teaches. Anomalies teach little: a spike must not become the expectation."""

from typing import Final

import numpy as np

from alerts.anomaly.judgement import MOMENT, WARM_UP_HOURS, Judgement
from alerts.anomaly.lifecycle import Transition
from alerts.anomaly.record import HOURS_OF_DAY, HOURS_OF_WEEK, Bools, Floats, States
from alerts.anomaly.scales import FURTHEST, Step, from_scale, range_end, to_scale

RECENT_HOURS: Final = 1.0
TYPICAL_HOURS: Final = 48.0
MEAN_HOURS: Final = 24.0  # in which every hour of the day comes once
WEEK_HOURS: Final = 168.0  # memory of the usual range and of misses
VARIANCE_HOURS: Final = 72.0
DAY_MEMORY: Final = 5.0  # hours of data within one hour of the day,
WEEK_MEMORY: Final = 2.0  # and of the week
OPEN_RATE: Final = 0.1  # of the usual rate at which seasons and size are learnt meanwhile
SETTLING_HOURS: Final = 2.0  # before misses count
FIRST_HOURS: Final = 12.0  # the weight of having missed nothing at first
SHOCK: Final = 1.2  # a miss teaches at most this many margins,
EXCESS_SHOCK: Final = 1.2  # an excess at most so much,
RANGE_SHOCK: Final = 3.0  # and the range moves at most this many margins in one step
SIZE_SHOCK: Final = 10.0
REQUESTS_COUNTED: Final = 100.0  # more tell of changes, not of chance
FIRST_STEPS: Final = 20


def learn(states: States, step: Step, judgement: Judgement, transition: Transition) -> None:
    """Move everything that is remembered towards this step's values."""
    calm = step.is_known & ~transition.is_open
    teaches = calm | transition.opens
    first = step.is_known & (states["steps"] == 0)
    _learn_variance(states, step, calm)
    _learn_misses(states, step, judgement, teaches)
    _learn_range(states, step, judgement, teaches & step.is_busy)
    _learn_seasons(states, step, judgement, transition.is_open)
    _learn_levels(states, step, judgement, calm)
    _learn_size(states, step, judgement, transition.is_open)
    _learn_means(states, step, judgement, calm)
    for field in ("last", "recent", "typical"):
        size = np.abs(step.values) if field == "typical" else step.values
        states[field] = np.where(first, size, states[field])
    states["steps"] += step.is_known
    states["age_hours"] += np.where(states["steps"] > 0, step.hours, 0.0)
    states["busy_hours"] += np.where(step.is_busy, step.hours, 0.0)


def _rate(hours: Floats, memory_hours: float, seen: Floats) -> Floats:
    """Return the share of one step in a running mean: at first every step counts the same."""
    rate: Floats = np.maximum(-np.expm1(-hours / memory_hours), hours / (seen + hours))
    return rate


def _learn_variance(states: States, step: Step, calm: Bools) -> None:
    """Learn how much single requests differ, from how ratios vary with their number."""
    if step.weights is None or not step.is_ratio:
        return
    steps, variance = states["steps"], states["variance"]
    usual = (3 * states["typical"]) ** 2 + 9 * variance / np.maximum(step.weights, 1)
    square = (step.values - states["recent"]) ** 2
    square = np.where(steps < FIRST_STEPS, square, np.minimum(square, usual))
    seen = np.minimum(step.weights, REQUESTS_COUNTED) * square
    rate = np.maximum(step.hours / VARIANCE_HOURS, 1 / (steps + 2))
    teaches = calm & (steps > 0)
    states["variance"] = np.where(teaches, variance + rate * (seen - variance), variance)


def _learn_misses(states: States, step: Step, judgement: Judgement, teaches: Bools) -> None:
    age, busy = states["age_hours"], states["busy_hours"]
    settled = teaches & (age >= SETTLING_HOURS)
    rate = _rate(step.hours, WEEK_HOURS, age + FIRST_HOURS)
    busy_rate = _rate(step.hours, WEEK_HOURS, busy + FIRST_HOURS)
    sides = {"above": (1.0, judgement.high_margin), "below": (-1.0, judgement.low_margin)}
    for side, (sign, margin) in sides.items():
        miss = np.clip(sign * judgement.miss, 0.0, SHOCK * margin)
        excess = np.clip(sign * judgement.excess, 0.0, EXCESS_SHOCK)
        woke = judgement.is_idle & (sign * judgement.miss > 0) & (sign > 0)
        _average(states, "surprise_" + side, miss**MOMENT, rate, settled & ~woke)
        _average(states, "excess_" + side, excess**MOMENT, busy_rate, settled & step.is_busy)


def _average(states: States, field: str, value: Floats, rate: Floats, teaches: Bools) -> None:
    states[field] = np.where(teaches, states[field] + rate * (value - states[field]), states[field])


def _learn_range(states: States, step: Step, judgement: Judgement, teaches: Bools) -> None:
    rate = _rate(step.hours, WEEK_HOURS, states["busy_hours"]) * step.trust
    furthest_up = RANGE_SHOCK * (judgement.high_limit - judgement.range_high).clip(0.1, FURTHEST)
    furthest_down = RANGE_SHOCK * (judgement.range_low - judgement.low_limit).clip(0.1, FURTHEST)
    high = range_end(judgement.range_high, judgement.position, rate, furthest_up)
    low = -range_end(-judgement.range_low, -judgement.position, rate, furthest_down)
    begins = step.is_busy & (states["busy_hours"] == 0)
    for field, position in (("high", high), ("low", low)):
        learnt = np.where(teaches, from_scale(position, judgement.noise), states[field])
        states[field] = np.where(begins, step.values, learnt)


def _learn_seasons(states: States, step: Step, judgement: Judgement, is_open: Bools) -> None:
    slowness = np.where(is_open, OPEN_RATE, 1.0) * step.trust
    into_hour = (step.at % 3600) / 3600
    for field, hours, memory in (
        ("day", HOURS_OF_DAY, DAY_MEMORY),
        ("week", HOURS_OF_WEEK, WEEK_MEMORY),
    ):
        slots = (np.arange(len(states)), step.at // 3600 % hours)
        level = states[field][slots].astype(np.float64)
        seen = np.floor(states["age_hours"] / hours) + into_hour
        learnt = _moved(level, judgement, _rate(step.hours, memory, seen) * slowness, states)
        is_new = np.isnan(level)
        learnt = np.where(is_new, np.where(is_open, np.nan, step.values), learnt)
        states[field][slots] = np.where(step.is_known, learnt, level)


def _learn_levels(states: States, step: Step, judgement: Judgement, calm: Bools) -> None:
    rate = np.maximum(-np.expm1(-step.hours / RECENT_HOURS), 1 / (states["steps"] + 1))
    recent = _moved(states["recent"], judgement, rate * step.trust, states)
    states["recent"] = np.where(calm, recent, states["recent"])
    last = states["last"] + step.trust * (step.values - states["last"])
    states["last"] = np.where(calm, last, states["last"])


def _moved(level: Floats, judgement: Judgement, rate: Floats, states: States) -> Floats:
    """Move a level on the scale; once there is history, at most by the margin."""
    position = to_scale(level, judgement.noise)
    distance = judgement.position - position
    margin = np.where(judgement.miss > 0, judgement.high_margin, judgement.low_margin)
    margin = np.where(states["age_hours"] < WARM_UP_HOURS, np.inf, margin)
    return from_scale(position + rate * np.clip(distance, -margin, margin), judgement.noise)


def _learn_means(states: States, step: Step, judgement: Judgement, calm: Bools) -> None:
    """Learn how far the middle is off on average; what is beyond the limits counts up to them."""
    rate = _rate(step.hours, MEAN_HOURS, states["busy_hours"]) * step.trust
    low, high = (
        from_scale(end, judgement.noise) for end in (judgement.low_limit, judgement.high_limit)
    )
    _average(states, "mean_middle", from_scale(judgement.middle, judgement.noise), rate, calm)
    _average(states, "mean_value", np.clip(step.values, low, high), rate, calm)


def _learn_size(states: States, step: Step, judgement: Judgement, is_open: Bools) -> None:
    steps, typical = states["steps"], states["typical"]
    size = np.abs(step.values)
    if step.weights is not None and not step.is_ratio:
        each = size / np.maximum(step.weights, 1)
        rate = np.maximum(0.01, 1 / (steps + 1))
        request = states["request"] + rate * (each - states["request"])
        states["request"] = np.where(step.is_known & (step.weights > 0), request, states["request"])
    bounded = np.minimum(size, SIZE_SHOCK * typical + judgement.noise)
    size = np.where(states["age_hours"] > WARM_UP_HOURS, bounded, size)
    rate = np.maximum(-np.expm1(-step.hours / TYPICAL_HOURS), 1 / (steps + 1))
    rate = rate * np.where(is_open, OPEN_RATE, 1.0)
    states["typical"] = np.where(step.is_known, typical + rate * (size - typical), typical)
