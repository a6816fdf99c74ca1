"""Which calls a rule is about, and which of them it counts together."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from metering.budgets.rules import PLACE, Values, group_key, wanted_values
from metering.core.dimensions import MATCHABLE

# Not a dimension of usage: the API key that asks.
KEY: Final = "key"
# How a call ended is not known when it is asked for, so no rule that stops calls goes by it.
ASKABLE: Final = tuple(name for name in MATCHABLE if name != "status")
# Values of three dimensions fit into an index, however long and in whatever script they are.
PER_MAX: Final = 3


class Grouping:
    """A match and the dimensions of `per`, ready to judge calls by their values."""

    __slots__ = ("match", "per", "places", "wanted")

    def __init__(self, match: Mapping[str, Any], per: Sequence[str]) -> None:
        self.match = dict(match)
        self.per = tuple(per)
        self.wanted = [(PLACE[name], wanted_values(value)) for name, value in match.items()]
        # None stands for the key that asks.
        self.places = [None if name == KEY else PLACE[name] for name in per]

    def group(self, values: Values, *, key_prefix: str = "") -> str | None:
        """The call's group as the text that rows are kept by; None where the match is another's."""
        for place, wanted in self.wanted:
            if values[place] not in wanted:
                return None
        return group_key([key_prefix if place is None else values[place] for place in self.places])
