"""Form fields for numbers, which are read in one way only: digits, and a point before decimals.

Django's own fields take what people may mean differently: 1.000 typed for a thousand is 1 to them,
1e3 and digits of other scripts are numbers. Where a number is money, whatever could be meant in two
ways is refused, with the way to write it. Plain text inputs, because a browser's number input turns
10,000 into 10.000 in some languages before it is sent.
"""

import re
from decimal import Decimal
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError

from common.money import nanos_from_usd, usd_from_nanos

CHARACTERS_MAX: Final = 40
USD_MAX: Final = 1_000_000_000
DECIMALS_MAX: Final = 9
_DIGITS: Final = re.compile(r"[0-9]+")
_DECIMAL: Final = re.compile(r"\$?([0-9]+(?:\.([0-9]+))?)")
_NEGATIVE: Final = re.compile(r"\$?[-\u2212]")


class AmountField(forms.CharField):
    """An amount in USD, with or without a $ before it. Its value is a Decimal, or None."""

    def __init__(self, *, maximum: int = USD_MAX, **options: Any) -> None:
        options.setdefault("widget", forms.TextInput(attrs={"inputmode": "decimal"}))
        super().__init__(**options)
        self.maximum = maximum

    def clean(self, value: object) -> object:
        """Raises ValidationError with the way to write it for what is no such amount."""
        text = super().clean(value)
        if not text:
            return None
        amount = decimal_of(text)
        if amount > self.maximum:
            raise ValidationError(f"Write an amount of at most {self.maximum}.")
        return amount


class UsdField(AmountField):
    """An amount in USD; its value is whole nano-dollars."""

    def prepare_value(self, value: object) -> object:
        return usd_from_nanos(value) if isinstance(value, int) else value

    def clean(self, value: object) -> int | None:
        """Raises ValidationError with a sentence for what is no amount."""
        amount = super().clean(value)
        return None if amount is None else nanos_from_usd(f"{amount:f}")


class WholeNumberField(forms.IntegerField):
    """A count: digits alone."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("widget", forms.TextInput(attrs={"inputmode": "numeric"}))
        super().__init__(**options)

    def to_python(self, value: object) -> int | None:
        """Raises ValidationError with the way to write it for what is no whole number."""
        text = "" if value is None else str(value).strip()
        if not text:
            return None
        if _NEGATIVE.match(text):
            raise ValidationError("Write a number that is not below 0.")
        if not _DIGITS.fullmatch(text) or len(text) > CHARACTERS_MAX:
            raise ValidationError("Write a whole number in digits alone, such as 10000.")
        return int(text)


def decimal_of(text: str) -> Decimal:
    """What an amount's text says. Raises ValidationError with the way to write it."""
    match = _DECIMAL.fullmatch(text) if len(text) <= CHARACTERS_MAX else None
    if match is None:
        raise ValidationError(_hint(text))
    if len(match[2] or "") > DECIMALS_MAX:
        raise ValidationError(f"Write at most {DECIMALS_MAX} decimals.")
    return Decimal(match[1])


def _hint(text: str) -> str:
    if "," in text:
        return "Write 1200.50: commas could mean thousands or decimals."
    if _NEGATIVE.match(text):
        return "Write an amount that is not below 0."
    return "Write 1200.50: digits alone, with a point before decimals."
