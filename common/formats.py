"""Times as the contract writes them; times, factors and shares for people."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

# A value as long as this fills a title, and its end tells no more.
VALUE_CHARACTERS_MAX: Final = 80
# A larger factor, of next to nothing, tells nothing.
TIMES_MAX: Final = 1_000


# An answer with many budgets says the same begins and ends of windows again and again.
@lru_cache(maxsize=4096)
def moment(at: datetime) -> str:
    """RFC 3339 in UTC."""
    return at.isoformat().replace("+00:00", "Z")


def format_time(at: datetime) -> str:
    """A time for people, to the minute: Nov 22, 2026, 8:00 AM UTC."""
    return f"{at.astimezone(UTC):%b %-d, %Y, %-I:%M %p} UTC"


def quote(value: str) -> str:
    """A value as sentences name it."""
    shown = value if len(value) <= VALUE_CHARACTERS_MAX else f"{value[:VALUE_CHARACTERS_MAX]}…"
    return f"'{shown}'"


def format_times(actual: float, expected: float) -> str:
    """A factor: 1.5 times, 12 times, more than 1,000 times."""
    if expected <= 0 or actual >= TIMES_MAX * expected:
        return f"more than {TIMES_MAX:,} times"
    times = actual / expected
    text = f"{times:,.0f}" if times >= 9.95 else f"{times:.1f}".removesuffix(".0")
    return f"{text} times"


def format_share(share: float) -> str:
    """A share in percent: 81%, 0.4%."""
    percent = 100 * min(1.0, max(0.0, share))
    text = f"{percent:.0f}" if percent >= 9.95 or percent == 0 else f"{percent:.1f}"
    return f"{text.removesuffix('.0')}%"
