"""What moved the cost between two times: more or fewer calls, another mix of them, other prices.

Exactly and in whole nano-dollars, for each group and in total. With `n` requests in all, and of a
group `n_g` requests, its cost `c_g` and so its cost per request `p_g`, before (0) and after (1):

- volume: the change of all requests at the old mix and price, `(n1 - n0) * n0_g/n0 * p0_g`
- mix: what the group has more or less of all requests, `(n1_g - n1 * n0_g/n0) * p0_g`
- price: what its requests cost more or less than at the old price, `c1_g - n1_g * p0_g`

A new group has no old price and takes its new one: all its cost is mix. One that vanished is volume
and mix. From nothing, everything is volume. Cost without requests (of tool calls) is price.

The sums volume and volume + mix are rounded half up, and price is what is left of the change: a
part that is nothing stays nothing, and the three always add up. Totals are sums of the groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from typing import Final, NamedTuple

from django.utils import timezone

from metering.reporting.comparison import Comparison
from metering.reporting.intervals import Bucket
from metering.reporting.kept import require_sums
from metering.reporting.question import InvalidQuestion, UsageQuestion
from metering.reporting.usage import measures_in

HALF: Final = Fraction(1, 2)
GROUPS_MAX: Final = 10_000


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
    """Split the change of one group; `growth` is how all requests grew, None from nothing."""
    priced = before if before.requests else after
    price = Fraction(priced.cost_nanos, priced.requests) if priced.requests else Fraction()
    volume = after.requests * price if growth is None else before.requests * (growth - 1) * price
    volume_nanos = _rounded(volume)
    # Volume and mix together are the change of the group's own requests at one price.
    quantity_nanos = _rounded((after.requests - before.requests) * price)
    change = after.cost_nanos - before.cost_nanos
    return GroupChange(
        value,
        before,
        after,
        volume_nanos,
        quantity_nanos - volume_nanos,
        change - quantity_nanos,
    )


def _rounded(amount: Fraction) -> int:
    return (amount + HALF).__floor__()


def what_moved_it(
    question: UsageQuestion, *, dimension: str = "model", now: datetime | None = None
) -> Change:
    """Return how the cost of the question's range moved against the range before it (`comparison`),
    by the values of a dimension. Raises InvalidQuestion, also for more than 10,000 values.
    """
    now = now or timezone.now()
    comparison = Comparison(question, now=now)
    both = replace(question, starts_at=comparison.starts_at, group_by=(dimension,), interval="none")
    before = Bucket(comparison.starts_at, comparison.starts_at, comparison.ends_at)
    portion = [before, question.whole]
    require_sums(both, portion)
    used = measures_in(both, portion, (dimension,), None, limit=2 * GROUPS_MAX + 1)
    if len(used) > 2 * GROUPS_MAX:
        raise InvalidQuestion(
            "too_many_values",
            f"{dimension} has more than {GROUPS_MAX:,} values in this range: choose another.",
        )
    sides: tuple[dict[str, Used], dict[str, Used]] = ({}, {})
    for (bucket, (value,)), measures in used.items():
        sides[bucket - 1][value] = Used(measures.cost_nanos, measures.requests)
    return split_change(*sides)
