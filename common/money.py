"""Money at the edge: decimal strings in USD outside, whole nano-dollars inside; and words for it.

Nothing passes through a float.
"""

import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from common.expectations import DECIMAL, USD

NANOS_PER_USD: Final = 1_000_000_000
# The most that an amount may be: enough for any limit, and it fits a bigint in nano-dollars.
USD_MAX: Final = Decimal(1_000_000_000)
MINUS: Final = "\u2212"
USD_NANOS_MAX: Final = int(USD_MAX) * NANOS_PER_USD
# As the schema has an amount. Decimal() itself also reads "1_000", "1e3", " 5" and other scripts.
USD_DECIMALS_MAX: Final = 18
USD_PATTERN: Final = r"^[0-9]{1,10}(\.[0-9]{1,18})?$"
_USD: Final = re.compile(USD_PATTERN)
# Of amounts in any unit.
DECIMAL_PATTERN: Final = r"^[0-9]{1,18}(\.[0-9]{1,18})?$"
_DECIMAL: Final = re.compile(DECIMAL_PATTERN)


def nanos_from_usd(value: str | int | float) -> int:
    """Whole nano-dollars, rounded half up. Raises ValueError with a sentence for what is no such
    amount.

    A string is ASCII digits with a point and decimals or without, and nothing else. A JSON number
    is taken by its shortest decimal form, which is what its sender wrote.
    """
    if isinstance(value, str):
        if _USD.fullmatch(value) is None:
            raise ValueError(USD)
    elif isinstance(value, bool):
        raise ValueError(USD)
    usd = Decimal(repr(value) if isinstance(value, float) else value)
    if not usd.is_finite() or usd < 0 or usd > USD_MAX:
        raise ValueError("must be from 0 to 1,000,000,000 USD")
    return int((usd * NANOS_PER_USD).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def decimal_of(value: object) -> Decimal:
    """An exact amount that is not negative. Raises ValueError for what is none.

    As in `nanos_from_usd`, a JSON number is taken by its shortest decimal form.
    """
    text = value if isinstance(value, str) else ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = Decimal(repr(value))
        # A large exponent would make a long text.
        text = f"{number:f}" if number.is_finite() and abs(number.adjusted()) <= 18 else ""
    if _DECIMAL.fullmatch(text) is None:
        raise ValueError(DECIMAL)
    return Decimal(text)


def usd_from_nanos(nanos: int) -> str:
    """The exact decimal string, without an exponent and without zeros at its end."""
    whole, rest = divmod(abs(nanos), NANOS_PER_USD)
    sign = "-" if nanos < 0 else ""
    return f"{sign}{whole}.{rest:09d}".rstrip("0").rstrip(".") if rest else f"{sign}{whole}"


def money(nanos: int) -> str:
    """Dollars with the decimals that mean something: $12,345, $12.34, $0.0123."""
    sign = MINUS if nanos < 0 else ""
    size = abs(nanos)
    if size == 0:
        return "$0"
    if size >= 1000 * NANOS_PER_USD:
        return f"{sign}${_rounded(size, 0):,}"
    if size >= NANOS_PER_USD:
        return f"{sign}${_rounded(size, 2):,}"
    return f"{sign}${_below_a_dollar(size)}"


def exact_money(nanos: int) -> str:
    """Every nano-dollar, with thousands marked: $1,234.000000567."""
    whole, _, rest = usd_from_nanos(abs(nanos)).partition(".")
    sign = MINUS if nanos < 0 else ""
    return f"{sign}${int(whole):,}" + (f".{rest}" if rest else "")


def usd_words(nanos: int) -> str:
    """The exact amount, with cents at least: $50.00, $0.0123."""
    whole, _, decimals = exact_money(nanos).partition(".")
    return f"{whole}.{decimals:0<2}"


def _rounded(nanos: int, places: int) -> Decimal:
    usd = Decimal(nanos) / NANOS_PER_USD
    return usd.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)


def _below_a_dollar(nanos: int) -> str:
    """Three significant digits, two decimals at least: 0.50, 0.0123, 0.000000004."""
    usd = Decimal(nanos) / NANOS_PER_USD
    places = min(9, 2 - usd.adjusted())
    text = f"{_rounded(nanos, places):f}".rstrip("0")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<2}"
