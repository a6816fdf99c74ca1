"""Times as text: as the contract writes them, and for people."""

from datetime import UTC, datetime
from functools import lru_cache


# An answer with many budgets says the same begins and ends of windows again and again.
@lru_cache(maxsize=4096)
def moment(at: datetime) -> str:
    """RFC 3339 in UTC."""
    return at.isoformat().replace("+00:00", "Z")


def format_time(at: datetime) -> str:
    """A time for people, to the minute: 2026-11-22 08:00 UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
