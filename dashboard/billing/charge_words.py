"""What a charge says, in lines that are printed. Pure."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from billing.rate_words import PER_WORDS, decimal_words, exact_price
from billing.terms import Charge, ChargeModel, FlatCharge, Proration, UsageCharge
from dashboard.amounts import listed
from dashboard.billing.example_words import NOUNS

TIERS_SHOWN: Final = 12
PRORATIONS: Final = {
    Proration.DAY: "by the day",
    Proration.SECOND: "by the second",
    Proration.NONE: "whole",
}


def charge_words(charge: Charge, currency: str) -> list[str]:
    """Return the lines that say how a charge is rated."""
    if isinstance(charge, FlatCharge):
        amount = exact_price(Fraction(charge.amount), currency)
        return [f"{amount} a period, in {charge.when.value}, {PRORATIONS[charge.proration]}"]
    return [*_rates(charge, currency), *_conditions(charge, currency)]


def _rates(charge: UsageCharge, currency: str) -> Iterator[str]:
    noun = NOUNS.get(charge.metric, "provider's cost")
    per = PER_WORDS.get(charge.per, f"per {charge.per:,}")
    match charge.model:
        case ChargeModel.PER_UNIT:
            yield f"{_price(charge.unit_amount, currency)} {per}, {noun}"
        case ChargeModel.GRADUATED | ChargeModel.VOLUME:
            yield f"{charge.model.value.capitalize()} tiers, {noun}"
            yield from _tiers(charge, per, currency)
        case ChargeModel.PACKAGE:
            size = f"{charge.package_size:,}"
            yield f"{_price(charge.package_amount, currency)} for each begun {size} {noun}"
        case ChargeModel.PERCENTAGE:
            each = f", and {_price(charge.unit_amount, currency)} a call"
            yield f"{_percent(charge)} of the provider's cost{each if charge.unit_amount else ''}"
        case ChargeModel.COST_PLUS:
            yield f"Provider's cost and {_percent(charge)}"
            for markup in charge.markups:
                whose = " ".join(filter(None, (markup.provider, markup.model)))
                yield f"{whose}: cost and {decimal_words(Fraction(markup.percent), 6)}%"


def _tiers(charge: UsageCharge, per: str, currency: str) -> Iterator[str]:
    for tier in charge.tiers[:TIERS_SHOWN]:
        upto = "above" if tier.up_to is None else f"up to {tier.up_to:,f}"
        flat = f" and {_price(tier.flat_amount, currency)}" if tier.flat_amount else ""
        yield f"{upto}: {_price(tier.unit_amount, currency)} {per}{flat}"
    if len(charge.tiers) > TIERS_SHOWN:
        yield f"and {len(charge.tiers) - TIERS_SHOWN} more tiers"


def _conditions(charge: UsageCharge, currency: str) -> Iterator[str]:
    if charge.included_units:
        yield f"{charge.included_units:,f} included"
    if charge.minimum_amount is not None:
        yield f"at least {_price(charge.minimum_amount, currency)} a period"
    if charge.cap_amount is not None:
        yield f"at most {_price(charge.cap_amount, currency)} a period"
    for name, wanted in charge.filter.items():
        values = [wanted] if isinstance(wanted, str) else list(wanted)
        yield f"only {name} {listed(values, 'or')}"


def _price(amount: object, currency: str) -> str:
    return exact_price(Fraction(str(amount or 0)), currency)


def _percent(charge: UsageCharge) -> str:
    return f"{decimal_words(Fraction(charge.percent or 0), 6)}%"
