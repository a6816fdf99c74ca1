"""Times as the contract writes them."""

from datetime import datetime
from functools import lru_cache


# An answer with many budgets says the same begins and ends of windows again and again.
@lru_cache(maxsize=4096)
def moment(at: datetime) -> str:
    """RFC 3339 in UTC."""
    return at.isoformat().replace("+00:00", "Z")
