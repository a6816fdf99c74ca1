"""Cents of exact amounts: they add up, they are fair, and what moves them moves only them."""

from decimal import Decimal
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.totals import (
    Adjusted,
    Billed,
    Coupon,
    TaxRate,
    adjust,
    credit_note_amounts,
    round_half_away,
    settle_totals,
    to_minor,
)
from tests.seed import dice

CENT = Fraction(1, 100)


def random_amount(chances: Random) -> Fraction:
    return Fraction(chances.randrange(-(10**6), 10**6), chances.choice([7, 100, 1000, 10_000]))


def fractions_of(*amounts: str) -> list[Fraction]:
    return [Fraction(amount) for amount in amounts]


def test_halves_are_rounded_away_from_zero() -> None:
    halves = fractions_of("0.5", "1.5", "2.5", "-0.5", "-2.5", "-1.49")
    assert [round_half_away(half) for half in halves] == [1, 2, 3, -1, -3, -1]


def test_lines_get_the_cents_of_the_rounded_sum_by_largest_remainder() -> None:
    assert to_minor(fractions_of("0.004", "0.009", "0.006"), 2) == [0, 1, 1]
    assert to_minor(fractions_of("1.001", "2.004", "3.005"), 2) == [100, 200, 301]


def test_of_equal_remainders_the_earlier_line_comes_first() -> None:
    assert to_minor(fractions_of("0.005", "0.005", "0.005"), 2) == [1, 1, 0]
    assert to_minor(fractions_of("-0.005", "-0.005", "-0.005"), 2) == [-1, -1, 0]


def test_81_equal_lines_and_a_credit_of_100_dollars() -> None:
    exact = Fraction("23072.5296")
    cents = to_minor([exact / 81] * 81, 2)
    assert sum(cents) == 2_307_253
    assert max(cents) - min(cents) == 1
    totals = settle_totals(sum(cents), credit=100_00)
    assert totals.credit_applied == 100_00
    assert totals.amount_due == 22_972_53


def test_a_currency_has_its_own_digits() -> None:
    assert to_minor(fractions_of("10.5", "0.4"), 0) == [11, 0]
    assert to_minor(fractions_of("1.2345"), 3) == [1235]
    assert to_minor([], 2) == []


def test_cents_add_up_and_each_is_within_one_of_its_amount() -> None:
    chances = dice("cents")
    for count in range(1000):
        amounts = [random_amount(chances) for _ in range(count % 40)]
        cents = to_minor(amounts, 2)
        total = sum(amounts, Fraction(0))
        assert sum(cents) == round_half_away(total / CENT)
        for amount, minor in zip(amounts, cents, strict=True):
            assert abs(amount / CENT - minor) < 1
        if total:
            assert to_minor([-amount for amount in amounts], 2) == [-minor for minor in cents]


def test_only_lines_that_changed_are_adjusted() -> None:
    exact = dict(zip("abc", fractions_of("0.004", "0.004", "0.004"), strict=True))
    cents = dict(zip("abc", to_minor(list(exact.values()), 2), strict=True))
    before = {key: Billed(exact[key], cents[key]) for key in exact}
    assert adjust(before, exact, 2) == {}
    # 1.2 cents become 1.6: the changed line gets the cent, though another has lost as much.
    assert adjust(before, {**exact, "c": Fraction("0.008")}, 2) == {"c": 1}
    # A line that is gone gives back what it got, a new one is charged.
    assert adjust(before, {"b": exact["b"], "c": exact["c"], "d": Fraction(5)}, 2) == {
        "d": 501,
        "a": -1,
    }


def test_however_often_lines_change_the_total_is_rounded_once() -> None:
    chances = dice("adjustments")
    for _ in range(500):
        now = {key: random_amount(chances) for key in range(6)}
        billed = dict(enumerate(to_minor(list(now.values()), 2)))
        for _ in range(10):
            before = {key: Billed(now[key], billed[key]) for key in now}
            moved = chances.sample(range(6), chances.randrange(7))
            now = {key: random_amount(chances) if key in moved else now[key] for key in now}
            changes = adjust(before, now, 2)
            assert changes.keys() == {key for key in now if now[key] != before[key].exact}
            billed |= {key: billed[key] + cents for key, cents in changes.items()}
            assert sum(billed.values()) == round_half_away(sum(now.values()) / CENT)
            # No line drifts away from its amount, however often it changes.
            assert max(abs(now[key] / CENT - billed[key]) for key in now) < 4


