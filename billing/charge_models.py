"""What a quantity costs under a usage charge. Pure and exact.

A period may have several parts, each with a version of the charge. The quantity counts on: a part
pays for what lies between the quantity `before` it and the one `after` it, counted since the period
began. Volume pricing alone looks at the whole period's `total`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from billing.terms import ChargeModel, Tier, UsageCharge

NOTHING: Final = Fraction(0)
PERCENT: Final = 100


class Used(NamedTuple):
    """What was used in a part of a period, in the unit of the charge's metric. Never negative."""

    quantity: Fraction = NOTHING
    # Calls, which a percentage charge may have an amount for.
    requests: int | Fraction = 0
    # Of a quantity that is a cost, what each provider and model cost: for markups of their own.
    costs: Mapping[tuple[str, str], Fraction] = {}
    # Calls whose cost is not known.
    unpriced: int = 0


UNUSED: Final = Used()


class Stretch(NamedTuple):
    """A part of a quantity that has one rate: a tier, what one markup applies to, or all of it.

    `rate` is the amount for `per` units, a package or a call, or a percentage.
    """

    unit: str
    quantity: Fraction
    rate: Fraction
    amount: Fraction
    per: int = 1
    flat_amount: Fraction = NOTHING


class Counted(NamedTuple):
    """Where a part stands in its period: what was used before and in it, and in all parts."""

    before: Fraction
    used: Used
    total: Fraction
    # Of the parts that the customer pays for and whose charge has the same model.
    is_first: bool
    is_last: bool

    @property
    def after(self) -> Fraction:
        """What was used since the period began, up to the part's end."""
        return self.before + self.used.quantity


# Plans have few prices, which are read for each line of thousands of statements.
@lru_cache(10_000)
def exact(amount: Decimal) -> Fraction:
    """Return what a plan says as a fraction."""
    return Fraction(amount)


def add_up(amounts: Sequence[Fraction]) -> Fraction:
    """Return the sum; most often it is of one amount, which no new fraction is made for."""
    return amounts[0] if len(amounts) == 1 else sum(amounts, NOTHING)


def stretches_of(charge: UsageCharge, counted: Counted) -> list[Stretch]:
    """Return what a part pays; the amounts of all add up to its line."""
    match charge.model:
        case ChargeModel.PER_UNIT:
            return [_per_unit(charge, counted)]
        case ChargeModel.GRADUATED:
            return list(_graduated(charge, counted))
        case ChargeModel.VOLUME:
            return _volume(charge, counted)
        case ChargeModel.PACKAGE:
            return [_package(charge, counted)]
        case ChargeModel.PERCENTAGE:
            return list(_percentage(charge, counted))
        case ChargeModel.COST_PLUS:
            return list(_cost_plus(charge, counted.used))


def _per_unit(charge: UsageCharge, counted: Counted) -> Stretch:
    assert charge.unit_amount is not None
    return _units(_charged(charge, counted), exact(charge.unit_amount), charge.per)


def _graduated(charge: UsageCharge, counted: Counted) -> Iterator[Stretch]:
    """Yield a stretch for each tier that has some of the part's quantity or whose flat amount is
    due. Bounds count from where the included units end.
    """
    before, after = _above(charge, counted.before), _above(charge, counted.after)
    first = charge.tiers[0]
    if not after and not (first.flat_amount and counted.is_first):
        return
    lower = NOTHING
    for tier in charge.tiers:
        upper = after if tier.up_to is None else exact(tier.up_to)
        quantity = max(NOTHING, min(after, upper) - max(before, lower))
        # No usage at all reaches the first tier, but for included units below it.
        is_always = tier is first and not charge.included_units
        was_reached = not counted.is_first and (is_always or before > lower)
        is_due = (is_always or after > lower) and not was_reached
        flat = exact(tier.flat_amount) if is_due else NOTHING
        if quantity or flat:
            yield _units(quantity, exact(tier.unit_amount), charge.per, flat)
        if upper >= after:
            return
        lower = upper


