"""A statement as the lines of an invoice at Stripe. Pure: no database, no clock.

Coupon, taxes, credit notes and prepaid credit are lines of their own, so that Stripe computes
nothing: the sum of the lines is the statement's amount due, to the cent.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from billing.currencies import digits_of
from common.json_bodies import JsonObject

# Of a line's metadata: which line of the statement it is.
LINE_MARK: Final = "spendgate_line"
NUMBER_CHARACTERS_MAX: Final = 26
# https://docs.stripe.com/currencies: amounts are in these units, elsewhere in hundredths.
WHOLE_UNITS: Final = frozenset(
    [
        *("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA"),
        *("PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"),
    ]
)
THOUSANDTHS: Final = frozenset(["BHD", "JOD", "KWD", "OMR", "TND"])


class NotCollectable(ValueError):
    """Stripe cannot hold this statement; the message says why."""


class InvoiceLine(NamedTuple):
    """A line, in the minor units that Stripe has for the currency."""

    key: str
    description: str
    amount: int

    def given(self, *, starts_at: int, ends_at: int) -> JsonObject:
        """Return the line as it is sent."""
        return {
            "amount": self.amount,
            "description": self.description,
            "discountable": False,
            "metadata": {LINE_MARK: self.key},
            "period": {"start": starts_at, "end": ends_at},
        }


class StatementAmounts(NamedTuple):
    """What is charged: (name, amount) of each line, and what is added to and taken from them."""

    currency: str
    lines: Sequence[tuple[str, int]]
    coupon: Mapping[str, Any] | None
    coupon_amount: int
    taxes: Sequence[Mapping[str, Any]]
    credit_notes_applied: int
    credit_applied: int
    amount_due: int


def lines_of(amounts: StatementAmounts) -> list[InvoiceLine]:
    """Return the lines of a statement's invoice. Raises NotCollectable."""
    lines = [(f"line:{at}", name, amount) for at, (name, amount) in enumerate(amounts.lines)]
    if amounts.coupon_amount:
        name = str((amounts.coupon or {}).get("name") or "discount")
        lines.append(("coupon", f"Coupon: {name}", -amounts.coupon_amount))
    lines += [
        (f"tax:{at}", f"{tax['name']} {tax['percent']}%", int(tax["amount"]))
        for at, tax in enumerate(amounts.taxes)
    ]
    if amounts.credit_notes_applied:
        lines.append(("credit_notes", "Credit notes", -amounts.credit_notes_applied))
    if amounts.credit_applied:
        lines.append(("credit", "Prepaid credit", -amounts.credit_applied))
    if sum(amount for _, _, amount in lines) != amounts.amount_due:
        raise NotCollectable("The statement's lines do not add up to its amount due.")
    return [
        InvoiceLine(key, description, stripe_amount(amount, amounts.currency))
        for key, description, amount in lines
    ]


def minor_amount(amount: int, currency: str) -> int:
    """Return an amount of Stripe's in the currency's minor units, rounded down."""
    more_digits = _more_digits(currency)
    return int(amount // 10**more_digits if more_digits >= 0 else amount * 10**-more_digits)


def _more_digits(currency: str) -> int:
    digits = 0 if currency in WHOLE_UNITS else 3 if currency in THOUSANDTHS else 2
    return digits - digits_of(currency)


def stripe_amount(amount: int, currency: str) -> int:
    """Return an amount of the currency's minor units in those that Stripe has for it.

    They differ for a few currencies: Stripe has hundredths of the Icelandic króna.
    """
    more_digits = _more_digits(currency)
    if more_digits >= 0:
        return int(amount * 10**more_digits)
    whole, rest = divmod(amount, 10**-more_digits)
    if rest:
        raise NotCollectable(f"Stripe has no amounts of {currency} as small as the statement's.")
    return int(whole)
