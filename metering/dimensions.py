"""The dimensions of usage: plain strings on an event, nothing to register first.

An event without a value has the empty string, so that leaving a dimension out escapes nothing.
"""

from typing import Final

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
