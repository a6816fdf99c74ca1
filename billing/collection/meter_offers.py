"""Which plans Stripe's meters can express, and as which prices. Pure: no database, no clock.

A plan is offered whole or not at all, with every reason against it: a bill that Stripe makes must
be the one that Spendgate would make.
"""

import hashlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from billing.models import Interval
from billing.terms import ChargeModel, FlatCharge, Metric, Terms, Tier, UsageCharge
from common.json_bodies import JsonObject

# Stripe's limit of items for a subscription.
ITEMS_MAX: Final = 20
# Of `unit_amount_decimal`, in hundredths of the currency's unit.
DECIMALS_MAX: Final = 12
EVENT_NAME_CHARACTERS_MAX: Final = 100
INTERVALS: Final = {
    Interval.MONTH: ("month", 1),
    Interval.QUARTER: ("month", 3),
    Interval.YEAR: ("year", 1),
}


def refusals(terms: Terms) -> list[str]:
    """Return why Stripe cannot meter a plan, a sentence for each reason; none: it can."""
    reasons = []
    if len(terms.charges) > ITEMS_MAX:
        reasons.append(f"A subscription at Stripe has at most {ITEMS_MAX} charges.")
    if terms.minimum_amount is not None or terms.cap_amount is not None:
        reasons.append("Stripe has no minimum and no cap of a plan.")
    for charge in terms.charges:
        reasons += [f"{charge.name}: {reason}" for reason in _reasons_against(charge)]
    return reasons


def _reasons_against(charge: FlatCharge | UsageCharge) -> Iterator[str]:
    if isinstance(charge, FlatCharge):
        yield "a flat fee is not metered; bill it by a statement or by a price of Stripe's."
        return
    if charge.model in (ChargeModel.PERCENTAGE, ChargeModel.COST_PLUS):
        yield "Stripe's meters know no provider's cost to take a percentage of."
        return
    if charge.metric == Metric.COST:
        yield "Stripe's meters take whole numbers, and a cost is not one."
    if charge.minimum_amount is not None or charge.cap_amount is not None:
        yield "Stripe has no minimum and no cap of a charge."
    if charge.included_units and charge.model == ChargeModel.PACKAGE:
        yield "Stripe has no included units with packages."
    yield from _reasons_against_amounts(charge)


def _reasons_against_amounts(charge: UsageCharge) -> Iterator[str]:
    if charge.included_units and any(tier.flat_amount for tier in charge.tiers):
        yield "Stripe has no included units with flat amounts of tiers."
    if not all(bound == bound.to_integral_value() for bound in _bounds(charge)):
        yield "Stripe's tiers end at whole numbers."
    if not all(_is_fine(amount) for amount in _amounts(charge)):
        yield f"Stripe's prices of a unit have at most {DECIMALS_MAX} decimals of a cent."


def _bounds(charge: UsageCharge) -> Iterator[Decimal]:
    yield charge.included_units
    yield from (tier.up_to for tier in charge.tiers if tier.up_to is not None)


def _amounts(charge: UsageCharge) -> Iterator[Decimal]:
    """Yield what is charged, for as many units as it is for."""
    for tier in charge.tiers:
        yield tier.unit_amount / charge.per
        yield tier.flat_amount
    yield (charge.unit_amount or Decimal(0)) / charge.per
    yield charge.package_amount or Decimal(0)


def _is_fine(amount: Decimal) -> bool:
    exponent = amount.normalize().as_tuple().exponent
    return isinstance(exponent, int) and -exponent <= DECIMALS_MAX + 2


def event_name_of(*, tenant_id: int, plan_id: int, charge: str) -> str:
    """Return the name of a charge's meter: the same for all versions of the plan."""
    digest = hashlib.sha256(charge.encode()).hexdigest()[:16]
    name = f"spendgate_{tenant_id}_{plan_id}_{digest}"
    assert len(name) <= EVENT_NAME_CHARACTERS_MAX, "numbers and a digest are short"
    return name


def meter_of(charge: str, event_name: str) -> JsonObject:
    """Return a meter whose hourly values overwrite each other and are added up."""
    return {
        "display_name": charge[:250],
        "event_name": event_name,
        "default_aggregation": {"formula": "sum"},
        "event_time_window": "hour",
        "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
        "value_settings": {"event_payload_key": "value"},
    }


def price_of(charge: UsageCharge, *, meter: str, currency: str, interval: Interval) -> JsonObject:
    """Return the price of a charge that is not refused."""
    unit, count = INTERVALS[interval]
    price: JsonObject = {
        "currency": currency.lower(),
        "nickname": charge.name[:250],
        "product_data": {"name": charge.name[:250]},
        "recurring": {
            "interval": unit,
            "interval_count": count,
            "usage_type": "metered",
            "meter": meter,
        },
    }
    if charge.model == ChargeModel.PACKAGE:
        assert charge.package_size is not None, "a package has a size"
        price["unit_amount_decimal"] = _hundredths(charge.package_amount or Decimal(0))
        price["transform_quantity"] = {"divide_by": charge.package_size, "round": "up"}
        return price
    if charge.model == ChargeModel.PER_UNIT and not charge.included_units:
        price["unit_amount_decimal"] = _hundredths((charge.unit_amount or Decimal(0)) / charge.per)
        return price
    is_volume = charge.model == ChargeModel.VOLUME
    price["billing_scheme"] = "tiered"
    price["tiers_mode"] = "volume" if is_volume else "graduated"
    price["tiers"] = [_tier_given(tier, charge.per) for tier in _tiers(charge)]
    return price


def _tiers(charge: UsageCharge) -> list[Tier]:
    """Return a charge's tiers, of which the included units are a free first one."""
    tiers = list(charge.tiers)
    if charge.model == ChargeModel.PER_UNIT:
        tiers = [Tier(up_to=None, unit_amount=charge.unit_amount or Decimal(0))]
    if charge.included_units:
        free = charge.included_units
        above = [tier for tier in tiers if tier.up_to is None or tier.up_to > free]
        tiers = [Tier(up_to=free), *above]
    return tiers


def _tier_given(tier: Tier, per: int) -> JsonObject:
    given: JsonObject = {
        "up_to": "inf" if tier.up_to is None else int(tier.up_to),
        "unit_amount_decimal": _hundredths(tier.unit_amount / per),
    }
    if tier.flat_amount:
        given["flat_amount_decimal"] = _hundredths(tier.flat_amount)
    return given


def _hundredths(amount: Decimal) -> str:
    return f"{(amount * 100).normalize():f}"
