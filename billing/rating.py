"""What a period of a subscription costs: parts with their usage in, lines out. Pure and exact.

The rules are in docs/billing.md. Amounts stay fractions here; `billing.totals` makes cents of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

from billing.charge_models import (
    NOTHING,
    UNUSED,
    Counted,
    Stretch,
    Used,
    add_up,
    exact,
    stretches_of,
)
from billing.periods import Part
from billing.terms import (
    Charge,
    FlatCharge,
    Proration,
    Terms,
    UsageCharge,
    When,
)


class LineKind(StrEnum):
    """What a line is for."""

    FLAT = "flat"
    USAGE = "usage"
    MINIMUM = "minimum"
    CAP = "cap"


class RatedLine(NamedTuple):
    """An exact amount, and what explains it.

    A line of a minimum or cap of the whole plan has no charge. The quantity of a flat fee is its
    share of the period.
    """

    name: str
    kind: LineKind
    version: int
    charge: Charge | None
    quantity: Fraction
    amount: Fraction
    starts_at: datetime
    ends_at: datetime
    is_trial: bool = False
    stretches: tuple[Stretch, ...] = ()
    # Calls of a charge on cost whose cost is not known, so that the amount may be too small.
    unpriced: int = 0

    @property
    def key(self) -> tuple[str, str, datetime]:
        """What tells a line from the others of its period, and finds it when it is rated again."""
        return self.kind.value, self.charge.name if self.charge else "", self.starts_at


# A part of a period, and what was used in it by the name of the charge.
UsedPart = tuple[Part, Mapping[str, Used]]


class _Metered(NamedTuple):
    """A usage charge in a part of the period, and what was used of it."""

    part: Part
    charge: UsageCharge
    used: Used


class _Charged(NamedTuple):
    """What a charge's lines come from, in the order of the parts: a fee or usage of each part."""

    fees: list[tuple[Part, FlatCharge]]
    metered: list[_Metered]


def rate(parts: Sequence[UsedPart]) -> list[RatedLine]:
    """Return the lines of a period, whose amounts add up to what it costs.

    Lines of a charge follow each other in the plan's order: one for each part, then its minimum or
    cap; those of the plan come last. A period that is not over costs what it will cost if nothing
    more is used. What is known of a trial is shown and costs nothing.
    """
    lines: list[RatedLine] = []
    for charged in _charges(parts).values():
        lines += _lines_of_charge(charged)
    paid = [part for part, _ in parts if not part.is_trial]
    if paid:
        lines += _bound_lines(None, paid[-1].version.terms, paid, lines)
    return lines


def _charges(parts: Sequence[UsedPart]) -> dict[str, _Charged]:
    """Return all charges by name: those of the last version in its order, then others."""
    latest_first = reversed(parts)
    charges = {
        charge.name: _Charged([], []) for part, _ in latest_first for charge in _charges_of(part)
    }
    for part, used in parts:
        for charge in _charges_of(part):
            fees, metered = charges[charge.name]
            if isinstance(charge, FlatCharge):
                fees.append((part, charge))
            else:
                metered.append(_Metered(part, charge, used.get(charge.name, UNUSED)))
    return charges


def _charges_of(part: Part) -> Sequence[Charge]:
    return part.version.terms.charges


def _lines_of_charge(charged: _Charged) -> Iterator[RatedLine]:
    fees, metered = charged
    if fees:
        yield from _fee_lines(fees)
    lines = list(_usage_lines(metered))
    yield from lines
    paid = [each for each in metered if not each.part.is_trial]
    if paid:
        charge = paid[-1].charge
        yield from _bound_lines(charge, charge, [each.part for each in paid], lines)


def _fee_lines(fees: Sequence[tuple[Part, FlatCharge]]) -> Iterator[RatedLine]:
    whole = _whole_fee(fees)
    for part, charge in fees:
        if whole is not None:
            share = Fraction(part is whole)
        else:
            share = part.second_share if charge.proration == Proration.SECOND else part.day_share
        # What is whole is shown once, and less than a day is none.
        if share:
            yield _line(part, charge, share, share * exact(charge.amount))


