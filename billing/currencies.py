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
    return f"{Decimal(minor).scaleb(-digits_of(currency)):.{digits_of(currency)}f}"


def minor_units(amount: Decimal, currency: str) -> int:
    """A decimal amount in minor units. Raises ValueError if it has more digits than these."""
    minor = amount.scaleb(digits_of(currency))
    if minor != minor.to_integral_value():
        raise ValueError(f"must have at most {digits_of(currency)} decimals in {currency}")
    return int(minor)


def money_of(minor: int, currency: str) -> str:
    """Minor units as people read them: $1,234.50; a minus sign comes first."""
    text: str = format_currency(
        Decimal(abs(minor)).scaleb(-digits_of(currency)), currency, locale=LOCALE
    )
    return f"{MINUS}{text}" if minor < 0 else text
