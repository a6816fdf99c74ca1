"""What usage adds to a balance."""

from typing import Final, NamedTuple


class Amounts(NamedTuple):
    """What usage adds to a balance."""

    cost_nanos: int
    tokens: int
    requests: int
    tool_calls: int


NOTHING: Final = Amounts(0, 0, 0, 0)


def add_amounts(left: Amounts, right: Amounts) -> Amounts:
    """The sum, part by part."""
    return Amounts(left[0] + right[0], left[1] + right[1], left[2] + right[2], left[3] + right[3])
