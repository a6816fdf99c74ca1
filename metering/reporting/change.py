"""What moved the cost between two times: more or fewer calls, another mix of them, other prices.

Exactly and in whole nano-dollars, for each group and in total. With requests `n` in all, and of a
group `g` its requests `n_g`, cost `c_g` and so its cost per request `p_g`, before (0) and after (1):

- volume: what the change of the number of requests would have cost at the old mix and prices,
  `(n1 - n0) * n0_g / n0 * p0_g`;
- mix: what the group has more or less than that, at the old price, `(n1_g - n0_g * n1 / n0) * p0_g`;
- price: what its requests cost more or less than they would have, `n1_g * (p1_g - p0_g)`.

A group that is new has no old price, so all its cost is mix, at its own price; one that vanished is
volume and mix. Cost without requests (that of tool calls) is price. Where there were no requests at
all before, or are none after, the whole change of requests is volume. Volume and price are rounded
half up and mix is the rest, in each group; totals are the sums of the groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from typing import Final, NamedTuple

from metering.reporting.comparison import Comparison
from metering.reporting.intervals import Bucket
from metering.reporting.kept import require_sums
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import groups_in

HALF: Final = Fraction(1, 2)


class Used(NamedTuple):
    """What a group cost and how many requests it was."""

    cost_nanos: int = 0
    requests: int = 0


class GroupChange(NamedTuple):
    """How the cost of one value of the dimension moved, and why."""

    value: str
    before: Used
    after: Used
    volume_nanos: int
    mix_nanos: int
    price_nanos: int

    @property
    def change_nanos(self) -> int:
        """The whole change: volume, mix and price together."""
        return self.after.cost_nanos - self.before.cost_nanos


class Change(NamedTuple):
    """How the cost moved, and why. Groups come with the largest change first."""

    before_nanos: int
    after_nanos: int
    volume_nanos: int
    mix_nanos: int
    price_nanos: int
    groups: Sequence[GroupChange]


def split_change(before: Mapping[str, Used], after: Mapping[str, Used]) -> Change:
    """Split the change of cost between two times, by value of a dimension."""
    requests_before = sum(used.requests for used in before.values())
    requests_after = sum(used.requests for used in after.values())
    growth = Fraction(requests_after, requests_before) if requests_before else None
    groups = [
        _group_change(value, before.get(value, Used()), after.get(value, Used()), growth)
        for value in {**before, **after}
    ]
    groups.sort(key=lambda group: (-abs(group.change_nanos), group.value))
    return Change(
        before_nanos=sum(group.before.cost_nanos for group in groups),
        after_nanos=sum(group.after.cost_nanos for group in groups),
        volume_nanos=sum(group.volume_nanos for group in groups),
        mix_nanos=sum(group.mix_nanos for group in groups),
        price_nanos=sum(group.price_nanos for group in groups),
        groups=groups,
    )


def _group_change(value: str, before: Used, after: Used, growth: Fraction | None) -> GroupChange:
    """Split the change of one group; `growth` is that of all requests, None from nothing."""
    old_price = _price(before)
    price = old_price if old_price is not None else _price(after)
    change = after.cost_nanos - before.cost_nanos
    if price is None:
        return GroupChange(value, before, after, 0, 0, change)
    if growth is None:
        volume = _rounded(after.requests * price)
    else:
        volume = _rounded(before.requests * (growth - 1) * price)
    of_price = _rounded(after.cost_nanos - after.requests * price)
    if not before.requests:
        of_price -= before.cost_nanos
    elif growth is None or not after.requests:
        of_price = after.cost_nanos
    return GroupChange(value, before, after, volume, change - volume - of_price, of_price)


def _price(used: Used) -> Fraction | None:
    return Fraction(used.cost_nanos, used.requests) if used.requests else None


def _rounded(amount: Fraction) -> int:
    return (amount + HALF).__floor__()
