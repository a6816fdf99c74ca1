"""Amounts of a currency: whole minor units inside, decimal strings outside."""

from decimal import Decimal
from functools import cache
from typing import Final

from babel.core import Locale
from babel.numbers import format_currency, get_currency_precision

from common.money import MINUS

LOCALE: Final = Locale("en", "US")


@cache
def is_currency(code: str) -> bool:
    """Whether this is a currency's code, as in USD."""
    return code in LOCALE.currencies


def digits_of(currency: str) -> int:
    """How many decimals an amount of a currency has: 2 for USD, 0 for JPY."""
    return get_currency_precision(currency)


def amount_of(minor: int, currency: str) -> str:
    """Minor units as a decimal string with the currency's digits: 1234 → "12.34"."""
    digits = digits_of(currency)
    # By whole numbers: a Decimal's scale changes under a context, which rounds at 28 digits.
    whole, rest = divmod(abs(minor), 10**digits)
    sign = "-" if minor < 0 else ""
    return f"{sign}{whole}.{rest:0{digits}d}" if digits else f"{sign}{whole}"


def minor_units(amount: Decimal, currency: str) -> int:
    """A decimal amount in minor units. Raises ValueError if it has more digits than these."""
    scale: int = 10 ** digits_of(currency)
    numerator, denominator = amount.as_integer_ratio()
    minor, rest = divmod(numerator * scale, denominator)
    if rest:
        raise ValueError(f"must have at most {digits_of(currency)} decimals in {currency}")
    return minor


def money_of(minor: int, currency: str) -> str:
    """Minor units as people read them: $1,234.50; a minus sign comes first."""
    amount = Decimal(amount_of(abs(minor), currency))
    text: str = format_currency(amount, currency, locale=LOCALE)
    return f"{MINUS}{text}" if minor < 0 else text
