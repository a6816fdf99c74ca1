"""Has the series ever looked like this? The pattern of its latest steps, compared with those kept.

A pattern is a histogram of the latest steps' values, over bins that the first steps set. It is new
when its relative entropy to every pattern that was kept is more than chance explains (Wang et al.,
"Statistical techniques for online anomaly detection in data centers", 2011). So changes are found
that no single value shows: noise where there was none, a flat line, a level never seen before.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from alerts.anomaly.record import BINS, PATTERN_STEPS, PATTERNS, Bools, Floats, States
from alerts.anomaly.scales import Step

FIRST_STEPS: Final = 600  # set the bins
BIN_WIDTH: Final = 0.6  # of the range of the first steps
BINS_BELOW: Final = 2
LIMIT: Final = 25.0  # twice the log likelihood ratio; 23 is one in a hundred for ten bins
PORTION_SERIES: Final = 500
LEAST_SHARE: Final = 1e-12  # of a bin that a pattern does not have

_LOGS: Final = np.log(np.maximum(np.arange(PATTERN_STEPS + 1) / PATTERN_STEPS, LEAST_SHARE))
_SHARES: Final = np.arange(PATTERN_STEPS + 1) / PATTERN_STEPS

Places = npt.NDArray[np.intp]


def is_new_pattern(states: States, step: Step) -> Bools:
    """Learn the step, and tell for which series the latest steps form a pattern never seen."""
    is_new = np.zeros(len(states), np.bool_)
    known = np.flatnonzero(step.is_known)
    is_first = states["steps"][known] < FIRST_STEPS
    _set_bins(states, known[is_first], step.values)
    full = _count(states, known[~is_first], step.values)
    unlike = full[~_matches_latest(states, full)]
    # In portions, so that memory does not grow if all series change simultaneously.
    for start in range(0, len(unlike), PORTION_SERIES):
        portion = unlike[start : start + PORTION_SERIES]
        portion = portion[~_matches_any(states, portion)]
        # The first pattern of all is no news.
        is_new[portion] = states["pattern_count"][portion] > 0
        _keep(states, portion)
    return is_new


def _set_bins(states: States, rows: Places, values: Floats) -> None:
    value = values[rows]
    is_first = states["steps"][rows] == 0
    for field, extreme in (("first_low", np.minimum), ("first_high", np.maximum)):
        states[field][rows] = np.where(is_first, value, extreme(states[field][rows], value))


def _count(states: States, rows: Places, values: Floats) -> Places:
    """Put the step into the histogram in place of the oldest; answer the rows with all steps."""
    low, high = states["first_low"][rows], states["first_high"][rows]
    width = BIN_WIDTH * (high - low)
    width = np.where(width > 0, width, np.maximum(np.abs(high) * BIN_WIDTH, 1e-9))
    position = np.floor((values[rows] - low) / width)
    bins = (np.clip(position, -BINS_BELOW, BINS - BINS_BELOW - 1) + BINS_BELOW).astype(np.intp)
    counted = states["steps"][rows].astype(np.intp) - FIRST_STEPS
    slots = counted % PATTERN_STEPS
    is_full = counted >= PATTERN_STEPS
    histogram = states["histogram"]
    histogram[rows[is_full], states["latest"][rows, slots][is_full]] -= 1
    histogram[rows, bins] += 1
    states["latest"][rows, slots] = bins
    return rows[counted + 1 >= PATTERN_STEPS]


def _distance(histogram: npt.NDArray[np.uint8], pattern: npt.NDArray[np.uint8]) -> Floats:
    share = _SHARES[histogram]
    terms = share * (_LOGS[histogram] - _LOGS[pattern])
    return np.asarray(2 * PATTERN_STEPS * terms.sum(-1))


def _matches_latest(states: States, rows: Places) -> Bools:
    """The pattern of the step before is nearly always that of this one."""
    latest = states["pattern"][rows]
    distance = _distance(states["histogram"][rows], states["patterns"][rows, latest])
    matches: Bools = (states["pattern_count"][rows] > 0) & (distance < LIMIT)
    states["matched_at"][rows[matches], latest[matches]] = states["steps"][rows[matches]]
    return matches


def _matches_any(states: States, rows: Places) -> Bools:
    distance = _distance(states["histogram"][rows][:, None], states["patterns"][rows])
    distance[np.arange(PATTERNS) >= states["pattern_count"][rows][:, None]] = np.inf
    nearest = distance.argmin(axis=1) if len(rows) else np.zeros(0, np.intp)
    matches: Bools = distance[np.arange(len(rows)), nearest] < LIMIT
    matching, position = rows[matches], nearest[matches]
    states["pattern"][matching] = position
    states["matched_at"][matching, position] = states["steps"][matching]
    return matches


def _keep(states: States, rows: Places) -> None:
    """Keep patterns, in place of those that were not seen for longest."""
    count = states["pattern_count"][rows]
    oldest = states["matched_at"][rows].argmin(axis=1) if len(rows) else np.zeros(0, np.intp)
    position = np.where(count < PATTERNS, count, oldest)
    states["patterns"][rows, position] = states["histogram"][rows]
    states["matched_at"][rows, position] = states["steps"][rows]
    states["pattern"][rows] = position
    states["pattern_count"][rows] = np.minimum(count + 1, PATTERNS)
