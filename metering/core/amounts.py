"""What usage adds to a balance."""

from typing import Final, NamedTuple

from common.money import usd_words


class Amounts(NamedTuple):
    """What usage adds to a balance."""

    cost_nanos: int
    tokens: int
    requests: int
    tool_calls: int


# A limit that becomes this many times as high may have a digit too many.
TIMES_UNUSUAL: Final = 10
NOTHING: Final = Amounts(0, 0, 0, 0)


def add_amounts(left: Amounts, right: Amounts) -> Amounts:
    """The sum, part by part."""
    return Amounts(left[0] + right[0], left[1] + right[1], left[2] + right[2], left[3] + right[3])


def format_amount(part: str, amount: int) -> str:
    """An exact amount of a part of a limit, in its own unit: $50.00, 1 request, 2,000 tokens."""
    if part == "cost_nanos":
        return usd_words(amount)
    words = part.replace("_", " ")
    return f"{amount:,} {words.removesuffix('s') if amount == 1 else words}"


def describe_unusual_rise(part: str, before: int | None, after: int | None) -> str | None:
    """Return a warning about a limit that may have a digit too many now."""
    if not before or after is None or after < TIMES_UNUSUAL * before:
        return None
    rise = f"from {format_amount(part, before)} to {format_amount(part, after)}"
    return f"The limit goes {rise}: {after // before:,} times as much."
