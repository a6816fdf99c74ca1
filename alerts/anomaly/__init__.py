"""Anomalies in series of sums and ratios: numbers in, verdicts out. No database, clock or labels.

The method, in the order of the modules:

1. `scales`: values are placed on a scale on which factors are distances, and noise stays small.
2. `judgement`: several experts say what to expect: the last value, the last hour, this hour of the
   week, the middle of that and this hour of the day, and the hours next to them. A value that any
   of them expects is no surprise; the interval between them is widened by what chance does with so
   many requests. What is reported as usual is not in the middle of that interval: it is the
   median of this hour of the week, this hour of the day and the last hour, corrected by how far
   that was off over the last day.
3. What remains is a miss. An alarm needs a miss far beyond the series' usual misses, or one that
   leaves its usual range (a power mean of its highs, and of its lows) by far. "Usual" is the
   fourth root of a mean of fourth powers: a series that bursts every day widens its own limits,
   one burst hardly does. All series share one set of parameters and one threshold.
4. `novelty`: besides single values the latest steps together are compared with the patterns seen
   before. A pattern never seen opens an anomaly that says so (`is_novel`): worth a look, no alarm.
5. `lifecycle`: an anomaly stays open while at least half the distance to the limit is missed, ends
   after half an hour of calm, and after half a day is accepted as the new level.
6. `learning`: calm steps teach all of this; anomalous ones hardly anything.

Nothing looks ahead, the record of a series has a fixed size, and series do not influence each
other.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from alerts.anomaly.judgement import Judgement, judge_step
from alerts.anomaly.learning import learn
from alerts.anomaly.lifecycle import follow
from alerts.anomaly.novelty import is_new_pattern
from alerts.anomaly.record import RECORD, Bools, Floats, States, new_states
from alerts.anomaly.scales import LARGEST, Step, from_scale

__all__ = ["RECORD", "THRESHOLD", "States", "Verdicts", "judge", "new_states", "observe"]

# A score of a half is reached at the limit: surprise / (1 + surprise).
THRESHOLD: Final = 0.5

Whole = int | npt.NDArray[np.int64]


class Verdicts(NamedTuple):
    """One entry per series. Amounts are in the measure's own unit."""

    score: Floats  # in [0, 1), how surprising this step's value is; THRESHOLD opens an anomaly
    is_open: Bools  # whether an anomaly is in force after this step
    is_novel: Bools  # of the open anomaly: a pattern never seen before, and no value far off
    is_above: Bools  # of the open anomaly, else of this value: more than expected
    expected: Floats  # the usual value, a true middle: what is reported
    low: Floats  # at or beyond these an anomaly opens
    high: Floats


def observe(
    states: States,
    *,
    at: Whole,
    step_seconds: Whole,
    values: Floats,
    weights: Floats | None = None,
    is_ratio: bool = False,
) -> Verdicts:
    """Judge one step of n series and learn from it, in place.

    `at` is when the step starts, in epoch seconds (one for all, or one per series); steps come in
    the order of time and may be left out. `values` are n floats; NaN says that nothing is known.
    `weights` are the requests that each value rests on, None when not known. A ratio over no
    requests is unknown; a sum over none is zero.
    """
    step = _step(at, step_seconds, values, weights, is_ratio=is_ratio)
    judgement = judge_step(states, step)
    transition = follow(states, step, judgement, is_new_pattern(states, step))
    learn(states, step, judgement, transition)
    return _verdicts(states, judgement, transition.is_open)


def judge(
    states: States,
    *,
    at: Whole,
    step_seconds: Whole,
    values: Floats,
    weights: Floats | None = None,
    is_ratio: bool = False,
) -> Verdicts:
    """Judge a step that may still be running, like `observe`, but learn and close nothing.

    A running sum can only grow, so that only one already too high opens an anomaly.
    """
    step = _step(at, step_seconds, values, weights, is_ratio=is_ratio)
    judgement = judge_step(states, step)
    surprise = judgement.surprise if is_ratio else np.maximum(judgement.surprise, 0.0)
    is_open = states["is_open"] | (np.abs(surprise) >= 1)
    return _verdicts(states, judgement._replace(surprise=surprise), is_open)


def _step(
    at: Whole, step_seconds: Whole, values: Floats, weights: Floats | None, *, is_ratio: bool
) -> Step:
    count = len(values)
    is_known = np.abs(values) <= LARGEST  # false for NaN
    if weights is not None:
        weights = np.nan_to_num(np.maximum(weights, 0.0), nan=0.0, posinf=LARGEST)
        is_known &= (weights > 0) | (not is_ratio)
    return Step(
        at=np.broadcast_to(np.asarray(at, np.int64), count),
        hours=np.broadcast_to(np.asarray(step_seconds, np.float64) / 3600, count),
        values=np.where(is_known, values, 0.0),
        weights=weights,
        is_known=is_known,
        is_ratio=is_ratio,
    )


def _verdicts(states: States, judgement: Judgement, is_open: Bools) -> Verdicts:
    surprise = np.abs(judgement.surprise)
    score = surprise / (1 + surprise)
    is_novel = is_open & states["is_novel"] & (surprise < 1)
    return Verdicts(
        score=np.where(is_novel, np.maximum(score, THRESHOLD), score),
        is_open=is_open,
        is_novel=is_novel,
        is_above=np.where(states["is_open"], states["is_above"], judgement.miss > 0),
        expected=judgement.usual,
        low=from_scale(judgement.low_limit, judgement.noise),
        high=from_scale(judgement.high_limit, judgement.noise),
    )
