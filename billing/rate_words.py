"""How a line's amount came about, in words that are printed."""

from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final

from babel.numbers import format_currency

from billing.charge_models import Stretch
from billing.currencies import LOCALE
from billing.rating import LineKind, RatedLine
from billing.terms import ChargeModel, FlatCharge, UsageCharge
from common.money import MINUS

PER_WORDS: Final = {1: "each", 1_000: "per 1K", 1_000_000: "per 1M"}
STRETCHES_SHOWN: Final = 6


def rate_words(line: RatedLine, currency: str) -> str:
    """Return a line's rates: "$1.60 per 1M", "20,000 at $2 each, 500 at $1 each", "cost + 20%"."""
    if line.is_trial:
        return "trial, not charged"
    if isinstance(line.charge, FlatCharge):
        amount = exact_price(Fraction(line.charge.amount), currency)
        share = "" if line.quantity == 1 else f", {decimal_words(line.quantity, 4)} of the period"
        return f"{amount}, in {line.charge.when.value}{share}"
    if line.charge is None or line.kind != LineKind.USAGE:
        return ""
    if len(line.stretches) == 1 and line.charge.model != ChargeModel.PACKAGE:
        return _rate_of(line.stretches[0], line.charge, currency)
    shown = ", ".join(
        _stretch_words(stretch, line.charge, currency)
        for stretch in line.stretches[:STRETCHES_SHOWN]
    )
    more = len(line.stretches) - STRETCHES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _stretch_words(stretch: Stretch, charge: UsageCharge, currency: str) -> str:
    if charge.model == ChargeModel.COST_PLUS:
        return f"{_rate_of(stretch, charge, currency)} on {exact_price(stretch.quantity, currency)}"
    noun = "" if stretch.unit == "unit" else f" {stretch.unit}{'s' * (stretch.quantity != 1)}"
    if stretch.unit == "percent":
        return _rate_of(stretch, charge, currency)
    quantity = decimal_words(stretch.quantity, 9)
    return f"{quantity}{noun} at {_rate_of(stretch, charge, currency)}"


def _rate_of(stretch: Stretch, charge: UsageCharge, currency: str) -> str:
    if stretch.unit == "percent":
        percent = decimal_words(stretch.rate, 6)
        cost_plus = charge.model == ChargeModel.COST_PLUS
        return f"cost + {percent}%" if cost_plus else f"{percent}% of cost"
    rate = exact_price(stretch.rate, currency)
    per = "" if stretch.unit != "unit" else f" {PER_WORDS.get(stretch.per, f'per {stretch.per:,}')}"
    flat = f" + {exact_price(stretch.flat_amount, currency)}" if stretch.flat_amount else ""
    return f"{rate}{per}{flat}"


def exact_price(amount: Fraction, currency: str) -> str:
    """A price with all its decimals, and at least those of the currency: $0.00123, $6.00."""
    return _price(*amount.as_integer_ratio(), currency)


# A statement has few prices, and thousands of them have the same. Whole numbers are found faster
# than fractions.
@lru_cache(10_000)
def _price(numerator: int, denominator: int, currency: str) -> str:
    text = decimal_text(Fraction(numerator, denominator), 12)
    digits = len(text.partition(".")[2])
    money: str = format_currency(
        Decimal(text), currency, locale=LOCALE, decimal_quantization=digits <= 2
    )
    return money


def decimal_words(value: Fraction, places: int) -> str:
    """A number with thousands marked: 1,234.5; a minus sign comes first."""
    return f"{Decimal(decimal_text(value, places)):,f}".replace("-", MINUS)


def decimal_text(value: Fraction, places: int) -> str:
    """A fraction as a decimal string with at most this many decimals, rounded half away from
    zero.
    """
    scaled = abs(value) * 10**places
    whole = int(scaled + Fraction(1, 2))
    digits = f"{whole:0{places + 1}}"
    text = f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".")
    return f"-{text}" if value < 0 and whole else text
