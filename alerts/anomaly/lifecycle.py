"""When an anomaly opens, lasts and ends. One cause is one anomaly, however long it lasts."""

from typing import Final, NamedTuple

import numpy as np

from alerts.anomaly.judgement import Judgement
from alerts.anomaly.record import Bools, Floats, States
from alerts.anomaly.scales import Step, from_scale, to_scale

LASTS_SHARE: Final = 0.5  # of the distance to the limit that keeps an open anomaly open
CALM_HOURS: Final = 0.5  # after which it is over
REST_HOURS: Final = 24.0  # in which no further new pattern opens anything
ACCEPTED_HOURS: Final = 12.0  # after which it is a new level and no anomaly
SETTLE_HOURS: Final = 3.0  # over which the new level is averaged


class Transition(NamedTuple):
    """What a step does to anomalies."""

    opens: Bools
    is_open: Bools  # in this step, the one that opens it included, the one that closes it not


def follow(states: States, step: Step, judgement: Judgement, is_new_pattern: Bools) -> Transition:
    """Open, carry on and close anomalies."""
    was_open = states["is_open"].copy()
    is_surprise = np.abs(judgement.surprise) >= 1
    has_rested = (states["rest_hours"] >= REST_HOURS) & (step.hours > 0)
    is_novel = ~was_open & ~is_surprise & is_new_pattern & has_rested
    # A value far off while a new pattern is open is what that was the beginning of.
    turns = was_open & states["is_novel"] & is_surprise
    opens = (~was_open & is_surprise) | is_novel | turns
    states["is_novel"] = (states["is_novel"] | is_novel) & ~is_surprise
    states["rest_hours"] = np.where(opens, 0.0, states["rest_hours"] + step.hours)
    states["is_above"] = np.where(opens, judgement.surprise > 0, states["is_above"])
    states["open_hours"] = np.where(opens, 0.0, states["open_hours"] + step.hours)
    lasts = opens | (was_open & (_towards(states, judgement.surprise) >= LASTS_SHARE))
    states["calm_hours"] = np.where(lasts, 0.0, states["calm_hours"] + _calm(states, step))
    _track_new_level(states, step, judgement, opens)
    accepted = was_open & (states["open_hours"] >= ACCEPTED_HOURS)
    _accept_new_level(states, accepted)
    is_calm = states["calm_hours"] >= CALM_HOURS * (1 - 1e-9)
    states["is_open"] = (was_open & ~is_calm & ~accepted) | opens
    return Transition(opens, states["is_open"].copy())


def _towards(states: States, signed: Floats) -> Floats:
    return np.where(states["is_above"], signed, -signed)


def _calm(states: States, step: Step) -> Floats:
    """Return the hours of calm that a step proves: little, when idle as the series mostly is."""
    busy_share = states["busy_hours"] / np.maximum(states["age_hours"], 1e-9)
    calm: Floats = step.hours * np.where(step.is_busy, 1.0, np.clip(busy_share, 0.1, 1.0))
    return calm


def _track_new_level(states: States, step: Step, judgement: Judgement, opens: Bools) -> None:
    start = np.where(opens, step.values, states["new_level"])
    share = np.minimum(1.0, step.hours / SETTLE_HOURS)
    position = to_scale(start, judgement.noise)
    position += share * (to_scale(step.values, judgement.noise) - position)
    follows = states["is_open"] & step.is_known
    states["new_level"] = np.where(follows, from_scale(position, judgement.noise), start)


def _accept_new_level(states: States, accepted: Bools) -> None:
    level = states["new_level"]
    above = accepted & states["is_above"]
    below = accepted & ~states["is_above"]
    for field in ("recent", "last"):
        states[field] = np.where(accepted, level, states[field])
    states["high"] = np.where(above, np.maximum(states["high"], level), states["high"])
    states["low"] = np.where(below, np.minimum(states["low"], level), states["low"])
