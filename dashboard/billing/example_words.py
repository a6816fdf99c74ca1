"""The example of a charge in a sentence: "1,200 requests cost $14.00". Pure."""

from decimal import Decimal
from fractions import Fraction
from typing import Final

from billing.models import Plan
from billing.plan_preview import Example
from billing.rate_words import decimal_words, exact_price
from billing.terms import Metric
from dashboard.amounts import count

NOUNS: Final = {
    Metric.REQUESTS: "requests",
    Metric.TOOL_CALLS: "tool calls",
    Metric.TOKENS: "tokens",
    Metric.INPUT_TOKENS: "input tokens",
    Metric.OUTPUT_TOKENS: "output tokens",
    Metric.CACHE_READ_TOKENS: "cache read tokens",
    Metric.CACHE_WRITE_TOKENS: "cache write tokens",
    Metric.REASONING_TOKENS: "reasoning tokens",
}
SCALED_FROM: Final = 1_000_000
DECIMALS: Final = 12


def example_words(example: Example, plan: Plan) -> tuple[str, str]:
    """Return the name of the charge, and what an amount of it costs."""
    amount = exact_price(rounded(example.amount), plan.currency)
    if example.metric is None:
        return example.charge, f"{amount} for a whole {plan.interval}"
    if example.metric == Metric.COST:
        cost = exact_price(Fraction(example.quantity), "USD")
        return example.charge, f"{cost} of provider's cost are charged {amount}"
    noun = NOUNS[example.metric]
    if example.quantity == 1:
        return example.charge, f"1 {noun.removesuffix('s')} costs {amount}"
    return example.charge, f"{_quantity(example.quantity)} {noun} cost {amount}"


def rounded(amount: Fraction) -> Fraction:
    """An amount to the last decimal that is printed."""
    return Fraction(round(amount * 10**DECIMALS), 10**DECIMALS)


def _quantity(quantity: Decimal) -> str:
    if quantity >= SCALED_FROM and quantity == int(quantity):
        return count(int(quantity))
    return decimal_words(Fraction(quantity), DECIMALS)