def _whole_fee(fees: Sequence[tuple[Part, FlatCharge]]) -> Part | None:
    """Return the part that pays a fee which is not prorated: the first after the trial for a fee in
    advance, the last for one in arrears. None if that part's fee is prorated: then all are.
    """
    paid = [fee for fee in fees if not fee[0].is_trial] or fees
    part, charge = paid[0] if paid[0][1].when == When.ADVANCE else paid[-1]
    return part if charge.proration == Proration.NONE else None


def _usage_lines(metered: Sequence[_Metered]) -> Iterator[RatedLine]:
    """Yield a line for each part. The quantity counts on from part to part; not from a trial, and
    not from another metric under the same name.
    """
    paid = [each for each in metered if not each.part.is_trial]
    for each in metered:
        used, charge = each.used, each.charge
        if each.part.is_trial:
            yield _line(each.part, charge, used.quantity, NOTHING, unpriced=0)
            continue
        counted = _counted(each, paid)
        stretches = tuple(stretches_of(charge, counted))
        amount = add_up([stretch.amount for stretch in stretches])
        yield _line(
            each.part, charge, used.quantity, amount, stretches=stretches, unpriced=used.unpriced
        )


def _counted(each: _Metered, paid: Sequence[_Metered]) -> Counted:
    if len(paid) == 1:
        return Counted(NOTHING, each.used, each.used.quantity, is_first=True, is_last=True)
    alike = [other for other in paid if other.charge.metric == each.charge.metric]
    same_model = [other for other in alike if other.charge.model == each.charge.model]
    earlier = alike[: alike.index(each)]
    return Counted(
        before=add_up([other.used.quantity for other in earlier]),
        used=each.used,
        total=add_up([other.used.quantity for other in alike]),
        is_first=each is same_model[0],
        is_last=each is same_model[-1],
    )


def _line(
    part: Part,
    charge: Charge,
    quantity: Fraction,
    amount: Fraction,
    *,
    stretches: tuple[Stretch, ...] = (),
    unpriced: int = 0,
) -> RatedLine:
    return RatedLine(
        name=charge.name,
        kind=LineKind.FLAT if isinstance(charge, FlatCharge) else LineKind.USAGE,
        version=part.version.number,
        charge=charge,
        quantity=quantity,
        amount=NOTHING if part.is_trial else amount,
        starts_at=part.starts_at,
        ends_at=part.ends_at,
        is_trial=part.is_trial,
        stretches=stretches,
        unpriced=unpriced,
    )


def _bound_lines(
    charge: UsageCharge | None,
    bounds: UsageCharge | Terms,
    parts: Sequence[Part],
    lines: Sequence[RatedLine],
) -> Iterator[RatedLine]:
    """Yield what brings the total of these lines up to the minimum or down to the cap, both for the
    days that the parts cover. The cap is whole for parts that together cover no day.
    """
    if bounds.minimum_amount is None and bounds.cap_amount is None:
        return
    total = add_up([line.amount for line in lines])
    share = add_up([part.day_share for part in parts])
    minimum = NOTHING if bounds.minimum_amount is None else share * exact(bounds.minimum_amount)
    cap = None if bounds.cap_amount is None else (share or 1) * exact(bounds.cap_amount)
    if cap is not None and total > cap:
        kind, difference = LineKind.CAP, cap - total
    elif bounds.minimum_amount is not None and total < minimum:
        kind, difference = LineKind.MINIMUM, minimum - total
    else:
        return
    word = kind.value.capitalize()
    yield RatedLine(
        name=word if charge is None else f"{word}: {charge.name}",
        kind=kind,
        version=parts[-1].version.number,
        charge=charge,
        quantity=Fraction(1),
        amount=difference,
        starts_at=parts[0].starts_at,
        ends_at=parts[-1].ends_at,
    )
