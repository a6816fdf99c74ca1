"""When a delivery that failed is tried again. Pure."""

from typing import Final

FIRST_WAIT_SECONDS: Final = 5.0
# Each wait is twice the one before, up to this: for about a day ...
LONG_WAIT_SECONDS: Final = 900.0
TRIES_IN_A_DAY: Final = 103
# ... then it is tried every hour, and given up after about three days in all.
HOUR_SECONDS: Final = 3600.0
TRIES_MAX: Final = TRIES_IN_A_DAY + 48
# Waits differ by so much either way, so that what failed together does not come back together.
JITTER: Final = 0.2
# While a receiver is down, its other messages wait for no longer than this.
REST_SECONDS_MAX: Final = 60.0


def wait_seconds(tries: int, *, chance: float, asked_seconds: float | None = None) -> float | None:
    """Return how long to wait after a number of failed tries; None: give up. `chance` is from 0 to
    1.

    A receiver that asks to be left alone for longer is.
    """
    if tries >= TRIES_MAX:
        return None
    if tries >= TRIES_IN_A_DAY:
        wait = HOUR_SECONDS
    else:
        wait = min(FIRST_WAIT_SECONDS * 2 ** min(tries - 1, 20), LONG_WAIT_SECONDS)
    return max(wait * (1 - JITTER + 2 * JITTER * chance), asked_seconds or 0.0)


def rest_seconds(wait: float, *, asked_seconds: float | None = None) -> float:
    """How long a channel's other messages wait when its receiver is down."""
    return max(min(wait, REST_SECONDS_MAX), asked_seconds or 0.0)
