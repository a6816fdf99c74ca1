"""Which calls a rule matches, and which of them it counts together."""

import json
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Final

from metering.core.dimensions import MATCHABLE, VALUE_CHARACTERS_MAX, unknown_dimension
from metering.models import Operation, Status

POSITION: Final = {name: index for index, name in enumerate(MATCHABLE)}
# Not a dimension of usage: the API key that asks.
KEY: Final = "key"
# How a call ended is not known when it is asked for, so no rule that stops calls goes by it.
KNOWN_BEFORE_CALL: Final = tuple(name for name in MATCHABLE if name != "status")
# Values of three dimensions fit into an index, however long and in whatever script they are.
PER_MAX: Final = 3
MATCH_VALUES_MAX: Final = 200
# Dimensions that have these values and no others.
WORDS_BY_DIMENSION: Final = {"operation": Operation.labels, "status": Status.labels}

# An event's values in the order of MATCHABLE; "" where it has none.
Values = tuple[str, ...]
# What a match asks for: positions in these, and the values that fit there.
Wanted = tuple[tuple[int, frozenset[str]], ...]


def wanted_values(value: object) -> frozenset[str]:
    """What a match asks of one dimension: a value, any of a list, or null for "has none"."""
    values = value if isinstance(value, list) else [value]
    return frozenset("" if value is None else str(value) for value in values)


def wanted_of(match: Mapping[str, object]) -> Wanted:
    """Return what a match asks for, by position in the values."""
    return tuple(sorted((POSITION[name], wanted_values(value)) for name, value in match.items()))


def problems_by_dimension(match: Mapping[str, object]) -> dict[str, str]:
    """Return what is wrong with a match of normal values, by dimension."""
    problems = {name: _match_problem(name, wanted) for name, wanted in match.items()}
    return {name: problem for name, problem in problems.items() if problem is not None}


def _match_problem(name: str, wanted: object) -> str | None:
    if name not in POSITION:
        return unknown_dimension(name)
    values = wanted if isinstance(wanted, list) else [wanted]
    if not 1 <= len(values) <= MATCH_VALUES_MAX:
        return f"Give 1 to {MATCH_VALUES_MAX} values."
    words = WORDS_BY_DIMENSION.get(name)
    for value in values:
        if value is None:
            continue
        if not isinstance(value, str) or not 1 <= len(value) <= VALUE_CHARACTERS_MAX:
            return f"A value must be a string of 1 to {VALUE_CHARACTERS_MAX} characters, or null."
        if words is not None and value not in words:
            return f"A value must be one of {', '.join(words)}."
    return None


def group_getter(positions: list[int]) -> Callable[[Values], Values]:
    if not positions:
        return lambda values: ()
    if len(positions) == 1:
        position = positions[0]
        return lambda values: (values[position],)
    return itemgetter(*positions)


def group_key(group: Sequence[str]) -> str:
    """A group's values as the text that `budget_window.group_key` holds."""
    return json.dumps(list(group), ensure_ascii=False, separators=(",", ":"))


class Grouping:
    """A match and the dimensions of `per`, ready to judge calls by their values."""

    __slots__ = ("match", "per", "positions", "wanted")

    def __init__(self, match: Mapping[str, object], per: Sequence[str]) -> None:
        self.match = dict(match)
        self.per = tuple(per)
        self.wanted = wanted_of(match)
        # None stands for the key that asks.
        self.positions = [None if name == KEY else POSITION[name] for name in per]

    def group(self, values: Values, *, key_prefix: str = "") -> str | None:
        """The call's group as the text that rows are kept by; None where the match is another's."""
        for position, wanted in self.wanted:
            if values[position] not in wanted:
                return None
        return group_key(
            [key_prefix if position is None else values[position] for position in self.positions]
        )
