"""Which repeats belong together."""

from collections.abc import Sequence


def chain_around(numbers: Sequence[int], index: int, gap_max: int) -> tuple[int, int]:
    """The first and last place of the run around one of rising numbers, while gaps are small."""
    first = last = index
    while first > 0 and numbers[first] - numbers[first - 1] <= gap_max:
        first -= 1
    while last + 1 < len(numbers) and numbers[last + 1] - numbers[last] <= gap_max:
        last += 1
    return first, last
