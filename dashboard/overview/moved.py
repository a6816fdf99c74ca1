"""What moved the total: its change by volume, mix and price, and the groups that made it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from dashboard.filter_bar import FilterBar
from dashboard.spend import compared_question
from metering.reporting.change import Change, GroupChange, what_moved_it

GROUPS_SHOWN: Final = 6


class Part(NamedTuple):
    """One of the three parts of a change, with what it means."""

    words: str
    nanos: int
    meaning: str


@dataclass(frozen=True)
class Moved:
    """A change of spending. What is shown adds up: parts to the change, groups and others too."""

    change: Change
    groups: Sequence[GroupChange]
    others: int
    others_nanos: int

    @property
    def change_nanos(self) -> int:
        return self.change.after_nanos - self.change.before_nanos

    @property
    def parts(self) -> list[Part]:
        """The largest first."""
        parts = [
            Part("Volume", self.change.volume_nanos, "the number of requests"),
            Part("Mix", self.change.mix_nanos, "which of them are made"),
            Part("Price", self.change.price_nanos, "what each of them costs"),
        ]
        return sorted(parts, key=lambda part: -abs(part.nanos))

    @property
    def bars(self) -> list[tuple[GroupChange, int]]:
        """The groups, each with how long its bar is."""
        return [(one, abs(one.change_nanos)) for one in self.groups]

    @property
    def largest_nanos(self) -> int:
        """What the longest bar stands for."""
        shown = [abs(one.change_nanos) for one in self.groups]
        return max([*shown, abs(self.others_nanos)], default=0)


def read_moved(tenant_id: int, bar: FilterBar) -> Moved | None:
    """What moved the spending of the period; None where it is not compared, or nothing changed."""
    question = compared_question(tenant_id, bar)
    if question is None:
        return None
    found = what_moved_it(question, dimension=bar.split, now=bar.now)
    ranked = sorted(found.groups, key=lambda one: -abs(one.change_nanos))
    shown = [one for one in ranked[:GROUPS_SHOWN] if one.change_nanos]
    if not shown:
        return None
    change_nanos = found.after_nanos - found.before_nanos
    return Moved(
        change=found,
        groups=shown,
        others=sum(one.change_nanos != 0 for one in ranked[len(shown) :]),
        others_nanos=change_nanos - sum(one.change_nanos for one in shown),
    )
