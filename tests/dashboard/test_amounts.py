"""Amounts as people read them."""

from decimal import Decimal

import pytest

from dashboard.amounts import change, count, exact_money, fixed_money, money, percent


@pytest.mark.parametrize(
    ("nanos", "words", "exact"),
    [
        (0, "$0", "$0"),
        (4, "$0.000000004", "$0.000000004"),
        (12_345_678, "$0.0123", "$0.012345678"),
        (500_000_000, "$0.50", "$0.5"),
        (999_999_999, "$1.00", "$0.999999999"),
        (12_345_678_901, "$12.35", "$12.345678901"),
        (1_000_000_000_000, "$1,000", "$1,000"),
        (12_345_499_999_999, "$12,345", "$12,345.499999999"),
        (-5_000_000_000, "\u2212$5.00", "\u2212$5"),
    ],
)
def test_money_has_the_decimals_that_mean_something(nanos: int, words: str, exact: str) -> None:
    assert money(nanos) == words
    assert exact_money(nanos) == exact


def test_money_beyond_what_a_float_holds_is_exact() -> None:
    assert exact_money(9_007_199_254_740_993_000_000_001) == "$9,007,199,254,740,993.000000001"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0K"),
        (12_345, "12.3K"),
        (123_456, "123K"),
        (999_499, "999K"),
        (999_500, "1.0M"),
        (1_234_567, "1.2M"),
        (2_400_000_000, "2.4B"),
    ],
)
def test_counts_have_a_scale(number: int, words: str) -> None:
    assert count(number) == words


def test_shares_and_changes() -> None:
    assert percent(1, 3) == "33%"
    assert percent(1, 1_000_000) == "<0.1%"
    assert percent(0, 5) == "0%"
    assert percent(5, 0) == "—"
    assert change(150, 100) == Decimal(50)
    assert change(1, 0) is None


@pytest.mark.parametrize(
    ("nanos", "places", "words"),
    [
        (1_234_500_000_000, 2, "$1,234.50"),
        (12_345_678, 4, "$0.0123"),
        (-5_000_000, 2, "\u2212$0.01"),
        (4_999_999, 2, "<$0.01"),
        (0, 2, "$0.00"),
    ],
)
def test_amounts_of_a_column_have_the_same_decimals(nanos: int, places: int, words: str) -> None:
    assert fixed_money(nanos, places) == words
