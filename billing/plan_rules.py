"""What a plan may say: every fault of its terms, with the member that it is at and a sentence."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from billing.terms import Charge, ChargeModel, FlatCharge, Metric, Terms, Tier, UsageCharge
from metering.core.match import problems_by_dimension
from metering.core.validation import Problem

CHARGES_MAX: Final = 200
TIERS_MAX: Final = 100
MARKUPS_MAX: Final = 100
NAME_CHARACTERS_MAX: Final = 200
AMOUNT_MAX: Final = Decimal(1_000_000_000)
AMOUNT_DECIMALS_MAX: Final = 12
QUANTITY_MAX: Final = Decimal(10) ** 15
PER_MAX: Final = 1_000_000_000
PERCENT_MAX: Final = Decimal(1000)
PERCENT_DECIMALS_MAX: Final = 6
# The provider's costs are in USD, and nothing here converts currencies.
COST_CURRENCY: Final = "USD"


class _Members(NamedTuple):
    """What a charge model needs, and what else it takes."""

    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()


MEMBERS_BY_MODEL: Final = {
    ChargeModel.PER_UNIT: _Members(("unit_amount",), ("per", "included_units")),
    ChargeModel.GRADUATED: _Members(("tiers",), ("per", "included_units")),
    ChargeModel.VOLUME: _Members(("tiers",), ("per", "included_units")),
    ChargeModel.PACKAGE: _Members(("package_size", "package_amount"), ("included_units",)),
    ChargeModel.PERCENTAGE: _Members(("percent",), ("unit_amount", "included_units")),
    ChargeModel.COST_PLUS: _Members(("percent",), ("markups",)),
}
# Of members that not every model takes: what is left out, and why a model has no use for one.
_LEFT_OUT: Final[Mapping[str, object]] = {
    "unit_amount": None,
    "per": 1,
    "tiers": [],
    "package_size": None,
    "package_amount": None,
    "percent": None,
    "markups": [],
    "included_units": 0,
}
_WHY_NOT: Final = {
    "unit_amount": "The amount is that of the tiers, packages or percentage.",
    "per": "Only an amount for units is for a number of them.",
    "tiers": "Only graduated and volume charges have tiers.",
    "package_size": "Only package charges have packages.",
    "package_amount": "Only package charges have packages.",
    "percent": "Only percentage and cost_plus charges are a percentage of the cost.",
    "markups": "Only cost_plus charges have markups.",
    "included_units": "Which model's cost were included is not said; use a percentage charge.",
}
FLAT_MEMBERS: Final = ("name", "kind", "amount", "when", "proration")
_ON_COST: Final = (ChargeModel.PERCENTAGE, ChargeModel.COST_PLUS)


def terms_problems(terms: Terms, *, currency: str) -> Iterator[Problem]:
    """Judge a version of a plan; what is inside a charge is at `charges.0.…`."""
    if not terms.charges:
        yield Problem("charges", "Give at least one charge.", "required")
    if len(terms.charges) > CHARGES_MAX:
        yield Problem("charges", f"A plan has at most {CHARGES_MAX} charges.")
    for index, charge in enumerate(terms.charges):
        for field, message, code in charge_problems(charge):
            yield Problem(f"charges.{index}.{field}", message, code)
    heads = {
        index: (charge.name, getattr(charge, "metric", None))
        for index, charge in enumerate(terms.charges)
    }
    yield from heads_problems(heads, currency=currency)
    yield from bound_problems(terms.minimum_amount, terms.cap_amount)


def heads_problems(
    heads: Mapping[int, tuple[str | None, Metric | None]], *, currency: str | None
) -> Iterator[Problem]:
    """Judge charges against each other and the plan's currency, by what is known of their names and
    metrics.
    """
    counts = Counter(_folded(name) for name, _ in heads.values() if name is not None)
    for index, (name, metric) in heads.items():
        if name and name.strip() and counts[_folded(name)] > 1:
            message = "Another charge has this name, and a statement's lines go by it."
            yield Problem(f"charges.{index}.name", message, "conflict")
        if metric == Metric.COST and currency not in (COST_CURRENCY, None):
            message = f"Costs are in {COST_CURRENCY}, and so must be a plan that charges for them."
            yield Problem(f"charges.{index}.metric", message)


def charge_problems(charge: Charge) -> Iterator[Problem]:
    """Judge one charge by itself."""
    yield from _name_problems(charge.name)
    if isinstance(charge, FlatCharge):
        yield from _amount_problems("amount", charge.amount)
        return
    yield from _member_problems(charge)
    if charge.model in _ON_COST and charge.metric != Metric.COST:
        yield Problem("metric", f"A {charge.model} charge is on the provider's cost: use 'cost'.")
    yield from _filter_problems(charge.filter)
    yield from _amount_problems("unit_amount", charge.unit_amount)
    yield from _amount_problems("package_amount", charge.package_amount)
    yield from _number_problems("included_units", charge.included_units, QUANTITY_MAX)
    yield from _count_problems("per", charge.per)
    if charge.package_size is not None:
        yield from _count_problems("package_size", charge.package_size)
    yield from _percent_problems("percent", charge.percent)
    yield from _tier_problems(charge.tiers)
    yield from _markup_problems(charge)
    yield from bound_problems(charge.minimum_amount, charge.cap_amount)


def _name_problems(name: str) -> Iterator[Problem]:
    if not name.strip():
        yield Problem("name", "Give a name.", "required")
    elif len(name) > NAME_CHARACTERS_MAX:
        yield Problem("name", f"Give at most {NAME_CHARACTERS_MAX} characters.")


def _folded(name: str) -> str:
    return name.strip().casefold()


def _member_problems(charge: UsageCharge) -> Iterator[Problem]:
    members = MEMBERS_BY_MODEL[charge.model]
    for name, left_out in _LEFT_OUT.items():
        is_given = getattr(charge, name) != left_out
        if name in members.needs and not is_given:
            yield Problem(name, f"A {charge.model} charge needs '{name}'.", "required")
        elif is_given and name not in (*members.needs, *members.takes):
            message = f"A {charge.model} charge takes no '{name}'. {_WHY_NOT[name]}"
            yield Problem(name, message, "not_taken")


def _filter_problems(wanted: Mapping[str, object]) -> Iterator[Problem]:
    for name, message in problems_by_dimension(wanted).items():
        yield Problem(f"filter.{name}", message)
    for name, value in wanted.items():
        if value is None or (isinstance(value, list) and None in value):
            yield Problem(f"filter.{name}", "Must be a value, or a list of values.")


def _tier_problems(tiers: Sequence[Tier]) -> Iterator[Problem]:
    if len(tiers) > TIERS_MAX:
        yield Problem("tiers", f"A charge has at most {TIERS_MAX} tiers.")
    lower = Decimal(0)
    for index, tier in enumerate(tiers):
        is_last = index == len(tiers) - 1
        field = f"tiers.{index}.up_to"
        if tier.up_to is None:
            if not is_last:
                yield Problem(field, "Only the last tier is open; give this one a bound.")
        elif is_last:
            yield Problem(field, "The last tier must be open: use null.")
        elif problems := list(_number_problems(field, tier.up_to, QUANTITY_MAX)):
            yield from problems
        elif tier.up_to <= lower:
            yield Problem(field, f"Must be more than {lower:f}, where this tier begins.")
        else:
            lower = tier.up_to
        yield from _amount_problems(f"tiers.{index}.unit_amount", tier.unit_amount)
        yield from _amount_problems(f"tiers.{index}.flat_amount", tier.flat_amount)


def _markup_problems(charge: UsageCharge) -> Iterator[Problem]:
    if len(charge.markups) > MARKUPS_MAX:
        yield Problem("markups", f"A charge has at most {MARKUPS_MAX} markups.")
    seen: set[tuple[str | None, str | None]] = set()
    for index, markup in enumerate(charge.markups):
        yield from _percent_problems(f"markups.{index}.percent", markup.percent)
        whose = (markup.provider, markup.model)
        if not any(whose):
            yield Problem(f"markups.{index}", "Name a model, a provider or both.", "required")
        elif whose in seen:
            yield Problem(f"markups.{index}", "Another markup is for the same.", "conflict")
        seen.add(whose)


def bound_problems(minimum: Decimal | None, cap: Decimal | None) -> Iterator[Problem]:
    """Judge the bounds of a charge or of a plan."""
    yield from _amount_problems("minimum_amount", minimum)
    yield from _amount_problems("cap_amount", cap)
    if minimum is not None and cap is not None and cap < minimum:
        yield Problem("cap_amount", "Must not be less than 'minimum_amount'.")


def _amount_problems(field: str, amount: Decimal | None) -> Iterator[Problem]:
    if amount is not None:
        yield from _number_problems(field, amount, AMOUNT_MAX)


def _percent_problems(field: str, percent: Decimal | None) -> Iterator[Problem]:
    if percent is not None:
        yield from _number_problems(field, percent, PERCENT_MAX, decimals=PERCENT_DECIMALS_MAX)


def _number_problems(
    field: str, number: Decimal, most: Decimal, *, decimals: int = AMOUNT_DECIMALS_MAX
) -> Iterator[Problem]:
    if not number.is_finite() or not 0 <= number <= most:
        yield Problem(field, f"Give 0 to {most:,f}.")
    elif number != round(number, decimals):
        yield Problem(field, f"Give at most {decimals} decimals.")


def _count_problems(field: str, count: int) -> Iterator[Problem]:
    if not 1 <= count <= PER_MAX:
        yield Problem(field, f"Give a whole number from 1 to {PER_MAX:,}.")
