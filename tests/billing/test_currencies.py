"""Amounts of a currency are exact, however many digits they have."""

from decimal import Decimal

import pytest

from billing.currencies import amount_of, minor_units, money_of

LONG = 123456789012345678901234567890123456


@pytest.mark.parametrize(
    ("minor", "currency", "amount"),
    [
        (0, "USD", "0.00"),
        (5, "USD", "0.05"),
        (-5, "USD", "-0.05"),
        (-1234, "EUR", "-12.34"),
        (1234, "JPY", "1234"),
        (-1, "JPY", "-1"),
        (1234, "BHD", "1.234"),
        (LONG, "USD", "1234567890123456789012345678901234.56"),
        (-LONG, "JPY", f"-{LONG}"),
        (LONG, "BHD", "123456789012345678901234567890123.456"),
    ],
)
def test_minor_units_are_a_decimal_string_and_come_back(
    minor: int, currency: str, amount: str
) -> None:
    assert amount_of(minor, currency) == amount
    assert minor_units(Decimal(amount), currency) == minor
    assert minor_units(Decimal(f"{amount}e0"), currency) == minor


def test_zeros_at_the_end_are_no_further_decimals() -> None:
    assert minor_units(Decimal("12.3400"), "USD") == 1234
    assert minor_units(Decimal("1.2e3"), "JPY") == 1200


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        (Decimal("0.005"), "USD"),
        (Decimal("0.1"), "JPY"),
        # The last digit is the 36th: a context of 28 digits would round it away.
        (Decimal("123456789012345678.000000000000000001"), "USD"),
    ],
)
def test_an_amount_with_further_decimals_is_refused(amount: Decimal, currency: str) -> None:
    with pytest.raises(ValueError, match=r"must have at most [02] decimals"):
        minor_units(amount, currency)


def test_money_is_written_to_the_last_digit() -> None:
    assert money_of(123450, "USD") == "$1,234.50"
    assert money_of(-5, "USD") == "\N{MINUS SIGN}$0.05"
    assert money_of(1234, "JPY") == "¥1,234"
    assert money_of(2**63 - 1, "USD") == "$92,233,720,368,547,758.07"