def _volume(charge: UsageCharge, counted: Counted) -> list[Stretch]:
    if charge.included_units and counted.total <= charge.included_units:
        return []
    tier = _volume_tier(charge, counted.total)
    flat = exact(tier.flat_amount) if counted.is_last else NOTHING
    return [_units(counted.used.quantity, exact(tier.unit_amount), charge.per, flat)]


def _volume_tier(charge: UsageCharge, total: Fraction) -> Tier:
    """Return the tier that a quantity ends in, counted from where the included units end."""
    above = _above(charge, total)
    return next(tier for tier in charge.tiers if tier.up_to is None or above <= tier.up_to)


def _package(charge: UsageCharge, counted: Counted) -> Stretch:
    assert charge.package_size is not None
    assert charge.package_amount is not None
    begun_before, begun = (
        math.ceil(_above(charge, quantity) / charge.package_size)
        for quantity in (counted.before, counted.after)
    )
    packages, amount = Fraction(begun - begun_before), exact(charge.package_amount)
    return Stretch("package", packages, amount, packages * amount)


def _percentage(charge: UsageCharge, counted: Counted) -> Iterator[Stretch]:
    assert charge.percent is not None
    yield _percent(_charged(charge, counted), exact(charge.percent), of_cost=0)
    if charge.unit_amount is not None:
        requests, amount = Fraction(counted.used.requests), exact(charge.unit_amount)
        yield Stretch("request", requests, amount, requests * amount)


def _cost_plus(charge: UsageCharge, used: Used) -> Iterator[Stretch]:
    """Yield a stretch for each percentage that some of the cost has, in the order of first use."""
    assert charge.percent is not None
    by_percent: dict[Fraction, Fraction] = {}
    for (provider, model), cost in used.costs.items():
        percent = _markup_percent(charge, provider=provider, model=model)
        by_percent[percent] = by_percent.get(percent, NOTHING) + cost
    # What is not told apart by model.
    rest = used.quantity - sum(used.costs.values())
    if rest or not by_percent:
        percent = exact(charge.percent)
        by_percent[percent] = by_percent.get(percent, NOTHING) + rest
    for percent, cost in by_percent.items():
        yield _percent(cost, percent, of_cost=1)


def _markup_percent(charge: UsageCharge, *, provider: str, model: str) -> Fraction:
    """Return a model's percentage, else its provider's, else the charge's. A markup that names both
    is for that provider's model alone, and goes before either.
    """
    for wanted in ((provider, model), (None, model), (provider, None)):
        for markup in charge.markups:
            if (markup.provider, markup.model) == wanted:
                return exact(markup.percent)
    assert charge.percent is not None
    return exact(charge.percent)


def _charged(charge: UsageCharge, counted: Counted) -> Fraction:
    """Return how much of a part's quantity is not included."""
    if not charge.included_units:
        return counted.used.quantity
    return _above(charge, counted.after) - _above(charge, counted.before)


def _above(charge: UsageCharge, quantity: Fraction) -> Fraction:
    if not charge.included_units:
        return quantity
    return max(NOTHING, quantity - exact(charge.included_units))


def _units(
    quantity: Fraction, rate: Fraction, per: int, flat_amount: Fraction = NOTHING
) -> Stretch:
    amount = NOTHING
    if quantity:
        # One fraction is made of the product, and not one for each step.
        units, parts = quantity.as_integer_ratio()
        price, cents = rate.as_integer_ratio()
        amount = Fraction(units * price, parts * cents * per)
    if flat_amount:
        amount += flat_amount
    return Stretch("unit", quantity, rate, amount, per, flat_amount)


def _percent(cost: Fraction, percent: Fraction, *, of_cost: int) -> Stretch:
    return Stretch("percent", cost, percent, cost * (of_cost + percent / PERCENT))
