"""Money as the API writes it, and as integers count it."""

from decimal import Decimal
from typing import Final

NANOS: Final = 1_000_000_000


def usd(nanos: int) -> str:
    """Return nano-dollars as the decimal string of the API."""
    return f"{Decimal(nanos).scaleb(-9):f}"


def nanos_of(text: str) -> int:
    """Return the reverse of `usd`."""
    return int(Decimal(text).scaleb(9))
