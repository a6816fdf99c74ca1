"""Amounts as people read them. Pure: whole numbers in, text out; nothing passes through a float."""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from common.money import MINUS, NANOS_PER_USD, exact_money, money

__all__ = [
    "MINUS",
    "change",
    "count",
    "exact_count",
    "exact_money",
    "fixed_money",
    "listed",
    "money",
    "percent",
    "percent_text",
]

_SCALES: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


def count(number: int) -> str:
    """A count with a scale: 950, 1.2K, 12.3M, 123M."""
    sign = MINUS if number < 0 else ""
    size = abs(number)
    for scale, letter in _SCALES:
        # From 999,500 on it is a million, and would read as 1000K.
        if size >= 1000 and size * 2000 >= scale * 1999:
            return f"{sign}{_scaled(size, scale)}{letter}"
    return f"{sign}{size}"


def _scaled(size: int, scale: int) -> str:
    tenths = (size * 20 + scale) // (scale * 2)
    if tenths >= 1000:
        return f"{(size * 2 + scale) // (scale * 2)}"
    return f"{tenths // 10}.{tenths % 10}"


def exact_count(number: int) -> str:
    """Every single one, with thousands marked."""
    return f"{number:,}".replace("-", MINUS)


def percent(part: int, whole: int) -> str:
    """A share: 42%, 4.2%, <0.1%; of nothing it is a dash."""
    if whole <= 0:
        return "—"
    return percent_text(Decimal(part) * 100 / whole)


def percent_text(value: Decimal) -> str:
    """A percentage with one decimal below ten, none above."""
    sign = MINUS if value < 0 else ""
    size = abs(value)
    if 0 < size < Decimal("0.1"):
        return f"{sign}<0.1%"
    step = Decimal("0.1") if size < 10 else Decimal(1)
    rounded = size.quantize(step, rounding=ROUND_HALF_UP)
    if rounded == rounded.to_integral_value():
        rounded = rounded.quantize(Decimal(1))
    return f"{sign}{rounded:,}%"


def fixed_money(nanos: int, places: int) -> str:
    """Dollars with a fixed number of decimals, for columns: $1,234.50, $0.0123, <$0.01."""
    usd = (Decimal(abs(nanos)) / NANOS_PER_USD).quantize(
        Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP
    )
    sign = MINUS if nanos < 0 else ""
    if nanos and not usd:
        return f"{sign}<${Decimal(1).scaleb(-places)}"
    return f"{sign}${usd:,}"


def change(now: int, before: int) -> Decimal | None:
    """By how many percent something grew; None where there was nothing before."""
    if before <= 0:
        return None
    return Decimal(now - before) * 100 / before


def listed(words: Sequence[str], last: str = "and") -> str:
    """Words as a sentence lists them: a, b and c."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
