"""The dimensions of usage: plain strings on an event, nothing to register first.

An event without a value has the empty string, so that leaving a dimension out escapes nothing. Two
values that look alike are one value (`normal_value`), so that spelling one differently escapes
nothing either.
"""

from collections.abc import Mapping
from typing import Final

from common.spelling import did_you_mean
from common.values import normal_value

DIMENSIONS: Final = (
    "team",
    "customer",
    "agent",
    "user",
    "feature",
    "session",
    "task",
    "trace",
    "model",
)
# Further fields that a budget may match and a reader may filter or group by.
FURTHER_DIMENSIONS: Final = ("provider", "tool", "operation", "status", "source")
MATCHABLE: Final = (*DIMENSIONS, *FURTHER_DIMENSIONS)
# Not a dimension of events: each single call is a group of its own.
REQUEST: Final = "request"

VALUE_CHARACTERS_MAX: Final = 200


def unknown_dimension(name: str) -> str:
    """Return what is wrong with a name that is no dimension, with the nearest that is."""
    near = did_you_mean(name, MATCHABLE)
    return f"Unknown dimension {name[:60]!r}.{near} Dimensions are {', '.join(MATCHABLE)}."


def normal_match(match: Mapping[str, object]) -> dict[str, object]:
    """A match with normal values; None stays the absence of one."""
    return {name: _normal_wanted(wanted) for name, wanted in match.items()}


def _normal_wanted(wanted: object) -> object:
    if isinstance(wanted, list):
        values = [_normal_wanted(each) for each in wanted]
        # What cannot be a value stays, for the check that names it.
        if any(isinstance(each, dict | list) for each in values):
            return values
        return list(dict.fromkeys(values))
    return normal_value(wanted) if isinstance(wanted, str) else wanted
