"""Money at the edge: decimal strings in USD outside, whole nano-dollars inside."""

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Final

NANOS_PER_USD: Final = 1_000_000_000
# The most that an amount may be: enough for any limit, and it fits a bigint in nano-dollars.
USD_MAX: Final = Decimal(1_000_000_000)


def nanos_from_usd(value: str | int | float) -> int:
    """Whole nano-dollars, rounded half up. Raises ValueError with a sentence for what is no such
    amount.

    A JSON number is taken by its shortest decimal form, which is what its sender wrote.
    """
    if isinstance(value, bool) or (isinstance(value, str) and len(value) > 40):
        raise ValueError('must be a decimal number of USD, as in "0.0123"')
    try:
        usd = Decimal(value if isinstance(value, str | int) else repr(value))
    except InvalidOperation as error:
        raise ValueError('must be a decimal number of USD, as in "0.0123"') from error
    if not usd.is_finite() or usd < 0 or usd > USD_MAX:
        raise ValueError("must be from 0 to 1,000,000,000 USD")
    return int((usd * NANOS_PER_USD).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def usd_from_nanos(nanos: int) -> str:
    """The exact decimal string, without an exponent and without zeros at its end."""
    whole, rest = divmod(abs(nanos), NANOS_PER_USD)
    sign = "-" if nanos < 0 else ""
    return f"{sign}{whole}.{rest:09d}".rstrip("0").rstrip(".") if rest else f"{sign}{whole}"
