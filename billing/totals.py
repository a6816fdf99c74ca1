"""From exact amounts to cents, and from lines to what is due. Pure.

Cents stand for the minor units of any currency. Whatever is rounded is rounded once, half away from
zero.
"""

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple, TypeVar

PERCENT: Final = 100
_Key = TypeVar("_Key", bound=Hashable)


class Billed(NamedTuple):
    """A line as it was billed: its exact amount, and the cents that it got. The amount is None if
    the cents are not all of it, because a statement that charged some of them is void.
    """

    exact: Fraction | None
    minor: int


class TaxRate(NamedTuple):
    """A tax in percent of the net amount."""

    name: str
    percent: Decimal


class Tax(NamedTuple):
    """What a tax comes to."""

    name: str
    percent: Decimal
    amount: int


class Coupon(NamedTuple):
    """A discount: a percentage of the subtotal, or an amount in cents."""

    percent: Decimal | None = None
    amount: int | None = None


class Adjusted(NamedTuple):
    """What an adjustment moves of an earlier statement: by how much its lines change, and how much
    more, or less, its coupon takes off than it has.
    """

    amount: int
    coupon_amount: int


class Totals(NamedTuple):
    """The sums of a statement in cents, in the order in which they follow from each other."""

    subtotal: int
    coupon_amount: int
    taxable: int
    taxes: tuple[Tax, ...]
    total: int
    credit_notes_applied: int
    credit_applied: int
    amount_due: int


class CreditNoteAmounts(NamedTuple):
    """What a credit note gives back."""

    net: int
    tax: int
    total: int


def round_half_away(amount: Fraction) -> int:
    """Return the nearest whole number; of two, the one farther from zero."""
    whole = math.floor(abs(amount) + Fraction(1, 2))
    return whole if amount >= 0 else -whole


def to_minor(amounts: Sequence[Fraction], digits: int) -> list[int]:
    """Return each amount in cents, so that all add up to their sum rounded once.

    Each is cut, and those that lose most get the cents that are left; of equal losses the earlier
    line's comes first. The opposite amounts get the opposite cents.
    """
    wanted, parts = _in_parts(amounts, 10**digits)
    total = sum(wanted)
    if total < 0:
        opposite = [-each for each in wanted]
        cents = _shared_out(opposite, parts, round_half_away(Fraction(-total, parts)))
        return [-each for each in cents]
    return _shared_out(wanted, parts, round_half_away(Fraction(total, parts)))


def adjust(
    before: Mapping[_Key, Billed], now: Mapping[_Key, Fraction], digits: int
) -> dict[_Key, int]:
    """Return by how many cents each line changes whose exact amount is not what it was.

    The differences move the total of what was billed to the new total rounded once; lines that are
    gone count as nothing now. The exact amounts before must be those that were billed last.
    """
    nothing = Billed(Fraction(0), 0)
    changed = [
        key
        for key in dict.fromkeys([*now, *before])
        if now.get(key, Fraction(0)) != before.get(key, nothing).exact
    ]
    if not changed:
        return {}
    scale = 10**digits
    total = round_half_away(sum(now.values(), Fraction(0)) * scale)
    # From what was billed and not from the exact amount, so that a line that changes often does not
    # drift away from it.
    wanted = [now.get(key, Fraction(0)) * scale - before.get(key, nothing).minor for key in changed]
    billed = sum(line.minor for line in before.values())
    shares = _shared_out(*_in_parts(wanted, 1), total - billed)
    cents = dict(zip(changed, shares, strict=True))
    return {
        key: change
        for key, change in cents.items()
        if change or before.get(key, nothing).exact is not None
    }


def _in_parts(amounts: Sequence[Fraction], factor: int) -> tuple[list[int], int]:
    """Return the amounts times a factor as counts of equal parts, and how many parts are one: whole
    numbers are added and compared in a tenth of the time that fractions take.
    """
    ratios = [amount.as_integer_ratio() for amount in amounts]
    parts = math.lcm(*(denominator for _, denominator in ratios))
    return [numerator * factor * (parts // denominator) for numerator, denominator in ratios], parts


def _shared_out(wanted: Sequence[int], parts: int, total: int) -> list[int]:
    """Return whole numbers near the amounts, which are counts of parts, that add up to the total
    (largest remainder).
    """
    if not wanted:
        return []
    cents = [each // parts for each in wanted]
    # More or less than one each only where the total is not that of the amounts.
    for_each, further = divmod(total - sum(cents), len(cents))
    by_loss = sorted(range(len(cents)), key=lambda index: cents[index] * parts - wanted[index])
    for rank, index in enumerate(by_loss):
        cents[index] += for_each + (rank < further)
    return cents


def settle_totals(
    subtotal: int,
    *,
    coupon: Coupon | None = None,
    adjusted: Collection[Adjusted] = (),
    tax_rates: Sequence[TaxRate] = (),
    credit_notes: int = 0,
    credit: int = 0,
) -> Totals:
    """Return what is due for a subtotal, with credit notes and prepaid credit that may be used.

    The subtotal includes the adjustments, each of which is under the coupon of its own statement. A
    negative total is due to the customer, and uses neither.
    """
    own = subtotal - sum(each.amount for each in adjusted)
    coupon_amount = taken_off(own, coupon) + sum(each.coupon_amount for each in adjusted)
    taxable = subtotal - coupon_amount
    taxes = tuple(Tax(name, percent, percent_of(taxable, percent)) for name, percent in tax_rates)
    total = taxable + sum(tax.amount for tax in taxes)
    payable = max(total, 0)
    credit_notes_applied = min(credit_notes, payable)
    credit_applied = min(credit, payable - credit_notes_applied)
    return Totals(
        subtotal=subtotal,
        coupon_amount=coupon_amount,
        taxable=taxable,
        taxes=taxes,
        total=total,
        credit_notes_applied=credit_notes_applied,
        credit_applied=credit_applied,
        amount_due=total - credit_notes_applied - credit_applied,
    )


def taken_off(subtotal: int, coupon: Coupon | None) -> int:
    """Return what a coupon takes off."""
    if coupon is None:
        return 0
    if coupon.percent is not None:
        return percent_of(subtotal, coupon.percent)
    return min(coupon.amount or 0, max(subtotal, 0))


def percent_of(net: int, percent: Decimal) -> int:
    """Return a percentage of cents, rounded."""
    return round_half_away(net * Fraction(percent) / PERCENT)


def credit_note_amounts(
    net_so_far: int, tax_so_far: int, net: int, percent: Decimal
) -> CreditNoteAmounts:
    """Return what a further credit note of a statement gives back, at one rate of tax.

    The tax is that of all notes together less what earlier ones gave back, so that notes for the
    whole statement add up to it.
    """
    tax = percent_of(net_so_far + net, percent) - tax_so_far
    return CreditNoteAmounts(net, tax, net + tax)