def test_a_line_that_changes_by_less_than_a_cent_every_time_does_not_drift() -> None:
    billed, exact = {"a": 0, "b": 0}, {"a": Fraction(0), "b": Fraction(0)}
    for step in range(1, 101):
        before = {key: Billed(exact[key], billed[key]) for key in exact}
        exact = {key: Fraction("0.004") * step for key in exact}
        for key, cents in adjust(before, exact, 2).items():
            billed[key] += cents
    assert billed == {"a": 40, "b": 40}


def test_totals_follow_in_order() -> None:
    totals = settle_totals(
        200_00,
        coupon=Coupon(percent=Decimal("12.5")),
        tax_rates=[TaxRate("State", Decimal("6.25")), TaxRate("City", Decimal("2"))],
        credit_notes=50_00,
        credit=100_00,
    )
    assert (totals.subtotal, totals.coupon_amount, totals.taxable) == (200_00, 25_00, 175_00)
    assert [tax.amount for tax in totals.taxes] == [10_94, 3_50]
    assert totals.total == 189_44
    assert (totals.credit_notes_applied, totals.credit_applied) == (50_00, 100_00)
    assert totals.amount_due == 39_44


def test_a_coupon_is_never_more_than_the_subtotal() -> None:
    totals = settle_totals(
        30_00, coupon=Coupon(amount=50_00), tax_rates=[TaxRate("V", Decimal(19))]
    )
    assert (totals.coupon_amount, totals.taxable, totals.total) == (30_00, 0, 0)
    assert settle_totals(-30_00, coupon=Coupon(amount=50_00)).coupon_amount == 0


def test_what_is_given_back_is_less_by_what_its_coupon_had_taken_off() -> None:
    # $4 of lines under 25% off.
    adjusted = [Adjusted(-4_00, -1_00)]
    for present, own in ((None, 20_00), (Coupon(percent=Decimal(50)), 10_00)):
        totals = settle_totals(16_00, coupon=present, adjusted=adjusted)
        assert totals.taxable == own - 3_00


def test_an_amount_off_is_of_own_lines_also_beside_what_is_given_back() -> None:
    adjusted = [Adjusted(-4_00, 0)]
    totals = settle_totals(6_00, coupon=Coupon(amount=8_00), adjusted=adjusted)
    assert (totals.subtotal, totals.coupon_amount, totals.taxable) == (6_00, 8_00, -2_00)


def test_credit_notes_come_before_prepaid_credit_and_neither_is_more_than_is_due() -> None:
    totals = settle_totals(80_00, credit_notes=100_00, credit=100_00)
    assert (totals.credit_notes_applied, totals.credit_applied, totals.amount_due) == (80_00, 0, 0)
    totals = settle_totals(80_00, credit_notes=30_00, credit=100_00)
    assert (totals.credit_notes_applied, totals.credit_applied, totals.amount_due) == (
        30_00,
        50_00,
        0,
    )


def test_a_negative_total_is_due_to_the_customer_and_uses_no_credit() -> None:
    totals = settle_totals(
        -761_250, tax_rates=[TaxRate("VAT", Decimal(19))], credit_notes=10, credit=10
    )
    assert totals.total == totals.amount_due == -761_250 - 144_638
    assert (totals.credit_notes_applied, totals.credit_applied) == (0, 0)


@pytest.mark.parametrize(
    ("net", "percent", "tax"),
    [(19_935_66, "15", 2_990_35), (-7_612_50, "19", -1_446_38), (182_631_82, "19", 34_700_05)],
)
def test_tax_is_rounded_half_away_from_zero(net: int, percent: str, tax: int) -> None:
    totals = settle_totals(net, tax_rates=[TaxRate("VAT", Decimal(percent))])
    assert [each.amount for each in totals.taxes] == [tax]


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=20), st.decimals(0, 30, places=3))
@settings(max_examples=200, deadline=None, database=None)
def test_credit_notes_for_all_of_a_statement_add_up_to_it(
    nets: list[int], percent: Decimal
) -> None:
    statement = settle_totals(sum(nets), tax_rates=[TaxRate("VAT", percent)])
    net = tax = 0
    for amount in nets:
        note = credit_note_amounts(net, tax, amount, percent)
        net, tax = net + note.net, tax + note.tax
    assert net + tax == statement.total
